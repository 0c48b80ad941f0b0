package main

import (
	"fmt"
	"syscall"
)

// kept is what the runtime does not manage.
var kept []byte

// keepBeside takes size bytes that are not the Go runtime's, and touches every page.
func keepBeside(kind string, size int) error {
	if size == 0 {
		return nil
	}
	switch kind {
	case "mmap":
		pages, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			return fmt.Errorf("mmap of %d bytes: %w", size, err)
		}
		kept = pages
	case "malloc":
		if kept = malloc(size); kept == nil {
			return fmt.Errorf("no malloc of %d bytes in this build", size)
		}
	default:
		return fmt.Errorf("kind %q is not known", kind)
	}
	for at := 0; at < size; at += syscall.Getpagesize() {
		kept[at] = 1
	}
	return nil
}
