// Package main is another shared library that is written in Go, as programs have that use several: test_neighbours.py
// loads it beside theus. Two Go runtimes in one process share its signals and nothing else.
package main

import "C"

import (
	"runtime"
	"time"
)

// neighbour_work allocates, collects garbage and waits for a timer, and gives the sum of what it wrote.
//
//export neighbour_work
func neighbour_work(rounds C.int) C.longlong {
	sum := 0
	for round := range int(rounds) {
		kept := make([][]byte, 0, 64)
		for i := range 64 {
			kept = append(kept, make([]byte, 16<<10))
			kept[i][i] = byte(round % 7)
		}
		runtime.GC()
		fired := make(chan struct{})
		time.AfterFunc(time.Microsecond, func() { close(fired) })
		<-fired
		for i := range kept {
			sum += int(kept[i][i])
		}
	}
	return C.longlong(sum)
}

func main() {}
