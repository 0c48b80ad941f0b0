//go:build cgo

package main

// #include <stdlib.h>
import "C"

import "unsafe"

// malloc takes memory as a C library in the program would.
func malloc(size int) []byte {
	return unsafe.Slice((*byte)(C.malloc(C.size_t(size))), size)
}
