// Minimal is a program of package runtime alone, as small as Go links one.
package main

import "runtime"

func main() {
	for {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		println(runtime.GOMAXPROCS(0), stats.NumGC, stats.Sys-stats.HeapReleased)
		if !line() {
			return
		}
		runtime.GC()
	}
}
