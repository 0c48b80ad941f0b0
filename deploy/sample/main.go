// Orders is a sample service: it does some work for each request, and shows on /debug/limits what its Go runtime
// runs with. It knows nothing of cgagent.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sort"
	"strconv"
	"syscall"
	"time"
)

const (
	defaultOrders = 1_000
	maxOrders     = 1_000_000 // some 300 MB
	grace         = 10 * time.Second
)

type order struct {
	ID       int      `json:"id"`
	Customer string   `json:"customer"`
	Cents    int      `json:"cents"`
	Items    []string `json:"items"`
}

type summary struct {
	Orders int    `json:"orders"`
	Cents  int    `json:"cents"`
	Best   string `json:"best"`
	Bytes  int    `json:"bytes"`
}

type limits struct {
	Version    string            `json:"version"`
	GOMAXPROCS int               `json:"gomaxprocs"`
	GOMEMLIMIT int64             `json:"gomemlimit"`
	NumCPU     int               `json:"numcpu"`
	Environ    map[string]string `json:"environ"`
	HeapAlloc  uint64            `json:"heap_alloc_bytes"`
	HeapSys    uint64            `json:"heap_sys_bytes"`
	NumGC      uint32            `json:"gc_cycles"`
	Goroutines int               `json:"goroutines"`
	PID        int               `json:"pid"`
}

func main() {
	listen := flag.String("listen", ":8080", "address to serve")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("orders: '%s' is one word too many", flag.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx, *listen); err != nil {
		log.Fatalf("orders: %v", err)
	}
}

// serve answers until ctx ends, then lets the requests under way finish.
func serve(ctx context.Context, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(), ReadHeaderTimeout: 5 * time.Second}
	log.Printf("orders: serving %s with GOMAXPROCS=%d GOMEMLIMIT=%d",
		listener.Addr(), runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	finishing, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := server.Shutdown(finishing); err != nil {
		return fmt.Errorf("requests were cut off: %w", err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Print("orders: ended")
	return nil
}

func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", work)
	mux.HandleFunc("GET /debug/limits", show)
	mux.HandleFunc("GET /healthz", func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, "ok") })
	mux.HandleFunc("GET /metrics", export)
	return mux
}

// work makes ?orders=N orders, writes them as JSON, reads them back and adds them up.
func work(answer http.ResponseWriter, request *http.Request) {
	count := defaultOrders
	if text := request.FormValue("orders"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil || count < 1 || count > maxOrders {
			http.Error(answer, fmt.Sprintf("orders must be 1 to %d", maxOrders), http.StatusBadRequest)
			return
		}
	}
	written, err := json.Marshal(made(count))
	if err != nil {
		http.Error(answer, err.Error(), http.StatusInternalServerError)
		return
	}
	var orders []order
	if err := json.Unmarshal(written, &orders); err != nil {
		http.Error(answer, err.Error(), http.StatusInternalServerError)
		return
	}
	sort.Slice(orders, func(i, j int) bool { return orders[i].Cents > orders[j].Cents })
	result := summary{Orders: len(orders), Best: orders[0].Customer, Bytes: len(written)}
	for _, one := range orders {
		result.Cents += one.Cents
	}
	reply(answer, result)
}

func made(count int) []order {
	orders := make([]order, count)
	for i := range orders {
		orders[i] = order{
			ID:       i,
			Customer: fmt.Sprintf("customer %d", i*7919%count),
			Cents:    i * 7919 % 10_007,
			Items:    []string{"one " + strconv.Itoa(i), "another " + strconv.Itoa(i)},
		}
	}
	return orders
}

// show tells what the runtime runs with, and what the environment asked for.
func show(answer http.ResponseWriter, _ *http.Request) {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	environ := map[string]string{}
	for _, name := range []string{"GOMAXPROCS", "GOMEMLIMIT"} {
		if value, set := os.LookupEnv(name); set {
			environ[name] = value
		}
	}
	reply(answer, limits{
		Version:    runtime.Version(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		GOMEMLIMIT: debug.SetMemoryLimit(-1), // a negative input reports and changes nothing
		NumCPU:     runtime.NumCPU(),
		Environ:    environ,
		HeapAlloc:  memory.HeapAlloc,
		HeapSys:    memory.HeapSys,
		NumGC:      memory.NumGC,
		Goroutines: runtime.NumGoroutine(),
		PID:        os.Getpid(),
	})
}

// export says the same in the words of client_golang's default collector, for the dashboard's comparison.
func export(answer http.ResponseWriter, _ *http.Request) {
	names := []string{"go_sched_gomaxprocs_threads", "go_gc_gomemlimit_bytes", "go_memstats_heap_alloc_bytes"}
	samples := []metrics.Sample{
		{Name: "/sched/gomaxprocs:threads"},
		{Name: "/gc/gomemlimit:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	}
	metrics.Read(samples)
	answer.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for i, sample := range samples {
		fmt.Fprintf(answer, "# TYPE %s gauge\n%s %d\n", names[i], names[i], sample.Value.Uint64())
	}
}

func reply(answer http.ResponseWriter, value any) {
	answer.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(answer)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		log.Printf("orders: answering: %v", err)
	}
}
