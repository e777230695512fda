// Package suite holds the verbs suite: the cases that a verbs binding must
// pass, listed in cases.tsv, as tests whose names carry their ids. They run on
// the device that ZRDMA_TEST_DEVICE names; `make rxe` runs them in a VM on the
// kernel's Soft-RoCE.
package suite
