//go:build linux

package shm

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// oomTrees are machines on which process 7 is in the group /job/worker; each says where its count is.
var oomTrees = map[string]struct {
	files map[string]string
	count string // file of the count
	text  string // its content before the number
	want  OOMKill
}{
	"v2, the limit is its own": {
		files: map[string]string{
			"/proc/7/cgroup":                            "0::/job/worker\n",
			"/proc/self/mountinfo":                      mountV2,
			"/sys/fs/cgroup/job/worker/memory.events":   "oom 9\noom_kill 99\n", // of the groups below as well
			"/sys/fs/cgroup/job/worker/memory.max":      "1048576\n",
			"/sys/fs/cgroup/job/memory.max":             "2097152\n",
			"/sys/fs/cgroup/job/memory.events.local":    "oom 3\noom_kill 0\n",
			"/sys/fs/cgroup/job/worker/cgroup.procs":    "7\n",
			"/sys/fs/cgroup/job/worker/memory.current":  "1048576\n",
			"/sys/fs/cgroup/job/worker/memory.swap.max": "0\n",
		},
		count: "/sys/fs/cgroup/job/worker/memory.events.local", text: "low 0\nhigh 0\nmax 12\noom 1\noom_kill ",
		want: OOMKill{"cgroup v2 /job/worker", "memory.max", 1 << 20, "cgroup v2 /job/worker"},
	},
	"v2, the limit is further out": {
		files: map[string]string{
			"/proc/7/cgroup":                         "0::/job/worker\n",
			"/proc/self/mountinfo":                   mountV2,
			"/sys/fs/cgroup/job/worker/memory.max":   "max\n",
			"/sys/fs/cgroup/job/memory.max":          "2097152\n",
			"/sys/fs/cgroup/job/memory.events.local": "oom 3\noom_kill 0\n",
		},
		count: "/sys/fs/cgroup/job/worker/memory.events.local", text: "oom 0\noom_kill ",
		want: OOMKill{"cgroup v2 /job", "memory.max", 2 << 20, "cgroup v2 /job/worker"},
	},
	"v2 before Linux 5.2": {
		files: map[string]string{
			"/proc/7/cgroup":                       "0::/job/worker\n",
			"/proc/self/mountinfo":                 mountV2,
			"/sys/fs/cgroup/job/worker/memory.max": "1048576\n",
		},
		count: "/sys/fs/cgroup/job/worker/memory.events", text: "oom 2\noom_kill ",
		want: OOMKill{"cgroup v2 /job/worker", "memory.max", 1 << 20, "cgroup v2 /job/worker"},
	},
	"v1": {
		files: map[string]string{
			"/proc/7/cgroup":       "9:cpu:/\n4:memory:/job/worker\n0::/\n",
			"/proc/self/mountinfo": mountHybrid,
			"/sys/fs/cgroup/memory/job/worker/memory.limit_in_bytes":   "1048576\n",
			"/sys/fs/cgroup/memory/job/worker/memory.failcnt":          "17\n",
			"/sys/fs/cgroup/memory/job/memory.limit_in_bytes":          unlimitedV1,
			"/sys/fs/cgroup/memory/job/memory.failcnt":                 "0\n",
			"/sys/fs/cgroup/unified/cgroup.procs":                      "7\n",
			"/sys/fs/cgroup/memory/job/worker/memory.usage_in_bytes":   "1048576\n",
			"/sys/fs/cgroup/memory/job/worker/memory.use_hierarchy":    "1\n",
			"/sys/fs/cgroup/memory/job/worker/memory.soft_limit_bytes": unlimitedV1,
		},
		count: "/sys/fs/cgroup/memory/job/worker/memory.oom_control", text: "oom_kill_disable 0\nunder_oom 0\noom_kill ",
		want: OOMKill{"cgroup v1 /job/worker", "memory.limit_in_bytes", 1 << 20, "cgroup v1 /job/worker"},
	},
	"v1, the machine itself": {
		files: map[string]string{
			"/proc/7/cgroup":       "4:memory:/job/worker\n",
			"/proc/self/mountinfo": mountV1,
			"/sys/fs/cgroup/memory/job/worker/memory.limit_in_bytes": unlimitedV1,
			"/sys/fs/cgroup/memory/job/worker/memory.failcnt":        "0\n",
		},
		count: "/sys/fs/cgroup/memory/job/worker/memory.oom_control", text: "oom_kill ",
		want: OOMKill{Own: "cgroup v1 /job/worker"},
	},
}

func TestKillsAreClaimedOnce(t *testing.T) {
	for name, c := range oomTrees {
		t.Run(name, func(t *testing.T) {
			root := tree(t, c.files)
			count := func(n string) { require.NoError(t, os.WriteFile(root+c.count, []byte(c.text+n+"\n"), 0o644)) }
			count("5")
			kills := NewOOMKills(root)
			worker := kills.Watch(7)
			require.Equal(t, c.want.Own, kills.Watch(7).ownTitle(t))

			kill, known := kills.Claim(worker)
			assert.Nil(t, kill, "what was counted before is somebody else's")
			assert.True(t, known)

			count("7") // two at once
			kills.Watch(7)
			for range 2 {
				kill, _ := kills.Claim(worker)
				require.NotNil(t, kill)
				assert.Equal(t, c.want, *kill)
			}
			kill, known = kills.Claim(worker)
			assert.Nil(t, kill)
			assert.True(t, known)
		})
	}
}

func (g MemoryGroups) ownTitle(t *testing.T) string {
	own, ok := g.own()
	require.True(t, ok)
	return own.title()
}

func TestAKillThatNobodyClaimedIsForgotten(t *testing.T) {
	c := oomTrees["v1"]
	root := tree(t, c.files)
	count := func(n string) { require.NoError(t, os.WriteFile(root+c.count, []byte(c.text+n+"\n"), 0o644)) }
	count("0")
	kills := NewOOMKills(root)
	worker := kills.Watch(7)
	own, _ := worker.own()
	count("1")
	seen := kills.look(own, time.Now())
	require.Equal(t, killCount{claimed: 0, seen: 1, at: seen.at}, *seen)
	later := seen.at.Add(claimable + 1)
	require.Equal(t, killCount{claimed: 1, seen: 1, at: later}, *kills.look(own, later), "it was a process of others")
	count("2")
	require.Equal(t, uint64(1), kills.look(own, later.Add(time.Hour)).claimed, "one that comes later is claimed")
	count("0")
	require.Equal(t, killCount{claimed: 0, seen: 0, at: later}, *kills.look(own, later), "the group was made anew")
}

func TestWhereNothingCountsNothingIsKnown(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no cgroups": {},
		"v2 without memory": {
			"/proc/7/cgroup":       "0::/job\n",
			"/proc/self/mountinfo": mountV2,
		},
		"the process is gone": {"/proc/self/mountinfo": mountV2},
	} {
		t.Run(name, func(t *testing.T) {
			kills := NewOOMKills(tree(t, files))
			kill, known := kills.Claim(kills.Watch(7))
			assert.Nil(t, kill)
			assert.False(t, known)
		})
	}
}

func TestTheReasonNamesTheLimit(t *testing.T) {
	own := &OOMKill{"cgroup v1 /job", "memory.limit_in_bytes", 64 << 20, "cgroup v1 /job"}
	assert.Equal(t, "by the kernel because memory ran out: cgroup v1 /job has reached its limit, "+
		"memory.limit_in_bytes = 67108864 bytes (64 MiB)", own.String())
	machine := &OOMKill{Own: "cgroup v2 /job"}
	assert.Contains(t, machine.String(), "it was the machine's, or that of a cgroup around cgroup v2 /job")
}

// The kernel counts before it kills, and counts nobody else's SIGKILL.
func TestTheKernelCountsItsKills(t *testing.T) {
	watch(t)
	group := newCgroup(t)
	kills := NewOOMKills("/")
	victim, hog := start(t, "cgroup blind"), start(t, "cgroup blind")
	group.join(t, victim.cmd.Process.Pid)
	group.join(t, hog.cmd.Process.Pid)
	victims, hogs := kills.Watch(victim.cmd.Process.Pid), kills.Watch(hog.cmd.Process.Pid)

	require.NoError(t, victim.cmd.Process.Kill())
	_, err := victim.ends()
	require.Error(t, err)
	kill, known := kills.Claim(victims)
	require.Nil(t, kill)
	require.True(t, known)

	hog.says("you are in")
	_, err = hog.ends()
	require.Error(t, err)
	kill, _ = kills.Claim(hogs)
	require.NotNil(t, kill)
	title := "cgroup " + group.version + " " + group.name
	require.Equal(t, OOMKill{Group: title, File: group.limitFile, Limit: cgroupLimit, Own: title}, *kill)
	kill, _ = kills.Claim(victims)
	require.Nil(t, kill)
}
