//go:build !race

package rpc

const raceBuild = false
