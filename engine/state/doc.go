// Package state is the versioned state of an engine: values at paths, and
// heavy arrays under flat keys.
//
// # Model
//
// A Store holds one current version. [Store.CAS] is the only way to change it:
// a list of operations is applied in order, all or none, and makes the next
// version. A [Snapshot] pins a version and reads the same for ever. Versions
// are roots of persistent radix trees that share what did not change, so a
// snapshot costs the same for ten keys and for a million.
//
// # Data
//
// Data lives at paths, tuples of components: "a.b" as one component is not
// a → b. Only leaves carry a value; an inner path exists because something lies
// below it. Setting a path removes everything below it and a leaf above it;
// deleting a path removes everything at and below it and leaves what is above.
//
// Every set and every delete is a touch of its path, the delete of something
// absent included. A CAS that expects version e conflicts when a path that it
// touches, an ancestor or a descendant was touched after e. Siblings never
// conflict: a leaf that vanishes because something was set below it is not a
// touch of its own.
//
// To answer that in one walk down the path, each path that was touched, and
// each path above it, has a node with two versions: the last touch exactly
// here, and the last touch here or below. A touch wipes the nodes below it,
// since it is newer than all of them. A deleted path keeps its node (a
// tombstone), or else create-and-delete would pass a CAS that read "absent"
// before both. Tombstones are bounded: the oldest are pruned, and the floor
// rises to the newest touch forgotten that way. A path without a node
// conflicts when the expected version is below the floor.
//
// A check of a path conflicts as a touch would, and touches nothing. With it a
// CAS also depends on what it has read: all that was looked at stands until the commit.
//
// Heavy keys follow the same rules on one level; their characters mean nothing.
//
// # Retirement
//
// An array that was published in version c and replaced or deleted in version v
// lives in [c, v). The store holds one reference to it for each such life, and
// lets go as soon as no pinned version p has c ≤ p < v. A pin that is never
// released therefore holds its own generation and no later one. See retire.go
// for how this stays cheap.
//
// # Concurrency
//
// Everything may be called from any goroutine. Commits are serialised by one
// mutex; taking and releasing snapshots uses another one that is never held while
// a version is built, so that neither waits for a large commit. Reading a snapshot,
// [Store.Version] and finding out that a CAS conflicts take no lock. Retain and
// Release of arrays are called with no lock held.
package state
