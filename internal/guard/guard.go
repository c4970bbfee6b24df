// Package guard starts goroutines and runs functions so that a panic in one of
// them never ends the host process.
//
// The library lives inside other people's programs. Go ends the whole process when any goroutine
// panics, so every goroutine of theus starts here (the lint target refuses a
// bare go statement elsewhere), and every exported function runs under Catch.
package guard

import (
	"fmt"
	"runtime/debug"
	"time"
)

// Panic is a caught panic as an error: what was being done, the value, the stack.
type Panic struct {
	Where string
	Value any
	Stack string
}

// Error gives the first line; the stack stays in the field.
func (p *Panic) Error() string {
	return fmt.Sprintf("internal error in %s: %v", p.Where, p.Value)
}

// Go runs f in a goroutine. A panic in f is given to caught instead of ending the process.
func Go(where string, caught func(*Panic), f func()) {
	go func() {
		if p := Catch(where, f); p != nil {
			caught(p)
		}
	}()
}

// AfterFunc is time.AfterFunc with the same protection.
func AfterFunc(d time.Duration, where string, caught func(*Panic), f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		if p := Catch(where, f); p != nil {
			caught(p)
		}
	})
}

// Catch runs f and returns its panic, or nil.
func Catch(where string, f func()) (caught *Panic) {
	defer func() {
		if v := recover(); v != nil {
			caught = &Panic{Where: where, Value: v, Stack: string(debug.Stack())}
		}
	}()
	f()
	return nil
}
