// Package cgagent lets a Go program follow the limits of its container by itself: GOMEMLIMIT and GOMAXPROCS become
// what `cgagent write` would make them, at start and whenever the cgroup's limits, or an env file, change.
//
// It reads cgroup v1, v2 and both together, at the process's own cgroup and at every ancestor that a mount shows. A
// limit that can't be known changes nothing. A variable that the environment sets, and a value that other code of the
// program sets, is left alone. The quickest way is to import package auto for its effect.
//
// It polls: a look is some small files, once a second, as the runtime itself looks for its quota.
package cgagent

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Options say how limits become numbers. The zero value is cgagent's default.
type Options struct {
	// EnvFile is an env file that cgagent keeps: as long as it is there, its values are followed instead of the cgroup.
	EnvFile string
	// MemoryRatio is the share of the memory limit that GOMEMLIMIT gets; 0 is 0.9.
	MemoryRatio float64
	// MemoryReserve is taken off the memory limit before that, in bytes: memory that Go does not manage.
	MemoryReserve int64
	// MemoryMin is the smallest GOMEMLIMIT worth setting, in bytes.
	MemoryMin int64
	// MinProcs and MaxProcs bound GOMAXPROCS; 0 is no bound.
	MinProcs, MaxProcs int
	// Override sets what the environment already has, too.
	Override bool
	// Interval is the time between looks; 0 is a second.
	Interval time.Duration
	// Report is told, in one line, of each change and of each new problem; nil tells nobody.
	Report func(line string)
}

// Follow decides and sets both values before it returns, and goes on doing so until ctx is done. It should be called
// once, before other code sets either value. A limit that can't be known is reported, and is no error.
func Follow(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	f := newFollower(&o)
	f.look()
	go func() {
		ticker := time.NewTicker(o.Interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				f.look()
			}
		}
	}()
	return nil
}

// FromEnvironment reads options from the variables that cgagent's own options have as twins: CGAGENT_ENV_FILE,
// CGAGENT_MEMORY_RATIO, CGAGENT_MEMORY_RESERVE, CGAGENT_MEMORY_MIN, CGAGENT_MIN_PROCS, CGAGENT_MAX_PROCS and
// CGAGENT_OVERRIDE.
func FromEnvironment() (Options, error) {
	o := Options{EnvFile: os.Getenv("CGAGENT_ENV_FILE")}
	var failed error
	parse := func(name string, set func(text string) error) {
		if text := os.Getenv(name); text != "" {
			if err := set(text); err != nil && failed == nil {
				failed = fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	size := func(to *int64) func(string) error {
		return func(text string) (err error) { *to, err = parseSize(text); return err }
	}
	count := func(to *int) func(string) error {
		return func(text string) (err error) { *to, err = strconv.Atoi(text); return err }
	}
	parse("CGAGENT_MEMORY_RATIO", func(text string) (err error) {
		number, percent := strings.CutSuffix(text, "%")
		o.MemoryRatio, err = strconv.ParseFloat(number, 64)
		if percent {
			o.MemoryRatio /= 100
		}
		if err == nil && !(o.MemoryRatio > 0) {
			err = fmt.Errorf("%q is not above 0", text)
		}
		return err
	})
	parse("CGAGENT_MEMORY_RESERVE", size(&o.MemoryReserve))
	parse("CGAGENT_MEMORY_MIN", size(&o.MemoryMin))
	parse("CGAGENT_MIN_PROCS", count(&o.MinProcs))
	parse("CGAGENT_MAX_PROCS", count(&o.MaxProcs))
	parse("CGAGENT_OVERRIDE", func(text string) (err error) { o.Override, err = parseYes(text); return err })
	return o, failed
}

// parseYes understands what cgagent does; strconv.ParseBool knows of no yes and no.
func parseYes(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", text)
}

// complete puts defaults where there is nothing, and refuses what makes no sense.
func (o *Options) complete() error {
	if o.MemoryRatio == 0 {
		o.MemoryRatio = 0.9
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	switch {
	case !(o.MemoryRatio > 0 && o.MemoryRatio <= 1):
		return fmt.Errorf("cgagent: a memory ratio of %v is not above 0 and at most 1", o.MemoryRatio)
	case o.MemoryReserve < 0 || o.MemoryMin < 0 || o.MinProcs < 0 || o.MaxProcs < 0 || o.Interval < 0:
		return fmt.Errorf("cgagent: an option is negative")
	case o.MaxProcs > 0 && o.MaxProcs < o.MinProcs:
		return fmt.Errorf("cgagent: at most %d procs are fewer than at least %d", o.MaxProcs, o.MinProcs)
	}
	return nil
}
