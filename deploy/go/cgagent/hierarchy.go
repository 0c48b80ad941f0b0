package cgagent

import (
	"math"
	"sort"
	"strings"
)

// How the process's cgroup stands to the mounts that show its hierarchy.
const (
	inside      = iota // a mount shows its directory
	noDirectory        // a mount's root is above it, but the directory is not there
	ancestor           // a mount's root is above it, at an unknown distance: true bounds, not all of them
	stranger           // mounts show some other part of the hierarchy
	invisible          // no mount shows the hierarchy
)

// A membership is a line of /proc/self/cgroup: ID:CONTROLLERS:PATH (cgroups(7)); 0::PATH is cgroup v2.
type membership struct {
	version     int
	controllers []string
	path        string
}

// A hierarchy is where the process stands in one: its cgroup and every visible ancestor, innermost first.
type hierarchy struct {
	membership
	standing int
	levels   []level
}

// A level is one cgroup: its place in the hierarchy, and the directories that show it.
type level struct {
	at          place
	directories []string
}

func (h *hierarchy) dialect() dialect {
	if h.version == 2 {
		return v2
	}
	return v1
}

func parseCgroup(text string) ([]membership, error) {
	const file = "/proc/self/cgroup"
	var found []membership
	for _, line := range wholeLines(text) {
		fields := strings.SplitN(line, ":", 3) // paths may hold colons
		// The kernel refuses to print a path of PATH_MAX bytes.
		if len(fields) < 3 || !strings.HasPrefix(fields[2], "/") || len(fields[2]) >= 4096 {
			return nil, &malformedError{file, line, "ID:CONTROLLERS:/PATH"}
		}
		number, err := unsigned(fields[0], file, math.MaxUint64)
		if err != nil {
			return nil, err
		}
		one := membership{2, nil, fields[2]}
		if fields[1] != "" {
			one.version, one.controllers = 1, strings.Split(fields[1], ",")
		} else if number != 0 {
			return nil, &malformedError{file, line, "the controllers of a v1 hierarchy"}
		}
		found = append(found, one)
	}
	return found, nil
}

// holder returns the hierarchy of a controller: v1's if a line names it, else v2's, as the Go runtime decides.
func holder(controller string, all []*hierarchy) *hierarchy {
	var unified *hierarchy
	for _, one := range all {
		if contains(one.controllers, controller) {
			return one
		}
		if one.version == 2 {
			unified = one
		}
	}
	return unified
}

func contains(names []string, name string) bool {
	for _, one := range names {
		if one == name {
			return true
		}
	}
	return false
}

// A place is a path relative to the root of our cgroup namespace: steps up, then names down.
type place struct {
	ups   int
	names string // "/a/b"
}

func normal(path string) place {
	ups, names := 0, []string{}
	for _, part := range strings.Split(path, "/") {
		switch {
		case part == ".." && len(names) > 0:
			names = names[:len(names)-1]
		case part == "..":
			ups++
		case part != "" && part != ".":
			names = append(names, part)
		}
	}
	if len(names) == 0 {
		return place{ups, ""}
	}
	return place{ups, "/" + strings.Join(names, "/")}
}

func (m mount) shows(one membership) bool {
	if m.version != one.version {
		return false
	}
	for _, name := range one.controllers {
		if contains(m.options, name) {
			return true
		}
	}
	return one.version == 2
}

// locate finds the directories of the process's cgroup and of every visible ancestor. All mounts count whose root
// holds the path and whose directory exists.
func locate(t tree, one membership, mounts []mount) *hierarchy {
	path := normal(one.path)
	var existing, within, above, strangers []level
	for _, m := range mounts {
		if !m.shows(one) {
			continue
		}
		root, point := normal(m.root), strings.TrimRight(m.point, "/")
		rest, below := strings.CutPrefix(path.names, root.names)
		switch {
		case root.ups == path.ups && below && (rest == "" || rest[0] == '/'):
			chain := chainOf(root, point, rest)
			within = append(within, chain...)
			if t.isDirectory(chain[0].directories[0]) {
				existing = append(existing, chain...)
			}
		case root.ups > path.ups && root.names == "":
			above = append(above, level{root, []string{m.point}})
		default:
			strangers = append(strangers, level{root, []string{m.point}})
		}
	}
	found := &hierarchy{one, invisible, nil}
	switch {
	case existing != nil:
		found.standing, within = inside, existing
	case within != nil:
		found.standing = noDirectory
	case above != nil:
		found.standing = ancestor
	case strangers != nil:
		found.standing, above = stranger, strangers
	}
	found.levels = merged(append(within, above...))
	return found
}

func chainOf(root place, point, rest string) []level {
	var chain []level
	for {
		directory := point + rest
		if directory == "" {
			directory = "/"
		}
		chain = append(chain, level{place{root.ups, root.names + rest}, []string{directory}})
		if rest == "" {
			return chain
		}
		rest = rest[:strings.LastIndexByte(rest, '/')]
	}
}

// merged returns one level for each cgroup, innermost first.
func merged(levels []level) []level {
	var found []level
	known := map[place]int{}
	for _, one := range levels {
		i, ok := known[one.at]
		if !ok {
			known[one.at] = len(found)
			found = append(found, one)
		} else if !contains(found[i].directories, one.directories[0]) {
			found[i].directories = append(found[i].directories, one.directories[0])
		}
	}
	sort.SliceStable(found, func(i, j int) bool {
		a, b := found[i].at, found[j].at
		if a.ups != b.ups {
			return a.ups < b.ups
		}
		return strings.Count(a.names, "/") > strings.Count(b.names, "/")
	})
	return found
}
