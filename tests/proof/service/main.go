// Service is an HTTP service of the usual kind: it decodes JSON, hashes, allocates, keeps a cache and encodes JSON.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	payloadSize = 256
	entrySize   = 48 + payloadSize + 8 // size classes of an entry and its payload, and the pointer to it
	pieceSize   = 4 << 10
	hashings    = 3
	replaced    = 4 // entries of the cache that a request replaces
)

type item struct {
	SKU      string  `json:"sku"`
	Quantity int     `json:"quantity"`
	Price    float64 `json:"price"`
	Note     string  `json:"note"`
}

type order struct {
	Customer string `json:"customer"`
	Items    []item `json:"items"`
}

type receipt struct {
	Order  order   `json:"order"`
	Total  float64 `json:"total"`
	Digest string  `json:"digest"`
	Known  int     `json:"known"`
}

// An entry is 48 bytes with a pointer, so that marking the cache is real work.
type entry struct {
	digest  [24]byte
	payload []byte
}

// A cache is the service's live heap.
type cache []atomic.Pointer[entry]

func newEntry(digest [32]byte) *entry {
	made := &entry{payload: make([]byte, payloadSize)}
	copy(made.digest[:], digest[:])
	copy(made.payload, digest[:])
	return made
}

func newCache(size int) cache {
	made := make(cache, size/entrySize+1)
	for number := range made {
		made[number].Store(newEntry([32]byte{byte(number)}))
	}
	return made
}

// touch looks up and replaces the entries that a digest leads to; how many had been replaced before.
func (c cache) touch(digest [32]byte) int {
	known := 0
	for number := range replaced {
		slot := &c[binary.LittleEndian.Uint64(digest[8*number:])%uint64(len(c))]
		if slot.Load().digest[1] != 0 {
			known++
		}
		slot.Store(newEntry(digest))
	}
	return known
}

type service struct {
	cache   cache
	garbage int
	served  atomic.Uint64
}

func (s *service) order(w http.ResponseWriter, r *http.Request) {
	var asked order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := receipt{Order: asked}
	for _, one := range asked.Items {
		answer.Total += one.Price * float64(one.Quantity)
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %d", asked.Customer, s.served.Add(1)))
	digest = s.work(digest)
	answer.Digest = hex.EncodeToString(digest[:])
	answer.Known = s.cache.touch(digest)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}

// work allocates the garbage of one request, in pieces, and hashes them in a chain.
func (s *service) work(digest [32]byte) [32]byte {
	var pieces [][]byte // kept until all are made, so that they are the heap's and not the stack's
	for range s.garbage / pieceSize {
		piece := make([]byte, pieceSize)
		copy(piece, digest[:])
		pieces = append(pieces, piece)
		for range hashings {
			digest = sha256.Sum256(piece)
		}
	}
	return digest
}

// measures are the runtime's own figures; those of CPU time are seconds, of which GOMAXPROCS pass in a second.
var measures = map[string]string{
	"gc_seconds":    "/cpu/classes/gc/total:cpu-seconds",
	"idle_seconds":  "/cpu/classes/idle:cpu-seconds",
	"total_seconds": "/cpu/classes/total:cpu-seconds",
	"gc_cycles":     "/gc/cycles/total:gc-cycles",
	"heap_live":     "/gc/heap/live:bytes",
	"mapped":        "/memory/classes/total:bytes",
	"released":      "/memory/classes/heap/released:bytes",
}

func stats() map[string]float64 {
	answer := map[string]float64{
		"gomaxprocs": float64(runtime.GOMAXPROCS(0)),
		"gomemlimit": float64(debug.SetMemoryLimit(-1)), // a negative input reports and changes nothing
	}
	for name, measure := range measures {
		sample := []metrics.Sample{{Name: measure}}
		metrics.Read(sample)
		if sample[0].Value.Kind() == metrics.KindUint64 {
			answer[name] = float64(sample[0].Value.Uint64())
		} else {
			answer[name] = sample[0].Value.Float64()
		}
	}
	return answer
}

func main() {
	live := flag.Int("live", 64<<20, "bytes of the cache")
	garbage := flag.Int("garbage", 128<<10, "bytes that each request allocates and drops")
	beside := flag.Int("beside", 0, "bytes beside Go's heap")
	kind := flag.String("kind", "mmap", "what holds them: mmap or malloc")
	flag.Parse()

	if err := keepBeside(*kind, *beside); err != nil {
		log.Fatal(err)
	}
	s := &service{cache: newCache(*live), garbage: *garbage}
	runtime.GC() // what is live is known from now on, as in a service that has run for a while
	http.HandleFunc("POST /order", s.order)
	http.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(stats()) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"address": listener.Addr().String(), "version": runtime.Version(),
		"gomaxprocs": runtime.GOMAXPROCS(0), "gomemlimit": debug.SetMemoryLimit(-1),
	})
	log.Fatal(http.Serve(listener, nil))
}
