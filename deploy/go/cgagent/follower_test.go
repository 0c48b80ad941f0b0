package cgagent

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// A file that is followed by the test's own runtime, whose values are given back at the end.
type followed struct {
	t    *testing.T
	path string
	mu   sync.Mutex
	log  []string
}

func follow(t *testing.T, content string, o Options) *followed {
	t.Helper()
	f := &followed{t: t, path: filepath.Join(t.TempDir(), "go.env")}
	f.write(content)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		time.Sleep(20 * time.Millisecond)
		defaultProcs()
		debug.SetMemoryLimit(math.MaxInt64)
	})
	o.EnvFile, o.Interval, o.Report = f.path, 2*time.Millisecond, f.report
	if err := Follow(ctx, o); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *followed) report(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, line)
}

func (f *followed) said(text string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Count(strings.Join(f.log, "\n"), text)
}

func (f *followed) write(content string) {
	f.t.Helper()
	err := os.WriteFile(f.path+".new", []byte(content), 0o600)
	if err == nil {
		err = os.Rename(f.path+".new", f.path)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *followed) until(what string, holds func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("never: %s; said: %q", what, f.log)
		}
	}
}

func limit() int64 { return debug.SetMemoryLimit(-1) }

func TestTheFirstValuesAreSetBeforeFollowReturns(t *testing.T) {
	follow(t, "GOMAXPROCS='3'\nGOMEMLIMIT='123456789'\n", Options{})
	if procs := runtime.GOMAXPROCS(0); procs != 3 || limit() != 123456789 {
		t.Errorf("%d procs, %d bytes", procs, limit())
	}
}

func TestAChangedFileIsFollowedAndALineThatGoesTakesItsValueWithIt(t *testing.T) {
	own := runtime.GOMAXPROCS(0)
	f := follow(t, "GOMAXPROCS='3'\nGOMEMLIMIT='123456789'\n", Options{})
	f.write("GOMAXPROCS='5'\nGOMEMLIMIT='223456789'\n")
	f.until("the new values", func() bool { return runtime.GOMAXPROCS(0) == 5 && limit() == 223456789 })
	f.write("# nothing\n")
	f.until("no values", func() bool { return runtime.GOMAXPROCS(0) == own && limit() == math.MaxInt64 })
	f.write("GOMEMLIMIT='323456789'\n")
	f.until("a value again", func() bool { return limit() == 323456789 })
}

func TestAFileThatIsMalformedChangesNothingAndIsToldOnce(t *testing.T) {
	f := follow(t, "GOMEMLIMIT='123456789'\n", Options{})
	f.write("GOMEMLIMIT='12 apples'\n")
	f.until("a word about it", func() bool { return f.said("malformed") > 0 })
	time.Sleep(50 * time.Millisecond)
	if limit() != 123456789 || f.said("malformed") != 1 {
		t.Errorf("%d bytes, said %q", limit(), f.log)
	}
}

func TestWhatOtherCodeSetsIsLeftAlone(t *testing.T) {
	f := follow(t, "GOMAXPROCS='3'\nGOMEMLIMIT='123456789'\n", Options{})
	debug.SetMemoryLimit(99999999)
	runtime.GOMAXPROCS(7)
	f.write("GOMAXPROCS='5'\nGOMEMLIMIT='223456789'\n")
	f.until("a word about both", func() bool { return f.said("other code of the program has set it to") == 2 })
	if runtime.GOMAXPROCS(0) != 7 || limit() != 99999999 {
		t.Errorf("%d procs, %d bytes", runtime.GOMAXPROCS(0), limit())
	}
}

func TestWhatOtherCodeHasSetBeforeIsLeftAlone(t *testing.T) {
	debug.SetMemoryLimit(99999999)
	runtime.GOMAXPROCS(7)
	f := follow(t, "GOMAXPROCS='3'\nGOMEMLIMIT='123456789'\n", Options{})
	if runtime.GOMAXPROCS(0) != 7 || limit() != 99999999 || f.said("other code of the program has set it") != 2 {
		t.Errorf("%d procs, %d bytes, said %q", runtime.GOMAXPROCS(0), limit(), f.log)
	}
}

func TestWhatTheEnvironmentSetsIsLeftAloneUnlessTheFileSaysItToo(t *testing.T) {
	for given, taken := range map[string]bool{"99999999": false, "123456789": true} {
		t.Run(given, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", given)
			size, _ := parseMemoryLimit(given)
			debug.SetMemoryLimit(size)
			f := follow(t, "GOMEMLIMIT='123456789'\n", Options{})
			f.write("GOMEMLIMIT='223456789'\n")
			if taken {
				f.until("the new value", func() bool { return limit() == 223456789 })
				return
			}
			f.until("a word about it", func() bool { return f.said("the environment has it") == 1 })
			if limit() != size {
				t.Errorf("%d bytes", limit())
			}
		})
	}
}

func TestWithOverrideTheEnvironmentDoesNotCount(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "99999999")
	debug.SetMemoryLimit(99999999)
	follow(t, "GOMEMLIMIT='123456789'\n", Options{Override: true})
	if limit() != 123456789 {
		t.Errorf("%d bytes", limit())
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, o := range []Options{
		{MemoryRatio: 1.1}, {MemoryRatio: math.NaN()}, {MemoryReserve: -1}, {MinProcs: 3, MaxProcs: 2}, {Interval: -1},
	} {
		if Follow(context.Background(), o) == nil {
			t.Errorf("%+v", o)
		}
	}
}
