// Package lint holds the house rules as tests: what go vet does not know. It
// has no code of its own.
package lint
