//go:build !race

package mr

const raceBuild = false
