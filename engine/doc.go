// Package engine puts the parts together: a heap of segments (shm), a versioned state (engine/state) and a pool of
// workers (pool), as one Engine with the operations of theus.h.
//
// # Life of an array
//
//	Alloc ──► building ──CAS──► published in versions [c, v) ──► retired
//
// While it is building, the host writes it and nobody else sees it. CAS freezes it, under the state's lock and only once it is
// certain that the CAS succeeds. From then on its bytes never change. The state lets go of it when no pinned version shows it; a Buf (a handle
// in the host) or a task may hold it longer; when the last of them lets go the segment is dropped and workers are told.
//
// # Pins
//
// A Snapshot pins its version. A task pins the version that it was submitted at until it ends.
//
// # Versions one after the other
//
// A Stream makes versions of one key and counts how many of them anybody has: its places are given up when the last reference to a
// frame's memory goes, by whatever thread that was. Each frame has memory of its own, so none is ever written twice.
//
// A Window shows the newest rows of a series. They lie in one segment, one behind the other, and a window that was given out ends
// where the rows ended then; what comes later is written behind it. So a window is published without being frozen: the host writes
// to that segment through Append alone, which never goes back, and no pointer into it is ever given out to be written.
package engine
