package shm

import (
	"bufio"
	"bytes"
	"math"
	"path"
	"strconv"
	"strings"
)

// cgroup is one memory cgroup that a process is in, directly or through a child.
type cgroup struct {
	version string // "v1", "v2"
	name    string // as /proc/self/cgroup would give it
	dir     string
	own     bool // directly
	machine *machine
}

// cgroups gives the groups around this process, innermost first, in as much as
// the mounted file systems show them.
func (m *machine) cgroups() []cgroup { return m.cgroupsOf("self") }

// cgroupsOf gives those around another process, by its name in /proc.
func (m *machine) cgroupsOf(process string) []cgroup {
	membership := m.read(m.path("/proc/" + process + "/cgroup"))
	if m.mounts == nil {
		m.mounts = m.cgroupMounts()
	}
	var all []cgroup
	lines := bufio.NewScanner(bytes.NewReader(membership))
	for lines.Scan() {
		// hierarchy-id:controllers:path; v2 has no controllers.
		part := strings.SplitN(lines.Text(), ":", 3)
		if len(part) != 3 {
			continue
		}
		switch {
		case part[0] == "0" && part[1] == "":
			all = append(all, m.ancestors("v2", part[2])...)
		case listed(part[1], "memory"):
			all = append(all, m.ancestors("v1", part[2])...)
		}
	}
	return all
}

// cgroupMounts gives the lines of mountinfo that are about cgroups. A machine
// with many containers has thousands of others.
func (m *machine) cgroupMounts() []byte {
	text := m.read(m.path("/proc/self/mountinfo"))
	var kept []byte
	for line := range bytes.Lines(text) {
		if bytes.Contains(line, []byte(" - cgroup")) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// ancestors walks from the group that is called name up to the root of its mount.
func (m *machine) ancestors(version, name string) []cgroup {
	point, below, ok := findMount(m.mounts, version, name)
	if !ok {
		return nil
	}
	var all []cgroup
	name = path.Clean("/" + name)
	for {
		all = append(all, cgroup{version: version, name: name, own: len(all) == 0, machine: m,
			dir: m.path(path.Join(point, below))})
		if below == "/" {
			return all
		}
		below, name = path.Dir(below), path.Dir(name)
	}
}

// findMount finds where the hierarchy is mounted and where in that mount the
// group is. In a container the mount may show a subtree only, or the group may lie
// outside of it; its root is then the nearest that can be seen.
func findMount(mounts []byte, version, name string) (point, below string, ok bool) {
	lines := bufio.NewScanner(bytes.NewReader(mounts))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, found := strings.Cut(lines.Text(), " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if !found || len(place) < 5 || len(kind) < 3 {
			continue
		}
		isV1 := kind[0] == "cgroup" && listed(kind[len(kind)-1], "memory")
		isV2 := kind[0] == "cgroup2"
		if version == "v1" && !isV1 || version == "v2" && !isV2 {
			continue
		}
		root := unescape(place[3])
		rest, inside := strings.CutPrefix(path.Clean("/"+name), strings.TrimSuffix(root, "/"))
		if inside && (rest == "" || rest[0] == '/') {
			return unescape(place[4]), path.Clean("/" + rest), true
		}
		if !ok {
			point, below, ok = unescape(place[4]), "/", true
		}
	}
	return point, below, ok
}

// lower makes least what this group leaves, if that is less. Page cache counts as
// used by a group, but the kernel drops it before it kills anyone. This runs for
// every large allocation, so what cannot matter is not read.
func (g cgroup) lower(least *headroom) {
	limitFile, usageFile := "memory.max", "memory.current"
	active, inactive := "active_file", "inactive_file"
	if g.version == "v1" {
		limitFile, usageFile = "memory.limit_in_bytes", "memory.usage_in_bytes"
		active, inactive = "total_active_file", "total_inactive_file"
	}
	limit, found := g.number(limitFile)
	if !found {
		limit = math.MaxUint64
	}
	var stat []byte
	if g.version == "v1" && g.own {
		// In a container this is all that shows of limits further out.
		stat = g.read("memory.stat")
		if outer, ok := field(stat, "hierarchical_memory_limit"); ok && outer < limit {
			limit, limitFile = outer, "hierarchical_memory_limit"
		}
	}
	usage, found := g.number(usageFile)
	if !found || limit-min(limit, usage) >= least.bytes || !g.countsUs() {
		return
	}
	if stat == nil {
		stat = g.read("memory.stat")
	}
	a, _ := field(stat, active)
	i, _ := field(stat, inactive)
	used := usage - min(usage, a+i)
	if left := limit - min(limit, used); left < least.bytes {
		*least = headroom{bytes: left, source: "cgroup " + g.version + " " + g.name + " " + limitFile}
	}
}

// countsUs tells whether the group's limit is about this process. In v1 a group could
// be told not to count its children.
func (g cgroup) countsUs() bool {
	if g.own || g.version != "v1" {
		return true
	}
	return strings.TrimSpace(string(g.read("memory.use_hierarchy"))) != "0"
}

func (g cgroup) read(file string) []byte { return g.machine.read(g.dir + "/" + file) }

// number reads a file of one number. "max" is none.
func (g cgroup) number(file string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(string(g.read(file))), 10, 64)
	return n, err == nil
}

// listed tells whether a comma-separated list has the word.
func listed(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// unescape undoes mountinfo's \040 for a space, and the like.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
			s = s[:i] + string([]byte{byte(n)}) + s[i+4:]
		}
	}
	return s
}
