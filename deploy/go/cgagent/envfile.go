package cgagent

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

const (
	gomaxprocs = "GOMAXPROCS"
	gomemlimit = "GOMEMLIMIT"
)

// parseEnvFile finds what an env file that cgagent keeps (dotenv, docker or shell) says; lines of others are skipped.
// A variable that has no line is left to Go.
func parseEnvFile(text, file string) (decision, error) {
	found := decision{choice{reason: "not in " + file}, choice{reason: "not in " + file}}
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimLeft(strings.TrimPrefix(strings.TrimSpace(line), "export "), " ")
		name, value, _ := strings.Cut(line, "=")
		if last := len(value) - 1; last > 0 && value[0] == value[last] && (value[0] == '\'' || value[0] == '"') {
			value = value[1:last]
		}
		if value == "" {
			continue
		}
		switch name {
		case gomaxprocs:
			number, err := unsigned(value, file, math.MaxInt32)
			if err != nil {
				return found, err
			}
			found.procs = choice{value: int64(number), reason: file}
		case gomemlimit:
			size, ok := parseMemoryLimit(value)
			if !ok {
				return found, &malformedError{file, value, "a GOMEMLIMIT"}
			}
			found.memory = choice{value: size, reason: file}
		}
	}
	return found, nil
}

// parseMemoryLimit understands what the Go runtime does: bytes, with B, KiB, MiB, GiB or TiB, or off.
func parseMemoryLimit(text string) (int64, bool) {
	if text == "off" {
		return math.MaxInt64, true
	}
	digits := strings.TrimRight(text, "BKMGTi")
	units := map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	unit, known := units[text[len(digits):]]
	number, err := strconv.ParseUint(digits, 10, 63)
	if !known || err != nil || int64(number) > math.MaxInt64/unit {
		return 0, false
	}
	return int64(number) * unit, true
}

// parseSize understands sizes as cgagent's options do: 268435456, 256Mi, 256m, 1.5Gi (powers of 1024), 1G (of 1000).
func parseSize(text string) (int64, error) {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	wrong := fmt.Errorf("%q is not a size: write bytes or a suffix, as in 256Mi", text)
	digits := strings.TrimRight(text, letters)
	suffix := strings.TrimSuffix(strings.TrimSuffix(text[len(digits):], "B"), "b")
	base, power := int64(1000), 0
	if unit := strings.TrimSuffix(suffix, "i"); unit != "" {
		if power = strings.Index("kmgtpe", strings.ToLower(unit)) + 1; power == 0 || len(unit) > 1 {
			return 0, wrong
		}
		if suffix != strings.ToUpper(suffix) {
			base = 1024
		}
	} else if suffix != "" {
		return 0, wrong
	}
	size, ok := new(big.Rat).SetString(digits)
	if !ok || !isDigits(strings.Replace(digits, ".", "", 1)) || len(digits) > 20 {
		return 0, wrong
	}
	for ; power > 0; power-- {
		size.Mul(size, new(big.Rat).SetInt64(base))
	}
	whole := new(big.Int).Quo(size.Num(), size.Denom())
	if !whole.IsInt64() {
		return 0, wrong
	}
	return whole.Int64(), nil
}
