// Orders is a service that uses CPU and memory when it is told to, and says what its runtime runs with in the
// words of client_golang's default collector.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/metrics"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "eat" {
		eat(number(os.Args[2]))
		return
	}
	http.HandleFunc("/metrics", export)
	http.HandleFunc("/burn", func(_ http.ResponseWriter, request *http.Request) {
		seconds := time.Duration(number(request.FormValue("seconds"))) * time.Second
		for range number(request.FormValue("threads")) {
			go burn(time.Now().Add(seconds))
		}
	})
	http.HandleFunc("/eat", func(answer http.ResponseWriter, request *http.Request) {
		// A child, so that the OOM killer takes it and leaves the service alive.
		child := exec.Command("/bin/sh", "-c", `echo 1000 > /proc/self/oom_score_adj; exec "$0" eat "$1"`,
			"/proc/"+strconv.Itoa(os.Getpid())+"/exe", request.FormValue("bytes"))
		child.Stderr = os.Stderr
		fmt.Fprintln(answer, child.Run())
	})
	http.HandleFunc("/keep", func(_ http.ResponseWriter, request *http.Request) {
		kept = touched(number(request.FormValue("bytes")))
	})
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}

var kept []byte

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func burn(until time.Time) {
	for time.Now().Before(until) {
	}
}

func touched(size int) []byte {
	memory := make([]byte, size)
	for at := 0; at < len(memory); at += 4096 {
		memory[at] = 1
	}
	return memory
}

func eat(size int) {
	kept = touched(size)
	time.Sleep(time.Minute)
}

func export(answer http.ResponseWriter, _ *http.Request) {
	samples := []metrics.Sample{
		{Name: "/sched/gomaxprocs:threads"},
		{Name: "/gc/gomemlimit:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	}
	names := []string{"go_sched_gomaxprocs_threads", "go_gc_gomemlimit_bytes", "go_memstats_heap_alloc_bytes"}
	metrics.Read(samples)
	answer.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for i, sample := range samples {
		fmt.Fprintf(answer, "# TYPE %s gauge\n%s %d\n", names[i], names[i], sample.Value.Uint64())
	}
}
