// Load sends orders to the service and measures, as JSON on standard output.
//
// Closed loop (no -rate): each connection sends its next request when it has its answer, which finds the throughput.
// Open loop (-rate): requests are due at a constant rate, whatever the service does, and the latency counts from the
// moment at which a request was due: one that had to wait for a connection has waited.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	items = 150
	grace = 3 * time.Second // for answers that are due when the time is up
	slice = 100 * time.Millisecond
)

type result struct {
	Requests   int     `json:"requests"`
	Unfinished int     `json:"unfinished"` // due, and not answered when the time and the grace were over
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_seconds"`
	P99        float64 `json:"p99_seconds"`
	Longest    float64 `json:"max_seconds"`
	CPU        float64 `json:"cpu_seconds"` // of this program
	Failed     string  `json:"failed"`      // why the first request failed; none is sent after it
	FailedAt   float64 `json:"failed_at_seconds"`
	Slices     []int   `json:"slices"` // answers in each tenth of a second
}

func request(address string) []byte {
	var list []map[string]any
	for number := range items {
		list = append(list, map[string]any{
			"sku": fmt.Sprintf("SKU-%06d", number*7919), "quantity": number%5 + 1,
			"price": 9.99 + float64(number), "note": strings.Repeat("gift wrapped ", 3),
		})
	}
	body, _ := json.Marshal(map[string]any{"customer": "c-4711", "items": list})
	head := "POST /order HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
	return append(fmt.Appendf(nil, head, address, len(body)), body...)
}

// A run is what the connections have in common.
type run struct {
	address  string
	request  []byte
	interval time.Duration // between requests; 0: closed loop
	start    time.Time
	length   time.Duration
	due      chan time.Duration // from the start; open loop alone
	failed   atomic.Pointer[string]
	failedAt time.Duration
	lock     sync.Mutex
	done     []answer
	pending  int
}

type answer struct{ at, latency time.Duration }

// dispatch tells the connections when a request is due. The runtime's own timers are late by up to a millisecond.
func (r *run) dispatch() {
	runtime.LockOSThread()
	for at := time.Duration(0); at < r.length; at += r.interval {
		if wait := at - time.Since(r.start); wait > 0 {
			nap := syscall.NsecToTimespec(wait.Nanoseconds())
			syscall.Nanosleep(&nap, nil)
		}
		r.due <- at
	}
	close(r.due)
}

// next waits until a request is due, and says when that was; false when the time is up.
func (r *run) next() (time.Duration, bool) {
	if r.interval == 0 {
		at := time.Since(r.start)
		return at, at < r.length
	}
	at, more := <-r.due
	return at, more
}

func (r *run) fail(err error) {
	text := err.Error()
	at := time.Since(r.start)
	if r.failed.CompareAndSwap(nil, &text) {
		r.failedAt = at
	}
}

// connection sends requests, one after the other, until the time is up or any connection has failed.
func (r *run) connection() {
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		r.fail(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(r.start.Add(r.length + grace))
	reader := bufio.NewReader(conn)
	var done []answer
	pending := 0
	for r.failed.Load() == nil {
		due, more := r.next()
		if !more {
			break
		}
		if time.Since(r.start) > r.length+grace {
			pending++
			continue
		}
		if err := r.exchange(conn, reader); err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				pending++
				continue
			}
			r.fail(err)
			break
		}
		at := time.Since(r.start)
		done = append(done, answer{at, at - due})
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	r.done = append(r.done, done...)
	r.pending += pending
}

func (r *run) exchange(conn net.Conn, reader *bufio.Reader) error {
	if _, err := conn.Write(r.request); err != nil {
		return err
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the service answered %s", response.Status)
	}
	return nil
}

// percentile is the smallest latency that at least this share of all that was due did not exceed.
func percentile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))].Seconds()
}

func (r *run) result() result {
	made := result{Requests: len(r.done), Unfinished: r.pending, Slices: make([]int, r.length/slice)}
	took := r.length
	if why := r.failed.Load(); why != nil {
		made.Failed, made.FailedAt = *why, r.failedAt.Seconds()
		took = min(took, r.failedAt)
	}
	var latencies []time.Duration
	inTime := 0
	for _, one := range r.done {
		latencies = append(latencies, one.latency)
		if one.at < r.length {
			inTime++
			if number := int(one.at / slice); number < len(made.Slices) {
				made.Slices[number]++
			}
		}
	}
	for range r.pending { // each has waited at least this long
		latencies = append(latencies, r.length+grace)
	}
	slices.Sort(latencies)
	made.Seconds = took.Seconds()
	made.PerSecond = float64(inTime) / max(took.Seconds(), slice.Seconds())
	made.P50, made.P99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
	made.Longest = percentile(latencies, 1)
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	made.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	return made
}

func main() {
	address := flag.String("address", "", "host:port of the service")
	connections := flag.Int("connections", 8, "connections, each with one request at a time")
	rate := flag.Float64("rate", 0, "requests a second; 0: as fast as they are answered")
	length := flag.Duration("length", time.Second, "how long")
	flag.Parse()

	r := &run{address: *address, request: request(*address), length: *length, start: time.Now()}
	if *rate > 0 {
		r.interval = time.Duration(float64(time.Second) / *rate)
		r.due = make(chan time.Duration, r.length/r.interval+1) // never full: nobody waits for the service
		go r.dispatch()
	}
	var group sync.WaitGroup
	for range *connections {
		group.Add(1)
		go func() { defer group.Done(); r.connection() }()
	}
	group.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(r.result()); err != nil {
		log.Fatal(err)
	}
}
