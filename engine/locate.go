package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/theus-project/theus-go/internal/failpoint"
	"github.com/theus-project/theus-go/pool"
)

// A host that is not Python does not say where the worker program is: the interpreter is asked, once.
const locateScript = `import importlib.util, json, sys
spec = importlib.util.find_spec("theus")
print(json.dumps([spec and list(spec.submodule_search_locations)[0], [p for p in sys.path if p], sys.executable]))`

const (
	locateTimeout = 30 * time.Second
	pipeTimeout   = time.Second // for the ends of its pipes, which a child of an interpreter that was ended may hold
)

func locate(wanted context.Context, o *pool.Options) error {
	python := o.Python
	if python == "" {
		python = "python3"
	}
	path, err := lookPath(python, o.Env)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(wanted, locateTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-c", locateScript)
	cmd.Env = o.Env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	cmd.WaitDelay = pipeTimeout
	pool.HostForks.Lock()
	err = startProcess(cmd)
	pool.HostForks.Unlock()
	if err == nil {
		err = waitProcess(cmd)
	}
	if errors.Is(err, syscall.ECHILD) {
		err = nil // somebody in the host waits for all children and was faster; what it printed is here all the same
	}
	out := stdout.Bytes()
	if err != nil {
		return fmt.Errorf("%s cannot be asked where theus is installed: %w %s", path, err, strings.TrimSpace(stderr.String()))
	}
	var directory *string
	var sysPath []string
	var executable string
	if err := json.Unmarshal(out, &[]any{&directory, &sysPath, &executable}); err != nil {
		return fmt.Errorf("%s gave an unexpected answer: %q", path, out)
	}
	if directory == nil {
		return fmt.Errorf("the Python package theus is not installed for %s (pip install theus-go), or name another interpreter in theus_options.python", path)
	}
	o.Python = executable
	o.WorkerMain = filepath.Join(*directory, "worker", "zygote.py")
	if o.SysPath == nil {
		o.SysPath = sysPath
	}
	return nil
}

// lookPath is exec.LookPath with the PATH of the given environment: changes that the host made to its own
// environment never reach Go.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			candidate := filepath.Join(dir, name)
			if info, err := stat(candidate); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
				return candidate, nil
			}
		}
	}
	return "", errors.New(name + " is not on PATH; name an interpreter in theus_options.python")
}

func stat(name string) (os.FileInfo, error) {
	if err := failpoint.Fail(failpoint.EngineStat); err != nil {
		return nil, err
	}
	return os.Stat(name)
}

func startProcess(cmd *exec.Cmd) error {
	if err := failpoint.Fail(failpoint.EngineStartProcess); err != nil {
		return err
	}
	return cmd.Start()
}

func waitProcess(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if errors.Is(err, syscall.ECHILD) { // somebody else was told of its end; its descriptor would stay open
		_ = cmd.Process.Release()
	}
	if said := failpoint.Fail(failpoint.EngineWaitProcess); said != nil {
		return said
	}
	return err
}
