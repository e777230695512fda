// Package k8s checks the Kubernetes manifests beside it; docs/containers.md says
// what they are for. It is a module of its own, so that Kubernetes is no dependency
// of zrdma.
package k8s
