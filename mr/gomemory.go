package mr

import "unsafe"

// goMemory is page-aligned memory of the Go heap. Registering pins it.
func goMemory(size int) mapping {
	size = roundUp(size, pageSize)
	b := make([]byte, size+pageSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (pageSize - 1)
	return mapping{mem: b[skip : skip+size : skip+size], backing: GoMemory}
}
