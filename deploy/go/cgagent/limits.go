package cgagent

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A problem is something that could not be read, understood or trusted; where it blocks, nothing is decided.
type problem struct {
	resource string // cpu, memory, or "" for both
	blocks   bool
	err      error
}

// Limits are what binds this process.
type limits struct {
	mode        string // v1, v2, hybrid or none; "" where that is not known
	hierarchies []*hierarchy
	problems    []problem

	cores     float64 // infinite: no quota
	cpuSource string
	cpuCounts bool   // false for a cgroup that is neither ours nor above it
	allowed   cpuSet // the CPUs that cpuset and affinity leave; nil: not known
	machine   cpuSet // those of the machine

	bytes        uint64 // noBytes: no limit
	memorySource string
	memoryCounts bool
}

// blocked returns why nothing may be decided for a resource; nil if it may.
func (l *limits) blocked(resource string) error {
	for _, one := range l.problems {
		if one.blocks && (one.resource == "" || one.resource == resource) {
			return one.err
		}
	}
	return nil
}

// note keeps err, if it is one, as a reason not to decide.
func (l *limits) note(resource string, err error) {
	if err != nil {
		l.problems = append(l.problems, problem{resource, true, err})
	}
}

const attempts = 10

// readLimits reads what binds the process that runs. Where it is moved to another cgroup meanwhile, all is read again.
func readLimits(t tree) *limits {
	membership, there, err := t.read("/proc/self/cgroup", fileLimit)
	for i := 0; i < attempts; i++ {
		found := t.standing(membership, there, err)
		if err != nil {
			return found
		}
		t.readCPU(found)
		t.readCPUs(found)
		t.readMemory(found)
		before := membership
		if membership, there, err = t.read("/proc/self/cgroup", fileLimit); membership == before && err == nil {
			return found
		}
	}
	moved := newLimits()
	moved.note("", errors.New("this process is moved from cgroup to cgroup faster than they can be read"))
	return moved
}

func newLimits() *limits {
	return &limits{cores: infinite, cpuCounts: true, bytes: noBytes, memoryCounts: true}
}

// standing joins the text of /proc/self/cgroup with the mounts that we see.
func (t tree) standing(text string, there bool, refusal error) *limits {
	l := newLimits()
	mountinfo, ok, err := t.read("/proc/self/mountinfo", mountinfoLimit)
	if err == nil && !ok {
		err = errors.New("cannot read /proc/self/mountinfo: no such file")
	}
	if err != nil {
		l.note("", err)
		return l
	}
	mounts, err := parseMountinfo(mountinfo)
	if err != nil {
		l.note("", err)
		return l
	}
	memberships, err := parseCgroup(text)
	if err != nil {
		l.note("", err)
		return l
	}
	l.mode = modeOf(mounts)
	for _, one := range memberships {
		l.hierarchies = append(l.hierarchies, locate(t, one, mounts))
	}
	if refusal == nil && len(memberships) == 0 && l.mode != "none" {
		refusal = errors.New("/proc/self/cgroup names no cgroup")
		if !there {
			refusal = errors.New("there is no /proc/self/cgroup")
		}
	}
	l.note("", refusal)
	for _, controller := range []string{"cpu", "memory"} {
		t.judge(l, controller)
	}
	return l
}

func modeOf(mounts []mount) string {
	modes := [4]string{"none", "v1", "v2", "hybrid"}
	seen := 0
	for _, one := range mounts {
		seen |= one.version
	}
	return modes[seen]
}

// judge notes where what is seen of a controller is not what binds the process.
func (t tree) judge(l *limits, controller string) {
	one := holder(controller, l.hierarchies)
	switch {
	case one == nil || one.standing == inside:
	case one.standing != invisible:
		err := fmt.Errorf("its cgroup %s (%s) is not, or not wholly, in view", one.path, controller)
		l.problems = append(l.problems, problem{controller, false, err})
	case one.version == 1 || t.enabled(controller):
		l.note(controller, fmt.Errorf("its cgroup %s (%s) is in a hierarchy that no mount here shows", one.path, controller))
	}
}

// enabled tells whether the kernel has the controller at all (/proc/cgroups, column 4).
func (t tree) enabled(controller string) bool {
	text, ok, err := t.read("/proc/cgroups", fileLimit)
	if err != nil || !ok {
		return true
	}
	for _, line := range strings.Split(text, "\n") {
		row := strings.Fields(line)
		if len(row) > 0 && row[0] == controller && row[len(row)-1] == "1" {
			return true
		}
	}
	return false
}

func (l *limits) seen(controller string) *hierarchy {
	one := holder(controller, l.hierarchies)
	if one == nil || one.standing == invisible {
		return nil
	}
	return one
}

func (t tree) readCPU(l *limits) {
	one := l.seen("cpu")
	if one == nil {
		return
	}
	l.cpuCounts = one.standing != stranger
	cores, source := infinite, ""
	for _, level := range one.levels {
		t.eachView(l, "cpu", level, func(get getter, directory string) error {
			quota, err := one.dialect().quota(get)
			if err == nil && quota != nil && quota.value < cores {
				cores, source = quota.value, directory+"/"+quota.file
			}
			return err
		})
	}
	if l.blocked("cpu") == nil {
		l.cores, l.cpuSource = cores, source
	}
}

func (t tree) readMemory(l *limits) {
	total, err := t.memoryTotal()
	l.note("memory", err)
	one := l.seen("memory")
	if one == nil {
		return
	}
	l.memoryCounts = one.standing != stranger
	size, source := uint64(noBytes), ""
	for _, level := range one.levels {
		t.eachView(l, "memory", level, func(get getter, directory string) error {
			bounds, err := one.dialect().memory(get)
			for _, bound := range bounds {
				// A limit as large as the machine never binds.
				if bound.bytes < size && bound.bytes < total {
					size, source = bound.bytes, directory+"/"+bound.file
				}
			}
			return err
		})
	}
	if l.blocked("memory") == nil {
		l.bytes, l.memorySource = size, source
	}
}

// eachView has every directory that shows a level read. One that may not be read matters only if no other shows it.
func (t tree) eachView(l *limits, resource string, one level, read func(getter, string) error) {
	var refused []error
	for _, directory := range one.directories {
		err := read(func(name string) (string, bool, error) {
			text, ok, err := t.read(directory+"/"+name, fileLimit)
			if errors.Is(err, errVanished) {
				return "", false, nil // the process has moved, and all is read again
			}
			return text, ok, err
		}, directory)
		var malformed *malformedError
		if errors.As(err, &malformed) {
			l.note(resource, fmt.Errorf("%s/%w", directory, err))
		} else if err != nil {
			refused = append(refused, err)
		}
	}
	if len(refused) == len(one.directories) {
		l.note(resource, refused[0])
	}
}

// readCPUs finds the CPUs that the process may run on: its affinity and its cpuset, as far as they are online.
func (t tree) readCPUs(l *limits) {
	online, err := t.online()
	l.note("cpu", err)
	affinity, err := t.affinity()
	l.note("cpu", err)
	var effective cpuSet
	if one := l.seen("cpuset"); one != nil && one.standing != stranger {
		for _, level := range one.levels {
			// The effective set of the innermost level includes what its ancestors leave it.
			t.eachView(l, "cpu", level, func(get getter, _ string) error {
				cpus, err := one.dialect().cpuset(get)
				if effective == nil && len(cpus) > 0 {
					effective = cpus
				}
				return err
			})
			if effective != nil {
				break
			}
		}
	}
	if l.machine = online; len(online) == 0 {
		l.machine = affinity
	}
	if l.blocked("cpu") == nil {
		l.allowed = intersection(affinity, effective, online)
	}
}

// intersection is that of the sets that hold anything; where they have nothing in common, the first is the truth.
func intersection(sets ...cpuSet) cpuSet {
	var first, common cpuSet
	for _, set := range sets {
		if len(set) == 0 {
			continue
		}
		if first == nil {
			first, common = set, set
			continue
		}
		both := cpuSet{}
		for cpu := range set {
			if common[cpu] {
				both[cpu] = true
			}
		}
		common = both
	}
	if len(common) == 0 {
		return first
	}
	return common
}

func (t tree) affinity() (cpuSet, error) {
	const file = "/proc/self/status"
	text, _, err := t.read(file, fileLimit)
	for _, line := range strings.Split(text, "\n") {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			return cpuList(list, file)
		}
	}
	return nil, err
}

func (t tree) online() (cpuSet, error) {
	const file = "/sys/devices/system/cpu/online"
	text, ok, err := t.read(file, fileLimit)
	if err != nil || ok {
		if err != nil {
			return nil, err
		}
		return cpuList(text, file)
	}
	// A sandbox may show none: then the cpuN lines of /proc/stat.
	text, _, err = t.read("/proc/stat", fileLimit)
	cpus := cpuSet{}
	for _, line := range strings.Split(text, "\n") {
		name, _, _ := strings.Cut(line, " ")
		if number, ok := strings.CutPrefix(name, "cpu"); ok && isDigits(number) && len(number) < 6 {
			cpu, _ := strconv.ParseUint(number, 10, 64)
			cpus[cpu] = true
		}
	}
	return cpus, err
}

// memoryTotal is MemTotal of /proc/meminfo in bytes; where it is not there, more than any limit.
func (t tree) memoryTotal() (uint64, error) {
	const file = "/proc/meminfo"
	text, _, err := t.read(file, fileLimit)
	for _, line := range strings.Split(text, "\n") {
		if number, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			size, err := unsigned(strings.TrimSuffix(strings.Trim(number, " "), " kB"), file, math.MaxUint64>>10)
			if err != nil {
				return noBytes, err
			}
			return size << 10, nil
		}
	}
	return noBytes, err
}
