//go:build !go1.25

package cgagent

import "runtime"

// defaultProcs sets GOMAXPROCS to what the runtime takes by itself; it tells whether that follows the quota.
func defaultProcs() (follows bool) {
	runtime.GOMAXPROCS(runtime.NumCPU())
	return false
}
