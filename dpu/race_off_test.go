//go:build !race

package dpu_test

const raceBuild = false
