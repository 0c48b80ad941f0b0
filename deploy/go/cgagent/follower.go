package cgagent

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

// A knob is one of the two values of the runtime that are set.
type knob struct {
	name string
	get  func() int64
	// apply sets the value, 0 hands it back to the runtime. It tells whether the runtime may change it from now on.
	apply func(value int64) (free bool)
	given int64  // by the environment; 0: nothing
	held  int64  // what get tells as long as nobody else sets it; 0: the runtime may change it by itself
	alone string // why it is left alone for good; empty: it is not
	taken bool   // whether it was found to be ours to set
	ours  bool   // whether it is what we have set
}

type follower struct {
	options       *Options
	fromFile      bool
	procs, memory knob
	told          map[string]string
}

func newFollower(o *Options) *follower {
	f := &follower{options: o, told: map[string]string{}}
	f.memory = knob{
		name: gomemlimit,
		get:  func() int64 { return debug.SetMemoryLimit(-1) },
		apply: func(size int64) bool {
			if size == 0 {
				size = math.MaxInt64
			}
			debug.SetMemoryLimit(size)
			return false
		},
	}
	f.memory.given, _ = parseMemoryLimit(os.Getenv(gomemlimit))
	f.memory.held = f.memory.get()
	if f.memory.given == 0 && f.memory.held != math.MaxInt64 {
		f.memory.alone = "other code of the program has set it"
	}
	f.procs = knob{
		name: gomaxprocs,
		get:  func() int64 { return int64(runtime.GOMAXPROCS(0)) },
	}
	f.procs.apply = func(count int64) bool {
		if free := defaultProcs(); count == 0 || (free && f.procs.get() == count) {
			return free
		}
		runtime.GOMAXPROCS(int(count))
		return false
	}
	// The runtime takes no notice of 0, and of what is no number.
	if number, err := unsigned(os.Getenv(gomaxprocs), "", math.MaxInt32); err == nil {
		f.procs.given = int64(number)
	}
	f.procs.held = f.procs.get()
	if f.procs.given == 0 {
		// What the runtime takes by itself is no one's choice.
		if free := defaultProcs(); f.procs.get() != f.procs.held {
			runtime.GOMAXPROCS(int(f.procs.held))
			f.procs.alone = "other code of the program has set it"
		} else if free {
			f.procs.held = 0
		}
	}
	return f
}

// look decides, and sets what is not so.
func (f *follower) look() {
	found, err := f.decide()
	if err != nil {
		f.report("env file", err.Error())
		return
	}
	f.report("env file", "")
	f.turn(&f.procs, found.procs)
	f.turn(&f.memory, found.memory)
}

// decide takes the env file's values, where there is one; else the limits'.
func (f *follower) decide() (decision, error) {
	if file := f.options.EnvFile; file != "" {
		text, ok, err := tree("").read(file, fileLimit)
		if f.fromFile = ok; ok {
			return parseEnvFile(text, file)
		}
		if err != nil {
			return decision{}, err
		}
	}
	return decide(readLimits(""), f.options), nil
}

// turn sets k to what was chosen, unless that is somebody else's business.
func (f *follower) turn(k *knob, c choice) {
	if c.err != nil {
		f.report(k.name, c.err.Error())
		return
	}
	before := k.get()
	if k.alone == "" {
		k.alone = f.owner(k, c.value, before)
	}
	k.taken = k.alone == ""
	if f.report(k.name, k.alone); !k.taken || c.value == before || (c.value == 0 && !k.ours) {
		return
	}
	free := k.apply(c.value)
	now := k.get()
	k.held, k.ours = now, c.value != 0
	if free {
		k.held = 0
	}
	if now != before && f.options.Report != nil {
		f.options.Report(fmt.Sprintf("cgagent: %s went from %d to %d: %s", k.name, before, now, c.reason))
	}
}

// owner tells who else has set k, which is now; empty if nobody has.
func (f *follower) owner(k *knob, chosen, now int64) string {
	// What the env file says as well has come from there.
	if k.given != 0 && !k.taken && !f.options.Override && !(f.fromFile && chosen == k.given) {
		return "left alone: the environment has it"
	}
	if k.held != 0 && now != k.held {
		return fmt.Sprintf("left alone: other code of the program has set it to %d", now)
	}
	return ""
}

// report tells of a problem once; an empty line takes it back.
func (f *follower) report(about, line string) {
	if line != "" && line != f.told[about] && f.options.Report != nil {
		f.options.Report(fmt.Sprintf("cgagent: %s: %s", about, line))
	}
	f.told[about] = line
}
