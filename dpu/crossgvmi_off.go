//go:build !crossgvmi

package dpu

const crossGVMIBuilt = false
