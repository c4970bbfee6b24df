// Command capi is built with -buildmode=c-shared as libtheus.so: the C interface of include/theus.h, and nothing else.
//
// Each function has three layers:
//
//	theus_x    (shim.c)   refuses forked children before Go is entered, zeroes the out-parameters
//	theusgo_x  (*.go)     converts arguments, under call(), which catches panics and turns errors into statuses
//	engine.X              does the work, plain Go
//
// Handles are entries of one table (handles.go). Memory that C sees (blobs, descr strings) is C memory or mapped memory, never
// Go's. Only this package imports "C".
package main

// main is required by -buildmode=c-shared and never runs.
func main() {}
