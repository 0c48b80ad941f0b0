package cgagent

import (
	"math"
	"strings"
)

// A getter returns the text of a file of one cgroup; ok is false where the cgroup has no such file.
type getter func(name string) (text string, ok bool, err error)

// A bound is a limit of one cgroup; infinite is no limit.
type bound struct {
	value float64 // CPUs
	bytes uint64
	file  string
}

const noBytes = math.MaxUint64

var infinite = math.Inf(1)

// A dialect reads one version's files. A quota is nil, and bounds are none, where the cgroup has no such file.
type dialect struct {
	quota  func(getter) (*bound, error)
	memory func(getter) ([]bound, error)
	cpuset func(getter) (cpuSet, error)
}

// Documentation/admin-guide/cgroup-v2.rst
var v2 = dialect{
	quota: func(get getter) (*bound, error) {
		text, ok, err := get("cpu.max")
		if err != nil || !ok {
			return nil, err
		}
		line := oneLine(text)
		wrong := &malformedError{"cpu.max", line, "QUOTA PERIOD, both above 0"}
		fields := strings.Split(line, " ")
		period := uint64(100_000)
		if len(fields) > 2 {
			return nil, wrong
		}
		if len(fields) == 2 {
			if period, err = unsigned(fields[1], "cpu.max", math.MaxInt64); err != nil {
				return nil, err
			}
		}
		if fields[0] == "max" {
			if period == 0 {
				return nil, wrong
			}
			return &bound{value: infinite, file: "cpu.max"}, nil
		}
		quota, err := unsigned(fields[0], "cpu.max", math.MaxInt64)
		if err != nil {
			return nil, err
		}
		if quota == 0 || period == 0 {
			return nil, wrong
		}
		return &bound{value: float64(quota) / float64(period), file: "cpu.max"}, nil
	},
	memory: func(get getter) ([]bound, error) {
		var bounds []bound
		for _, name := range []string{"memory.max", "memory.high"} {
			text, ok, err := get(name)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			size := uint64(noBytes)
			if line := oneLine(text); line != "max" {
				if size, err = bytesOf(line, name); err != nil {
					return nil, err
				}
			}
			bounds = append(bounds, bound{bytes: size, file: name})
		}
		return bounds, nil
	},
	cpuset: func(get getter) (cpuSet, error) {
		return firstSet(get, false, "cpuset.cpus.effective")
	},
}

// Documentation/admin-guide/cgroup-v1/, Documentation/scheduler/sched-bwc.rst
var v1 = dialect{
	quota: func(get getter) (*bound, error) {
		const name, periodName = "cpu.cfs_quota_us", "cpu.cfs_period_us"
		text, ok, err := get(name)
		if err != nil || !ok {
			return nil, err
		}
		line := oneLine(text)
		if line == "-1" {
			return &bound{value: infinite, file: name}, nil
		}
		quota, err := unsigned(line, name, math.MaxInt64)
		if err != nil {
			return nil, err
		}
		periodText, ok, err := get(periodName)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &malformedError{periodName, "", "a period beside the quota"}
		}
		period, err := unsigned(oneLine(periodText), periodName, math.MaxInt64)
		if err != nil {
			return nil, err
		}
		if quota == 0 || period == 0 {
			return nil, &malformedError{name, line + " " + oneLine(periodText), "a quota and a period above 0, or -1"}
		}
		return &bound{value: float64(quota) / float64(period), file: name}, nil
	},
	memory: func(get getter) ([]bound, error) {
		var bounds []bound
		text, ok, err := get("memory.limit_in_bytes")
		if err != nil {
			return nil, err
		}
		if ok {
			size, err := bytesOf(oneLine(text), "memory.limit_in_bytes")
			if err != nil {
				return nil, err
			}
			bounds = append(bounds, bound{bytes: size, file: "memory.limit_in_bytes"})
		}
		// hierarchical_memory_limit knows of ancestors that no mount shows.
		text, _, err = get("memory.stat")
		if err != nil {
			return nil, err
		}
		if line, ok := flatKeyed(text)["hierarchical_memory_limit"]; ok {
			size, err := bytesOf(line, "memory.stat")
			if err != nil {
				return nil, err
			}
			bounds = append(bounds, bound{bytes: size, file: "memory.stat"})
		}
		return bounds, nil
	},
	cpuset: func(get getter) (cpuSet, error) {
		// Kernels before 3.17 lack the first.
		return firstSet(get, true, "cpuset.effective_cpus", "cpuset.cpus")
	},
}

func bytesOf(line, file string) (uint64, error) {
	size, err := unsigned(line, file, math.MaxUint64)
	if size >= unlimited {
		size = noBytes
	}
	return size, err
}

func firstSet(get getter, skipEmpty bool, names ...string) (cpuSet, error) {
	for _, name := range names {
		text, ok, err := get(name)
		if err != nil {
			return nil, err
		}
		if ok && !(skipEmpty && oneLine(text) == "") {
			return cpuList(text, name)
		}
	}
	return nil, nil
}
