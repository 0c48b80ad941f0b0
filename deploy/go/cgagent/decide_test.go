package cgagent

import (
	"strings"
	"testing"
)

const (
	ki = int64(1) << 10
	mi = int64(1) << 20
	gi = int64(1) << 30
)

func some(cpus int) cpuSet {
	set := cpuSet{}
	for cpu := 0; cpu < cpus; cpu++ {
		set[uint64(cpu)] = true
	}
	return set
}

func TestGomaxprocs(t *testing.T) {
	for _, c := range []struct {
		name            string
		cores           float64
		usable, machine int
		options         Options
		want            int64
	}{
		{"half a CPU", 0.5, 8, 8, Options{}, 1},
		{"a bit more than one", 1.001, 8, 8, Options{}, 2},
		{"more than there are", 12, 8, 8, Options{}, 8},
		{"no quota", infinite, 8, 8, Options{}, 0},
		{"a cpuset alone", infinite, 3, 8, Options{}, 3},
		{"a cpuset narrower than the quota", 4, 3, 8, Options{}, 3},
		{"at least", 0.5, 8, 8, Options{MinProcs: 2}, 2},
		{"at least, and fewer there are", 0.5, 1, 8, Options{MinProcs: 2}, 1},
		{"at most", 6, 8, 8, Options{MaxProcs: 4}, 4},
		{"at most, without a quota", infinite, 8, 8, Options{MaxProcs: 4}, 4},
	} {
		l := newLimits()
		l.cores, l.allowed, l.machine = c.cores, some(c.usable), some(c.machine)
		if got := decideProcs(l, &c.options); got.value != c.want || got.err != nil {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestGomemlimit(t *testing.T) {
	for _, c := range []struct {
		name    string
		bytes   uint64
		options Options
		want    int64
		fails   bool
	}{
		{"nine tenths, rounded down", 268435456, Options{}, 241591910, false},
		{"exactly, where a floating-point number is not", 10, Options{}, 9, false},
		{"a reserve comes off before", uint64(256 * mi), Options{MemoryReserve: 56 * mi}, 180 * mi, false},
		{"all of it", uint64(gi), Options{MemoryRatio: 1}, gi, false},
		{"no limit", noBytes, Options{}, 0, false},
		{"nothing left", uint64(64 * mi), Options{MemoryReserve: 64 * mi}, 0, true},
		{"less than is worth it", uint64(64 * mi), Options{MemoryMin: 60 * mi}, 0, true},
	} {
		l := newLimits()
		l.bytes = c.bytes
		if err := c.options.complete(); err != nil {
			t.Fatal(err)
		}
		if got := decideMemory(l, &c.options); got.value != c.want || (got.err != nil) != c.fails {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestSizesAreReadAsCgagentReadsThem(t *testing.T) {
	for text, want := range map[string]int64{
		"1024": 1024, "256Mi": 256 * mi, "256MiB": 256 * mi, "256m": 256 * mi, "512k": 512 * ki, "1.5Gi": 3 * gi / 2,
		"1G": 1e9, "1k": ki, "1K": 1000, "7b": 7, "1.9": 1,
		"": -1, "Mi": -1, "-1": -1, "1e3": -1, "1X": -1, "1Mix": -1, "i": -1, "1i": -1, "9E": 9e18, "8Ei": -1, "1/2": -1, "+1": -1,
	} {
		got, err := parseSize(text)
		if (err != nil) != (want < 0) || (err == nil && got != want) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestMemoryLimitsAreReadAsGoReadsThem(t *testing.T) {
	for text, want := range map[string]int64{
		"1024": 1024, "90MiB": 90 * mi, "5B": 5, "1GiB": gi, "": 0, "1.5GiB": 0, "90M": 0, "9223372036854775807": 1<<63 - 1,
		"9223372036854775808": 0, "9999999TiB": 0, "MiB": 0, "off": 1<<63 - 1,
	} {
		if got, ok := parseMemoryLimit(text); got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
}

func TestAnEnvFileOfAnyFormatIsUnderstood(t *testing.T) {
	for name, text := range map[string]string{
		"dotenv":        "# written by cgagent 0.1.0: cpu\nGOMAXPROCS='2'\nGOMEMLIMIT='94371840'\n",
		"docker":        "GOMAXPROCS=2\nGOMEMLIMIT=90MiB\n",
		"shell":         "export GOMAXPROCS='2'\nexport GOMEMLIMIT='94371840'\n",
		"among others'": "A='1'\nGOMAXPROCS=\"2\"\nGOMAXPROCSES='9'\nGOMEMLIMIT='94371840'",
	} {
		got, err := parseEnvFile(text, "go.env")
		if err != nil || got.procs.value != 2 || got.memory.value != 90*mi {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, text := range []string{"GOMAXPROCS='two'\n", "GOMEMLIMIT='-1'\n", "GOMAXPROCS='2\n"} {
		if got, err := parseEnvFile(text, "go.env"); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestOptionsComeFromTheEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"CGAGENT_ENV_FILE": "/run/cgagent/go.env", "CGAGENT_MEMORY_RATIO": "80%", "CGAGENT_MEMORY_RESERVE": "64Mi",
		"CGAGENT_MEMORY_MIN": "1Mi", "CGAGENT_MIN_PROCS": "2", "CGAGENT_MAX_PROCS": "8", "CGAGENT_OVERRIDE": "true",
	} {
		t.Setenv(name, value)
	}
	got, err := FromEnvironment()
	got.Report = nil
	if err != nil || got.EnvFile != "/run/cgagent/go.env" || got.MemoryRatio != 0.8 || got.MemoryReserve != 64*mi ||
		got.MemoryMin != mi || got.MinProcs != 2 || got.MaxProcs != 8 || !got.Override {
		t.Errorf("%+v, %v", got, err)
	}
	for _, name := range []string{"CGAGENT_MEMORY_RATIO", "CGAGENT_MEMORY_RESERVE", "CGAGENT_MAX_PROCS"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "much")
			if _, err := FromEnvironment(); err == nil || !strings.HasPrefix(err.Error(), name) {
				t.Error(err)
			}
		})
	}
}

func TestASwitchIsReadAsCgagentReadsIt(t *testing.T) {
	for text, want := range map[string]bool{"yes": true, "on": true, "1": true, "TRUE": true, "no": false, "Off": false} {
		t.Setenv("CGAGENT_OVERRIDE", text)
		if got, err := FromEnvironment(); err != nil || got.Override != want {
			t.Errorf("%q: %v, %v", text, got.Override, err)
		}
	}
	t.Setenv("CGAGENT_OVERRIDE", "2")
	if _, err := FromEnvironment(); err == nil {
		t.Error("2 is taken for a switch")
	}
}
