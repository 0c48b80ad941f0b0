package main

import "syscall"

// line waits for a line on standard input.
func line() bool {
	var buffer [1]byte
	for {
		n, err := syscall.Read(0, buffer[:])
		if n != 1 || err != nil {
			return false
		}
		if buffer[0] == '\n' {
			return true
		}
	}
}
