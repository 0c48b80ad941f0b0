// Told runs with what it is told on standard input and says, as one JSON object a line, what its own runtime
// says of itself: by runtime/metrics and debug.SetMemoryLimit(-1).
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var names = []string{
	"/gc/heap/live:bytes", "/gc/cycles/total:gc-cycles", "/gc/gogc:percent", "/gc/gomemlimit:bytes",
	"/sched/gomaxprocs:threads", "/cpu/classes/gc/total:cpu-seconds", "/cpu/classes/total:cpu-seconds",
	"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes",
}

func report(out *json.Encoder) {
	samples := make([]metrics.Sample, len(names))
	for i := range names {
		samples[i].Name = names[i]
	}
	metrics.Read(samples)
	values := map[string]any{
		"version": runtime.Version(), "limit": debug.SetMemoryLimit(-1), "procs": runtime.GOMAXPROCS(0),
		"busy": checked.Load(), "wrong": wrong.Load(),
	}
	for _, sample := range samples {
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			values[sample.Name] = sample.Value.Uint64()
		case metrics.KindFloat64:
			values[sample.Name] = sample.Value.Float64()
		}
	}
	out.Encode(values)
}

var checked, wrong atomic.Uint64
var held [][]byte

// hold keeps mib MiB of live heap.
func hold(mib int) {
	held = nil
	for i := 0; i < mib; i++ {
		block := make([]byte, 1<<20)
		for at := 0; at < len(block); at += 4096 {
			block[at] = byte(i)
		}
		held = append(held, block)
	}
	runtime.GC()
}

var stop chan struct{}
var wait sync.WaitGroup

// busy allocates about mib MiB a second and computes what can be checked.
func busy(mib int) {
	if stop != nil {
		close(stop)
		wait.Wait()
		stop = nil
	}
	if mib == 0 {
		return
	}
	stop = make(chan struct{})
	for w := 0; w < 2; w++ {
		wait.Add(1)
		go func(stop chan struct{}) {
			defer wait.Done()
			work(mib, stop)
		}(stop)
	}
}

// No constant, or the compiler puts the blocks on the stack.
var size = 2048

func work(mib int, stop chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for n := 0; n < mib*1024/200/16; n++ {
			words := make([]uint64, size)
			for i := range words {
				words[i] = uint64(i) * 3
			}
			var sum uint64
			for _, word := range words {
				sum += word
			}
			if sum != uint64(3*size*(size-1)/2) {
				wrong.Add(1)
			}
			checked.Add(1)
		}
	}
}

func main() {
	setup()
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, argument, _ := strings.Cut(in.Text(), " ")
		number, _ := strconv.Atoi(argument)
		switch word {
		case "gc":
			runtime.GC()
		case "hold":
			hold(number)
		case "busy":
			busy(number)
		case "limit":
			debug.SetMemoryLimit(int64(number))
		case "gogc":
			debug.SetGCPercent(number)
		case "procs":
			runtime.GOMAXPROCS(number)
		case "grab":
			grab(number)
		}
		report(out)
	}
}
