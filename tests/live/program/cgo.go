//go:build cgo

package main

// #include <stdlib.h>
// #include <string.h>
// static void grab(size_t size) { void *block = malloc(size); if (block) memset(block, 1, size); }
import "C"

func setup() {}

// grab allocates mib MiB in C, of which the Go runtime does not know.
func grab(mib int) { C.grab(C.size_t(mib << 20)) }
