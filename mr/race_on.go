//go:build race

package mr

const raceBuild = true
