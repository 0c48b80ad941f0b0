package cgagent

import (
	"fmt"
	"math"
	"math/big"
)

// A choice is what was decided for one variable. Nothing is known where err is set.
type choice struct {
	value  int64 // 0: leave it to Go
	reason string
	err    error
}

type decision struct{ procs, memory choice }

func decide(l *limits, o *Options) decision {
	return decision{decideProcs(l, o), decideMemory(l, o)}
}

func decideProcs(l *limits, o *Options) choice {
	if err := l.blocked("cpu"); err != nil {
		return choice{err: err}
	}
	usable := len(l.allowed)
	value, reason := 0, ""
	switch {
	case l.cpuCounts && l.cores != infinite:
		value = int(math.Min(math.Ceil(l.cores), math.MaxInt32))
		reason = fmt.Sprintf("ceil of %.6g CPUs (%s)", l.cores, l.cpuSource)
	case usable > 0 && usable < len(l.machine):
		value, reason = usable, fmt.Sprintf("cpuset or affinity leaves %d CPUs", usable)
	case o.MaxProcs > 0 && usable > o.MaxProcs:
		value, reason = usable, fmt.Sprintf("no CPU limit, %d CPUs", usable)
	default:
		return choice{reason: "no CPU limit"}
	}
	value = max(value, 1, o.MinProcs)
	if o.MaxProcs > 0 {
		value = min(value, o.MaxProcs)
	}
	if usable > 0 {
		value = min(value, usable)
	}
	return choice{value: int64(value), reason: reason}
}

func decideMemory(l *limits, o *Options) choice {
	if err := l.blocked("memory"); err != nil {
		return choice{err: err}
	}
	if !l.memoryCounts || l.bytes == noBytes {
		return choice{reason: "no memory limit"}
	}
	value := share(int64(l.bytes)-o.MemoryReserve, o.MemoryRatio)
	reason := fmt.Sprintf("%v of %d bytes less %d (%s)", o.MemoryRatio, l.bytes, o.MemoryReserve, l.memorySource)
	if value <= 0 || value < o.MemoryMin {
		return choice{err: fmt.Errorf("%s leaves %d bytes: too little", reason, max(0, value))}
	}
	return choice{value: value, reason: reason}
}

// share is ratio of amount, rounded down: 0.9 is nine tenths exactly, as it is written.
func share(amount int64, ratio float64) int64 {
	exact, _ := new(big.Rat).SetString(fmt.Sprint(ratio))
	exact.Mul(exact, new(big.Rat).SetInt64(amount))
	quotient, _ := new(big.Int).DivMod(exact.Num(), exact.Denom(), new(big.Int))
	return quotient.Int64()
}
