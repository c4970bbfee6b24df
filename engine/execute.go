package engine

import (
	"time"

	"github.com/theus-project/theus-go/pool"
)

// Call is a task to be run; see theus_call.
type Call struct {
	Target   string
	Function *pool.Function
	InCodec  uint8
	OutCodec uint8
	In       [][]byte // copied before Execute returns
	Bufs     []*Buf
	Keys     []string
	Learn    bool
	At       *Snapshot // nil: the current version
	Timeout  time.Duration
	Retries  int
	RNGKey   uint64
	Queue    *pool.Queue
	Handle   uint64 // the caller's name for the task
	Tag      uint64
}

// Define makes a function known to workers; code is copied, name is for messages.
func (e *Engine) Define(name string, code [][]byte) (*pool.Function, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	record, err := e.pool.NewValue(pool.CodecPickle, code, "(code of "+name+")")
	if err != nil {
		return nil, err
	}
	return e.pool.Define(name, record), nil
}

// Execute queues a task.
func (e *Engine) Execute(c Call) (*pool.Task, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	if c.Target == "" && c.Function == nil {
		return nil, &ArgumentError{"neither a target nor a function is given"}
	}
	call := pool.Call{
		Function: c.Function, Target: c.Target, OutCodec: c.OutCodec, Keys: c.Keys, Learn: c.Learn,
		Timeout: c.Timeout, Retries: c.Retries, RNGKey: c.RNGKey, Queue: c.Queue, Handle: c.Handle, Tag: c.Tag,
	}
	for _, b := range c.Bufs {
		a, err := b.Array()
		if err != nil {
			unref(call.Arrays)
			return nil, err
		}
		call.Arrays = append(call.Arrays, a)
	}
	input, err := e.pool.NewValue(c.InCodec, c.In, "(input of "+c.name()+")")
	if err != nil {
		unref(call.Arrays)
		return nil, err
	}
	call.Input = input
	version := e.versionFor(c.At)
	if version == nil {
		unref(call.Arrays)
		call.Input.Release()
		return nil, ErrReleased
	}
	call.Source = version
	return e.pool.Submit(call)
}

// versionFor pins the version that a task is to read: the one of a snapshot, or (nil) the current one. nil: the snapshot was
// released meanwhile.
func (e *Engine) versionFor(at *Snapshot) *Snapshot {
	if at == nil {
		return &Snapshot{e, e.store.TaskSnapshot()}
	}
	if snap := at.snap.ForTask(); snap != nil {
		return &Snapshot{e, snap}
	}
	return nil
}

func (c *Call) name() string {
	if c.Target != "" {
		return c.Target
	}
	return c.Function.Name()
}

func unref(arrays []*pool.Array) {
	for _, a := range arrays {
		a.Unref()
	}
}

// ResultBuf gives array i of a task's result as a Buf of its own.
func (e *Engine) ResultBuf(t *pool.Task, i int) (*Buf, error) {
	arrays := t.Outcome().Arrays
	if i < 0 || i >= len(arrays) {
		return nil, &KeyError{Key: t.Name(), Kind: ErrNotFound, Hint: ": its result has fewer arrays"}
	}
	return &Buf{engine: e, array: arrays[i].Ref(), version: arrays[i].Version}, nil
}
