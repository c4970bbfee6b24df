// Package shm owns the shared memory of a theus host: segments that worker
// processes map, the descriptors through which they may do so, and the budget
// that keeps the machine alive.
//
// # Segments
//
// A [Segment] is an anonymous memory file (memfd). It has no name, so there is
// nothing to unlink and nothing that a crash could leave behind: the kernel
// frees the pages when the last process that maps them is gone. It is filled
// with real, zeroed pages when it is made, so a full machine is an error there
// and never a SIGBUS later.
//
// There are four ways to make one of its own, by who writes it:
//
//	Create      the host writes, until Freeze publishes it
//	CreateLive  the host and chosen workers write, for ever, no snapshot promise
//	CreateOutput the same, until Settle has proved that nobody can write any more
//	Grant       one worker writes; the host only reads, once Adopt has proved
//	            the same
//
// And one that the host fills from front to back ([Heap.CreateAppended]): readers are told of
// what was written, and that never changes again.
//
// # Access
//
// What a process may do is decided by the file description that it was given,
// not by trust. [Segment.ReaderFD] opens the file O_RDONLY: the kernel refuses
// a shared writable map of it, and mprotect. The seals say the rest: nobody can
// change the size, and of a host-written segment nobody can make another
// writable map, not even by opening it again.
//
// # Two maps, and freezing
//
// A host-written segment has a writable map W while it is built, and a
// read-only map R for everyone who reads it later. [Segment.Freeze] moves W
// aside and puts a private map in its place, so pointers into W stay valid but
// no longer reach what others read.
//
// # Lifetime
//
// A segment starts with one reference. When the last one goes it is dropped:
// unmapped and closed in the host. That is always safe, since the kernel keeps
// the pages for whoever still maps them. Its bytes stay in the budget until the
// workers that map it have said that they no longer do ([Segment.DoneRemote]).
//
// # Arenas
//
// Small arrays share segments: [Heap.Reserve] gives a [Slot] of an arena. Since its
// neighbours may be published already, a small array is written in a [Draft], memory of
// the host alone, and copied into its slot when it is published. A slot keeps its
// arena, but not its place: when an arena is mostly dead, what is left of it is
// moved. Whoever reads a slot pins its place ([Slot.Pin]).
//
// # Recycling
//
// The memory of an arena that has gone, of a segment that the host wrote and froze, or of one that was
// granted to a writer and given to nobody else, is used for another of its kind, if the kernel proves that nobody
// sees it any more. See recycle.go for what that takes. All other memory is never used again.
//
// # Budget
//
// Allocating past the limit of a memory cgroup is not an error but a kill, so
// every allocation is checked first, against the heap's own limit and against
// what the machine and each enclosing cgroup have left. The check is one for
// the process: two heaps share one machine.
//
// Everything here may be called from any goroutine. Addresses are plain
// numbers; this package reads and writes through them in one file, unsafe_linux.go.
package shm
