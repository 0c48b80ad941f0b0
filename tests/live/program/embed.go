//go:build embed && !cgo

package main

import _ "embed"

// Another Go program, function table and all, in this one's file, in its data, and on its heap.
//
//go:embed embedded
var embedded []byte

var copied []byte

func setup() { copied = append([]byte(nil), embedded...) }

func grab(int) {}
