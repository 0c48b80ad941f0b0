package cgagent

import (
	"strconv"
	"strings"
)

// A mount of a cgroup hierarchy, as a line of /proc/PID/mountinfo tells of it (proc(5)).
type mount struct {
	version     int
	root, point string
	options     []string
	line        *mountLine
}

// The fields of any mount that say which paths it covers.
type mountLine struct {
	index             int
	id, parent, point string
}

// parseMountinfo returns the cgroup mounts that no other mount covers, in the file's order.
func parseMountinfo(text string) ([]mount, error) {
	const file = "/proc/self/mountinfo"
	var found []mount
	var lines []*mountLine
	for index, line := range wholeLines(text) {
		head, tail, dash := strings.Cut(line, " - ")
		fields := strings.SplitN(head, " ", 6)
		kind, rest, _ := strings.Cut(tail, " ")
		if !dash || len(fields) < 6 || !strings.Contains(rest, " ") || !isDigits(fields[0]) || !isDigits(fields[1]) {
			return nil, &malformedError{file, line, "ten fields and a dash"}
		}
		lines = append(lines, &mountLine{index, fields[0], fields[1], fields[4]})
		if kind != "cgroup" && kind != "cgroup2" {
			continue
		}
		if !strings.HasPrefix(fields[3], "/") || !strings.HasPrefix(fields[4], "/") {
			return nil, &malformedError{file, line, "a root and a mount point that start with /"}
		}
		root, ok := unescape(fields[3])
		point, same := unescape(fields[4])
		if !ok || !same {
			return nil, &malformedError{file, line, "three octal digits after a backslash"}
		}
		version := 1
		if kind == "cgroup2" {
			version = 2
		}
		options := strings.Split(strings.Split(rest, " ")[1], ",")
		found = append(found, mount{version, root, point, options, lines[index]})
	}
	return uncovered(found, lines)
}

// unescape undoes the octal escapes of mountinfo (\040).
func unescape(text string) (string, bool) {
	pieces := strings.Split(text, `\`)
	out := pieces[0]
	for _, piece := range pieces[1:] {
		if len(piece) < 3 {
			return "", false
		}
		char, err := strconv.ParseUint(piece[:3], 8, 8)
		if err != nil {
			return "", false
		}
		out += string([]byte{byte(char)}) + piece[3:]
	}
	return out, true
}

// uncovered returns those of found that a path lookup still reaches. A later mount on the same directory, or on one
// above it, hides what was mounted there before, unless that was itself made inside it.
func uncovered(found []mount, lines []*mountLine) ([]mount, error) {
	if len(found) == 0 {
		return nil, nil
	}
	wanted := map[string]bool{}
	for _, one := range found {
		for _, prefix := range prefixes(one.point) {
			wanted[prefix] = true
		}
	}
	at, byID := map[string][]*mountLine{}, map[string]*mountLine{}
	for _, line := range lines {
		if strings.Contains(line.point, `\`) {
			point, ok := unescape(line.point)
			if !ok {
				return nil, &malformedError{"/proc/self/mountinfo", line.point, "three octal digits after a backslash"}
			}
			line.point = point
		} else if !wanted[line.point] {
			continue
		}
		at[line.point] = append(at[line.point], line)
		byID[line.id] = line
	}
	// A path leads to one mount, nearly always the last.
	reached := map[string]bool{}
	var kept []mount
	for i := len(found) - 1; i >= 0; i-- {
		if one := found[i]; !reached[one.point] && !isCovered(one.line, at, byID) {
			reached[one.point] = true
			kept = append([]mount{one}, kept...)
		}
	}
	return kept, nil
}

func isCovered(line *mountLine, at map[string][]*mountLine, byID map[string]*mountLine) bool {
	// The mounts that it stands in, itself among them.
	ancestors := map[string]bool{line.id: true}
	for up := byID[line.parent]; up != nil && !ancestors[up.id]; up = byID[up.parent] {
		ancestors[up.id] = true
	}
	for _, prefix := range prefixes(line.point) {
		for _, other := range at[prefix] {
			below := byID[other.parent]
			stacked := below != nil && ancestors[below.id] && below.point == other.point
			if (other.index > line.index || stacked) && !ancestors[other.id] {
				return true
			}
		}
	}
	return false
}

// prefixes are path and every directory above it.
func prefixes(path string) []string {
	found := []string{"/"}
	for path != "" && path != "/" {
		found = append(found, path)
		path = path[:strings.LastIndexByte(path, '/')]
	}
	return found
}
