package pool

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// adoptOrphans makes this process the parent of what its children leave behind, as process 1 of a container is.
func adoptOrphans(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	t.Cleanup(func() { require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) })
}

// The fixture sees a child that nobody waits for.

func TestAWorkerOfAZygoteThatDiedBeforeItCouldSaySoIsNoZombie(t *testing.T) {
	adoptOrphans(t)
	f := newFixture(t, 1, "vanishing zygote")
	o := f.run("echo")
	require.Equal(t, NoWorkers, o.Status)
	require.False(t, hasChild())
}

func TestAWorkerThatIsForkedWhileThePoolIsClosedIsNoZombie(t *testing.T) {
	adoptOrphans(t)
	f := newFixture(t, 1, "reticent zygote")
	f.start("echo")
	eventually(t, "the zygote has forked", func() bool { return len(ownProcesses()) == 2 })
	f.Close(0)
	require.False(t, hasChild())
}
