//go:build panicinject

package main

/*
// Everything is compiled with hidden visibility, and no header declares this one otherwise.
__attribute__((visibility("default"))) void theus_test_panic(char *name);
*/
import "C"

import "sync/atomic"

// Panic injection proves that every export survives a bug: theus_test_panic names
// the export that is to panic at its next call.
var injected atomic.Pointer[string]

func inject(name string) {
	if at := injected.Load(); at != nil && *at == name {
		panic("injected into " + name)
	}
}

//export theus_test_panic
func theus_test_panic(name *C.char) {
	if name == nil {
		injected.Store(nil)
		return
	}
	s := C.GoString(name)
	injected.Store(&s)
}
