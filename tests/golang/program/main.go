// Limits prints what the Go runtime runs with, as one JSON object.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
)

func main() {
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"version":    runtime.Version(),
		"gomaxprocs": runtime.GOMAXPROCS(0),
		"gomemlimit": debug.SetMemoryLimit(-1), // a negative input reports and changes nothing
		"numcpu":     runtime.NumCPU(),
		"pid":        os.Getpid(),
	})
}
