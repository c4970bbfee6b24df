package pool

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheInterpreterIsToldWhatTasksWouldNotice(t *testing.T) {
	for _, c := range []struct{ env, flags []string }{
		{nil, []string{"-I"}},
		{[]string{"PYTHONWARNINGS=error, ignore::UserWarning,"}, []string{"-I", "-W", "error", "-W", "ignore::UserWarning"}},
		{[]string{"PYTHONUTF8=1"}, []string{"-I", "-X", "utf8=1"}},
		{[]string{"PYTHONUTF8=yes"}, []string{"-I"}},
		{[]string{"PYTHONHASHSEED=7", "PYTHONUTF8=0"}, []string{"-s", "-X", "utf8=0"}},
	} {
		require.Equal(t, c.flags, interpreterFlags(c.env), c.env)
	}
}

func TestTheInterpreterStartsWithoutTheVariablesOfAnother(t *testing.T) {
	env := interpreterEnv([]string{"PYTHONPATH=/here", "PYTHONHOME=/there", "PYTHONHASHSEED=7", "OMP_NUM_THREADS=8", "HOME=/root"})
	require.Contains(t, env, "HOME=/root")
	require.Contains(t, env, "PYTHONHASHSEED=7")
	require.Contains(t, env, "OMP_NUM_THREADS=1")
	for _, kv := range []string{"PYTHONPATH=/here", "PYTHONHOME=/there", "OMP_NUM_THREADS=8"} {
		require.NotContains(t, env, kv)
	}
}
