//go:build !unix

package verbs

func dupCloexec(int) (int, error) { return -1, errUnsupported }
