//go:build !linux

package dpu

import "context"

func kernelDevlink(context.Context) ([]DevlinkDevice, error) { return nil, errNoLive }

func kernelRDMALinks(context.Context) ([]RDMALink, error) { return nil, errNoLive }

func rdmamapOf(string) []string { return nil }
