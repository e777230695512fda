//go:build !race

package rdmanet

const raceBuild = false
