package shm

import (
	"fmt"
	"strconv"
	"sync"
	"time"
)

// claimable is how long a counted kill may wait for the report of the death that it was: two processes that the kernel
// ends at once are reported one after the other.
const claimable = time.Second

// OOMKills tells deaths by the kernel's out-of-memory killer from those by anybody else's SIGKILL. The wait status is the
// same; but each memory cgroup counts its processes that were killed so, before the signal is sent. A count that rose
// while a process of ours died by SIGKILL is taken for its death.
type OOMKills struct {
	mu      sync.Mutex // guards all below
	machine machine
	counts  map[string]*killCount // by directory of the cgroup
}

// killCount is what was seen of one cgroup's count.
type killCount struct {
	claimed uint64 // kills that are accounted for
	seen    uint64 // the count when it was last looked at
	at      time.Time
}

// MemoryGroups are the memory cgroups around one process, as they were when it was asked for.
type MemoryGroups struct{ groups []cgroup }

// NewOOMKills reads the machine whose file system starts at root, "/" for this one.
func NewOOMKills(root string) *OOMKills {
	return &OOMKills{machine: machine{root: root}, counts: map[string]*killCount{}}
}

// Watch notes the cgroups of a process, and the kills in them so far. It has to be called while the process lives: in v1 a
// zombie is in no group any more.
func (k *OOMKills) Watch(pid int) MemoryGroups {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := MemoryGroups{k.machine.cgroupsOf(strconv.Itoa(pid))}
	if own, ok := g.own(); ok {
		k.look(own, time.Now())
	}
	return g
}

// Claim tells whether a process of these groups, which has just died by SIGKILL, was ended for want of memory, and for
// want of which; nil: it was not. Each counted kill is claimed once. Not known: nothing counts here.
func (k *OOMKills) Claim(g MemoryGroups) (kill *OOMKill, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	own, ok := g.own()
	if !ok {
		return nil, false
	}
	c := k.look(own, time.Now())
	if c == nil || c.seen <= c.claimed {
		return nil, c != nil
	}
	c.claimed++
	return g.cause(own), true
}

// look reads a group's count. Kills that nobody has claimed in time were of other processes. nil: the group does not count.
func (k *OOMKills) look(own cgroup, now time.Time) *killCount {
	kills, ok := own.oomKills()
	if !ok {
		return nil
	}
	c := k.counts[own.dir]
	if c == nil {
		c = &killCount{claimed: kills}
		k.counts[own.dir] = c
	} else if now.Sub(c.at) > claimable {
		c.claimed = c.seen
	}
	if kills < c.claimed { // the group was removed and made anew
		c.claimed = 0
	}
	c.seen, c.at = kills, now
	return c
}

// own is the group that the process is in directly: the kernel counts a kill there, in v1 nowhere else. On a machine that
// uses both versions the process is in one of each, and one of them counts.
func (g MemoryGroups) own() (cgroup, bool) {
	for _, group := range g.groups {
		if _, counts := group.oomKills(); group.own && counts {
			return group, true
		}
	}
	return cgroup{}, false
}

// OOMKill is why the kernel ended a process for want of memory.
type OOMKill struct {
	Group string // "cgroup v2 /job": whose limit was reached; empty when no limit that shows was, then the machine's memory was
	File  string // the limit's name, "memory.max"
	Limit uint64 // in bytes
	Own   string // the group that counted the kill
}

// cause is the nearest limit that allocations have run into.
func (g MemoryGroups) cause(own cgroup) *OOMKill {
	kill := &OOMKill{Own: own.title()}
	for _, group := range g.groups {
		file := "memory.max"
		if group.version == "v1" {
			file = "memory.limit_in_bytes"
		}
		limit, limited := group.number(file)
		if limited && limit < unlimited && group.hits() > 0 {
			kill.Group, kill.File, kill.Limit = group.title(), file, limit
			return kill
		}
	}
	return kill
}

func (k *OOMKill) String() string {
	if k.Group == "" {
		return fmt.Sprintf("by the kernel because memory ran out (no limit that shows from here was reached, so it was the machine's, or that of a cgroup around %s)", k.Own)
	}
	return fmt.Sprintf("by the kernel because memory ran out: %s has reached its limit, %s = %d bytes (%d MiB)", k.Group, k.File, k.Limit, k.Limit>>20)
}

// unlimited is less than v1's way of saying so (2^63 less a page) and more than any machine has.
const unlimited = 1 << 60

func (g cgroup) title() string { return "cgroup " + g.version + " " + g.name }

// oomKills is how many processes of the group itself the kernel has ended for want of memory.
func (g cgroup) oomKills() (uint64, bool) {
	for _, file := range g.eventFiles() {
		if text := g.read(file); text != nil {
			return field(text, "oom_kill")
		}
	}
	return 0, false
}

// hits is how often an allocation ran into the group's own limit.
func (g cgroup) hits() uint64 {
	if g.version == "v1" {
		n, _ := g.number("memory.failcnt")
		return n
	}
	for _, file := range g.eventFiles() {
		if text := g.read(file); text != nil {
			n, _ := field(text, "oom")
			return n
		}
	}
	return 0
}

// eventFiles are where the group counts, the better first: memory.events of v2 has the groups below it in it as well.
func (g cgroup) eventFiles() []string {
	if g.version == "v1" {
		return []string{"memory.oom_control"}
	}
	return []string{"memory.events.local", "memory.events"}
}
