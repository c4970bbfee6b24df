package pool

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What is wrong with a SPAWNED is said, and nothing else: its fields, its descriptors, or both.
func TestSpawnedThatIsNone(t *testing.T) {
	const fds = "SPAWNED has more than its pidfd"
	for name, c := range map[string]struct {
		payload []byte
		gifts   int
		says    string
	}{
		"too short":                  {[]byte{1, 0}, 1, errTruncated.Error()},
		"too long":                   {[]byte{1, 0, 0, 0, 0}, 0, "1 bytes follow the last field"},
		"two descriptors":            {[]byte{1, 0, 0, 0}, 2, fds},
		"too short, and two of them": {nil, 2, errTruncated.Error() + "\n" + fds},
	} {
		t.Run(name, func(t *testing.T) {
			f := &frame{kind: frameSpawned, payload: c.payload}
			var readers []int
			for range c.gifts {
				var ends [2]int
				require.NoError(t, unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
				defer closeFD(ends[0])
				readers, f.fds = append(readers, ends[0]), append(f.fds, ends[1])
			}
			require.EqualError(t, new(zygote).onSpawned(f, &decoder{buf: f.payload}), c.says)
			for _, fd := range readers {
				n, err := unix.Read(fd, make([]byte, 1))
				require.True(t, n == 0 && err == nil, "a descriptor that came with it is open: %v", err)
			}
		})
	}
}
