//go:build race

package qp

const raceBuild = true
