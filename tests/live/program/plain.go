//go:build !cgo && !embed

package main

import "syscall"

func setup() {}

// grab maps mib MiB that the Go runtime does not know of, and touches them.
func grab(mib int) {
	block, err := syscall.Mmap(-1, 0, mib<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	for at := 0; at < len(block); at += 4096 {
		block[at] = 1
	}
}
