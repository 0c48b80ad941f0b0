package cgagent

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A malformedError is about text that the kernel would not write. It is not "no limit".
type malformedError struct{ file, text, expected string }

func (e *malformedError) Error() string {
	return fmt.Sprintf("%s is malformed: %q: expected %s", e.file, shorten(e.text), e.expected)
}

func shorten(text string) string {
	if len(text) > 80 {
		return text[:80] + "..."
	}
	return text
}

func oneLine(text string) string { return strings.TrimSuffix(text, "\n") }

// wholeLines are the lines of a file whose every line the kernel ends with a newline; an empty line stays one.
func wholeLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(oneLine(text), "\n")
}

func isDigits(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

func unsigned(text, file string, most uint64) (uint64, error) {
	if isDigits(text) && len(text) <= 20 {
		if number, err := strconv.ParseUint(text, 10, 64); err == nil && number <= most {
			return number, nil
		}
	}
	return 0, &malformedError{file, text, "a whole number"}
}

const maxCPUs = 1 << 16 // CONFIG_NR_CPUS is 8192 at most

type cpuSet map[uint64]bool

// cpuList parses the kernel's list format (cpuset(7)), such as 0-3,8.
func cpuList(text, file string) (cpuSet, error) {
	cpus := cpuSet{}
	line := strings.Trim(oneLine(text), " \t")
	if line == "" {
		return cpus, nil
	}
	for _, part := range strings.Split(line, ",") {
		first, last, dash := strings.Cut(part, "-")
		low, err := unsigned(first, file, maxCPUs)
		high := low
		if err == nil && dash {
			high, err = unsigned(last, file, maxCPUs)
		}
		if err != nil || high < low {
			return nil, &malformedError{file, part, "a CPU list such as 0-3,8"}
		}
		for cpu := low; cpu <= high; cpu++ {
			cpus[cpu] = true
		}
	}
	return cpus, nil
}

// flatKeyed is a file of lines KEY VALUE. Lines of another shape are skipped: new kernels add keys.
func flatKeyed(text string) map[string]string {
	fields := map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		if key, value, blank := strings.Cut(line, " "); blank {
			fields[key] = value
		}
	}
	return fields
}

// v1 says "no limit" by LONG_MAX rounded down to a page, of 64 KiB at the largest.
const unlimited = math.MaxInt64 &^ 0xffff
