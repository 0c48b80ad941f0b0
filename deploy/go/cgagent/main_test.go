package cgagent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// TestMain runs the tests; with CGAGENT_ROOTS set it is the program that cgagent's conformance cases are held against:
// for each directory that is named on standard input it prints what was read there and decided, as JSON.
func TestMain(m *testing.M) {
	if os.Getenv("CGAGENT_ROOTS") == "" {
		os.Exit(m.Run())
	}
	var o Options
	if err := o.complete(); err != nil {
		panic(err)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line, err := json.Marshal(shown(readLimits(tree(in.Text())), &o))
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}

func shown(l *limits, o *Options) map[string]any {
	found := decide(l, o)
	malformed := false
	for _, one := range l.problems {
		var wrong *malformedError
		malformed = malformed || errors.As(one.err, &wrong)
	}
	document := map[string]any{"malformed": malformed, "mode": nil, "cpu_cores": nil, "memory_bytes": nil, "allowed_cpus": nil}
	if l.mode != "" {
		document["mode"] = l.mode
	}
	if l.cores != infinite {
		document["cpu_cores"] = l.cores
	}
	if l.bytes != noBytes {
		document["memory_bytes"] = l.bytes
	}
	if len(l.allowed) > 0 {
		document["allowed_cpus"] = len(l.allowed)
	}
	env := map[string]string{}
	for name, one := range map[string]choice{gomaxprocs: found.procs, gomemlimit: found.memory} {
		if one.err == nil && one.value != 0 {
			env[name] = strconv.FormatInt(one.value, 10)
		}
	}
	document["env"] = env
	document["blocked"] = found.procs.err != nil || found.memory.err != nil
	return document
}
