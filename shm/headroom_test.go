//go:build linux

package shm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	mountV1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	mountV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	// On a machine that uses both, v2 has no memory files.
	mountHybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" + mountV1 +
		"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	unlimitedV1 = "9223372036854771712\n"
)

// tree writes files below a new root; /proc/meminfo has 1000 KiB available unless it is given.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	if _, given := files["/proc/meminfo"]; !given {
		files["/proc/meminfo"] = "MemTotal: 9999 kB\nMemFree:  1 kB\nMemAvailable:    1000 kB\n"
	}
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(root+name), 0o755))
		require.NoError(t, os.WriteFile(root+name, []byte(text), 0o644))
	}
	return root
}

func TestHeadroom(t *testing.T) {
	cases := []struct {
		name  string
		files map[string]string
		want  headroom
	}{
		{"no cgroups", map[string]string{}, headroom{1000 << 10, "MemAvailable"}},
		{"v2 own limit", map[string]string{
			"/proc/self/cgroup":                 "0::/job\n",
			"/proc/self/mountinfo":              mountV2,
			"/sys/fs/cgroup/job/memory.max":     "500000\n",
			"/sys/fs/cgroup/job/memory.current": "200000\n",
			"/sys/fs/cgroup/job/memory.stat":    "anon 5\nfile 60000\nactive_file 10000\ninactive_file 40000\n",
		}, headroom{350_000, "cgroup v2 /job memory.max"}},
		{"v2 an ancestor has less", map[string]string{
			"/proc/self/cgroup":                   "0::/a/b/c\n",
			"/proc/self/mountinfo":                mountV2,
			"/sys/fs/cgroup/a/memory.max":         "900000\n",
			"/sys/fs/cgroup/a/memory.current":     "800000\n",
			"/sys/fs/cgroup/a/memory.stat":        "active_file 0\ninactive_file 1000\n",
			"/sys/fs/cgroup/a/b/memory.max":       "max\n",
			"/sys/fs/cgroup/a/b/memory.current":   "700000\n",
			"/sys/fs/cgroup/a/b/memory.stat":      "active_file 0\n",
			"/sys/fs/cgroup/a/b/c/memory.max":     "600000\n",
			"/sys/fs/cgroup/a/b/c/memory.current": "100000\n",
			"/sys/fs/cgroup/a/b/c/memory.stat":    "active_file 0\n",
		}, headroom{101_000, "cgroup v2 /a memory.max"}},
		{"v2 memory.high is no limit", map[string]string{
			"/proc/self/cgroup":                 "0::/job\n",
			"/proc/self/mountinfo":              mountV2,
			"/sys/fs/cgroup/job/memory.high":    "1\n",
			"/sys/fs/cgroup/job/memory.max":     "max\n",
			"/sys/fs/cgroup/job/memory.current": "200000\n",
		}, headroom{1000 << 10, "MemAvailable"}},
		{"v2 above MemAvailable", map[string]string{
			"/proc/self/cgroup":                 "0::/job\n",
			"/proc/self/mountinfo":              mountV2,
			"/sys/fs/cgroup/job/memory.max":     "900000000\n",
			"/sys/fs/cgroup/job/memory.current": "0\n",
		}, headroom{1000 << 10, "MemAvailable"}},
		{"v2 over its limit", map[string]string{
			"/proc/self/cgroup":                 "0::/job\n",
			"/proc/self/mountinfo":              mountV2,
			"/sys/fs/cgroup/job/memory.max":     "1000\n",
			"/sys/fs/cgroup/job/memory.current": "2000\n",
			"/sys/fs/cgroup/job/memory.stat":    "active_file 0\n",
		}, headroom{0, "cgroup v2 /job memory.max"}},
		{"v2 in a container with a namespace", map[string]string{
			"/proc/self/cgroup":             "0::/\n",
			"/proc/self/mountinfo":          mountV2,
			"/sys/fs/cgroup/memory.max":     "5000\n",
			"/sys/fs/cgroup/memory.current": "1000\n",
			"/sys/fs/cgroup/memory.stat":    "active_file 0\n",
		}, headroom{4000, "cgroup v2 / memory.max"}},
		{"v1 with page cache, hierarchical numbers", map[string]string{
			"/proc/self/cgroup":                               "4:memory:/job\n0::/\n",
			"/proc/self/mountinfo":                            mountHybrid,
			"/sys/fs/cgroup/memory/job/memory.limit_in_bytes": "500000\n",
			"/sys/fs/cgroup/memory/job/memory.usage_in_bytes": "490000\n",
			"/sys/fs/cgroup/memory/job/memory.stat": "active_file 1\ninactive_file 1\nhierarchical_memory_limit 500000\n" +
				"total_active_file 100000\ntotal_inactive_file 200000\n",
		}, headroom{310_000, "cgroup v1 /job memory.limit_in_bytes"}},
		{"v1 an ancestor has less", map[string]string{
			"/proc/self/cgroup":                               "9:name=systemd:/\n4:cpuset,memory:/a/b\n",
			"/proc/self/mountinfo":                            mountHybrid,
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes":   "500000\n",
			"/sys/fs/cgroup/memory/a/memory.usage_in_bytes":   "400000\n",
			"/sys/fs/cgroup/memory/a/memory.use_hierarchy":    "1\n",
			"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": unlimitedV1,
			"/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "1000\n",
			"/sys/fs/cgroup/memory/a/b/memory.stat":           "hierarchical_memory_limit 500000\n",
		}, headroom{100_000, "cgroup v1 /a memory.limit_in_bytes"}},
		{"v1 an ancestor that does not count its children", map[string]string{
			"/proc/self/cgroup":                               "4:memory:/a/b\n",
			"/proc/self/mountinfo":                            mountHybrid,
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes":   "500000\n",
			"/sys/fs/cgroup/memory/a/memory.usage_in_bytes":   "400000\n",
			"/sys/fs/cgroup/memory/a/memory.use_hierarchy":    "0\n",
			"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": unlimitedV1,
			"/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "1000\n",
			"/sys/fs/cgroup/memory/a/b/memory.use_hierarchy":  "0\n",
		}, headroom{1000 << 10, "MemAvailable"}},
		{"v1 in a container that sees only its own group, with a limit further out", map[string]string{
			"/proc/self/cgroup": "4:memory:/docker/0a1b\n",
			"/proc/self/mountinfo": "700 690 0:32 /docker/0a1b /sys/fs/cgroup/memory ro,nosuid master:16 - cgroup cgroup rw,memory\n" +
				"701 690 0:33 /docker/0a1b /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": unlimitedV1,
			"/sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
			"/sys/fs/cgroup/memory/memory.stat":           "hierarchical_memory_limit 71000\ntotal_active_file 0\n",
		}, headroom{70_000, "cgroup v1 /docker/0a1b hierarchical_memory_limit"}},
		{"the group lies outside of what is mounted", map[string]string{
			"/proc/self/cgroup":             "0::/../sibling\n",
			"/proc/self/mountinfo":          "30 23 0:26 /mine /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"/sys/fs/cgroup/memory.max":     "5000\n",
			"/sys/fs/cgroup/memory.current": "1000\n",
		}, headroom{4000, "cgroup v2 /sibling memory.max"}},
		{"names with spaces and colons", map[string]string{
			"/proc/self/cgroup":               "0::/my job:1/x\n",
			"/proc/self/mountinfo":            `30 23 0:26 /my\040job:1 /mnt/my\040groups rw - cgroup2 cgroup2 rw` + "\n",
			"/mnt/my groups/x/memory.max":     "5000\n",
			"/mnt/my groups/x/memory.current": "1000\n",
		}, headroom{4000, "cgroup v2 /my job:1/x memory.max"}},
		{"a group whose name only begins like the mount's", map[string]string{
			"/proc/self/cgroup": "0::/ab/c\n",
			"/proc/self/mountinfo": "30 23 0:26 /a /wrong rw - cgroup2 cgroup2 rw\n" +
				"31 23 0:26 /ab /right rw - cgroup2 cgroup2 rw\n",
			"/wrong/memory.max": "1\n", "/wrong/memory.current": "0\n",
			"/right/c/memory.max": "5000\n", "/right/c/memory.current": "1000\n",
		}, headroom{4000, "cgroup v2 /ab/c memory.max"}},
		{"nonsense", map[string]string{
			"/proc/self/cgroup":             "\nx\n1:2\n0::/job\n",
			"/proc/self/mountinfo":          " - cgroup2\n\n30 23 0:26 / - cgroup2 x y\n" + mountV2,
			"/sys/fs/cgroup/job/memory.max": "lots\n",
		}, headroom{1000 << 10, "MemAvailable"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			read := readHeadroom(tree(t, c.files))
			got, err := read()
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestHeadroomFollowsTheProcessIntoAnotherGroup(t *testing.T) {
	root := tree(t, map[string]string{
		"/proc/self/cgroup":               "0::/a\n",
		"/proc/self/mountinfo":            mountV2,
		"/sys/fs/cgroup/a/memory.max":     "5000\n",
		"/sys/fs/cgroup/a/memory.current": "1000\n",
		"/sys/fs/cgroup/b/memory.max":     "3000\n",
		"/sys/fs/cgroup/b/memory.current": "1000\n",
	})
	read := readHeadroom(root)
	got, err := read()
	require.NoError(t, err)
	assert.EqualValues(t, 4000, got.bytes)
	require.NoError(t, os.WriteFile(root+"/proc/self/cgroup", []byte("0::/b\n"), 0o644))
	got, err = read()
	require.NoError(t, err)
	assert.Equal(t, headroom{2000, "cgroup v2 /b memory.max"}, got)
}

func TestHeadroomWithoutProc(t *testing.T) {
	for _, root := range []string{t.TempDir(), tree(t, map[string]string{"/proc/meminfo": "MemTotal: 5 kB\n"})} {
		_, err := readHeadroom(root)()
		var kernel *KernelError
		require.ErrorAs(t, err, &kernel)
		assert.Contains(t, err.Error(), "/proc/meminfo")
	}
}

func TestHeadroomOfThisMachine(t *testing.T) {
	got, err := readHeadroom("/")()
	require.NoError(t, err)
	assert.NotEmpty(t, got.source)
	text, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	total, ok := field(text, "MemTotal:")
	require.True(t, ok)
	assert.Less(t, got.bytes, total<<10)
}

// What stands in /proc comes from whoever made the container: it may be odd, it must not
// end the process.
func FuzzCgroupFiles(f *testing.F) {
	f.Add("4:memory:/a/b\n0::/\n", mountHybrid)
	f.Add("0::/../x y\n", `30 23 0:26 /\0400\77 /m\134 rw - cgroup2 a b`)
	f.Add("0::", " - cgroup2 cgroup2 rw")
	f.Fuzz(func(t *testing.T, membership, mounts string) {
		read := readHeadroom(tree(t, map[string]string{
			"/proc/self/cgroup": membership, "/proc/self/mountinfo": mounts,
		}))
		got, err := read()
		require.NoError(t, err)
		assert.LessOrEqual(t, got.bytes, uint64(1000<<10))
	})
}
