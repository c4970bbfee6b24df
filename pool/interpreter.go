package pool

import "strings"

// The workers' interpreter is isolated from the host's surroundings: no script directory on sys.path, no user site, no PYTHONPATH,
// no PYTHONSTARTUP. What a task would notice of the host's own interpreter is handed over all the same: which warnings are
// shown, how text is encoded, and how strings are hashed. Tasks see the whole environment; CONFIG carries it.

const (
	warningsVariable = "PYTHONWARNINGS"
	utf8Variable     = "PYTHONUTF8"
	hashSeedVariable = "PYTHONHASHSEED"
)

// interpreterFlags are the first arguments of the interpreter.
func interpreterFlags(env []string) []string {
	flags := []string{"-I"}
	if variable(env, hashSeedVariable) != "" {
		flags = []string{"-s"} // -I ignores the variable, and no flag says the same; interpreterEnv leaves nothing else to ignore
	}
	for filter := range strings.SplitSeq(variable(env, warningsVariable), ",") {
		if filter = strings.TrimSpace(filter); filter != "" {
			flags = append(flags, "-W", filter)
		}
	}
	if mode := variable(env, utf8Variable); mode == "0" || mode == "1" { // it refuses to start with anything else
		flags = append(flags, "-X", "utf8="+mode)
	}
	return flags
}

// interpreterEnv is the environment that the interpreter is started in. BLAS threads are off while modules are imported: threads do
// not survive the fork.
func interpreterEnv(env []string) []string {
	out := make([]string, 0, len(env)+8)
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasSuffix(name, "_NUM_THREADS"):
		case strings.HasPrefix(name, "PYTHON") && name != hashSeedVariable:
		default:
			out = append(out, kv)
		}
	}
	for _, lib := range []string{"OPENBLAS", "OMP", "MKL", "BLIS", "NUMEXPR", "VECLIB"} {
		out = append(out, lib+"_NUM_THREADS=1")
	}
	return append(out, "PYTHONSAFEPATH=1") // what -I does for sys.path, from Python 3.11 on
}

// variable is the value that a list of "NAME=value" has for a name; "": none.
func variable(env []string, name string) string {
	for _, kv := range env {
		if value, found := strings.CutPrefix(kv, name+"="); found {
			return value
		}
	}
	return ""
}
