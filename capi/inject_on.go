//go:build panicinject

package main

/*
// Everything is compiled with hidden visibility, and no header declares this one otherwise.
__attribute__((visibility("default"))) void theus_test_panic(char *name);
*/
import "C"

import "sync/atomic"

// Panic injection proves that every export survives a bug: theus_test_panic names
// the export that is to panic at its next call; " by a nil pointer" behind it says how.
var injected atomic.Pointer[string]

func inject(name string) {
	at := injected.Load()
	switch {
	case at == nil:
	case *at == name:
		panic("injected into " + name)
	case *at == name+" by a nil pointer": // the kernel's SIGSEGV, which Go turns into a panic
		nowhere.Store(nil)
	}
}

var nowhere *atomic.Pointer[string]

//export theus_test_panic
func theus_test_panic(name *C.char) {
	if name == nil {
		injected.Store(nil)
		return
	}
	s := C.GoString(name)
	injected.Store(&s)
}
