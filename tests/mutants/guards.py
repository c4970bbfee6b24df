"""The guards that theus stands on, how each is removed, and the test that must notice.

A guard that can go without a test failing protects nobody: the next change may remove it. So
`make mutants` (remove_guards.py) takes them out one at a time, in a copy of the sources. They are
taken out as text and not by switches: no library that anybody installs can work without them.
"""

from __future__ import annotations

from typing import NamedTuple


class GoTest(NamedTuple):
    """A test of a Go package."""

    package: str
    name: str

    @property
    def place(self) -> str:
        return f"{self.package} {self.name}"


class PythonTest(NamedTuple):
    """A test module of tests/python and what `pytest -k` picks of it."""

    file: str
    name: str
    injected: bool = False  # it also needs the library that panics on demand

    @property
    def place(self) -> str:
        return f"{self.file} {self.name}"


class Cut(NamedTuple):
    """A piece of a file, which must occur there exactly once, and what stands there instead."""

    file: str
    guard: str
    without: str


class Mutant(NamedTuple):
    """One guard: without it, `test` must fail."""

    name: str
    protects: str
    test: GoTest | PythonTest
    cuts: tuple[Cut, ...]
    tries: int = 1  # of a test that has to meet a race: one that fails is enough


# A segment is looked at before its writing is forbidden, and proved after.
PROOFS_OF_ADOPTION = (
    Cut(
        "shm/adopt.go",
        'if err := readLease(s.fd); err != nil {\n\t\treturn s.fail("adopt", err)\n\t}\n'
        "\tif err := s.sealAndProve(",
        "if err := s.sealAndProve(",
    ),
    Cut(
        "shm/adopt.go",
        "if err := readLease(s.fd); err != nil {\n\t\treturn s.fail(doing, err)\n\t}\n\treturn nil",
        "return nil",
    ),
)

MUTANTS = (
    Mutant(
        "seal of the size",
        "nobody truncates a segment under those who map it (SIGBUS)",
        GoTest("./shm", "TestNobodyChangesTheSize"),
        (
            Cut(
                "shm/memfile_linux.go",
                "unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)",
                "unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0&seals)",
            ),
        ),
    ),
    Mutant(
        "seal of future writes",
        "an adopted output is not opened for writing again",
        GoTest("./shm", "TestAdoptedSegmentCannotBeOpenedForWritingAgain"),
        (Cut("shm/heap.go", "if h.features.FutureWrite {", "if false {"),),
    ),
    Mutant(
        "read-only descriptions",
        "a worker cannot write what others read",
        PythonTest("test_invariants_memory.py", "test_the_kernel_refuses_a_worker"),
        (
            Cut(
                "shm/segment.go",
                "return -1, err\n\t}\n\treturn s.reopen(syscall.O_RDONLY)",
                "return -1, err\n\t}\n\treturn s.reopen(syscall.O_RDWR)",
            ),
            Cut("shm/heap.go", "if h.features.FutureWrite {", "if false {"),
        ),
    ),
    Mutant(
        "fallocate",
        "pages are there when the array is: a full machine is an error, not SIGBUS",
        GoTest("./shm", "TestNewSegmentIsZeroedAndItsPagesAreThere"),
        (
            Cut(
                "shm/memfile_linux.go",
                "return unix.Fallocate(fd, 0, offset, n)",
                "return unix.Fallocate(fd, 0, offset, min(n, 1))",
            ),
        ),
    ),
    Mutant(
        "budget check",
        "past a cgroup's limit the kernel kills: HeapFull comes first",
        GoTest("./shm", "TestHeapStopsBeforeTheCgroupKills"),
        (
            Cut(
                "shm/budget.go",
                "return used <= limit && n <= limit-used",
                "return true || used+n <= limit",
            ),
        ),
    ),
    Mutant(
        "lease before adoption",
        "an output that its writer can still write is copied",
        GoTest("./shm", "TestAdoptIsRefusedWhileTheWriterHasItMapped"),
        PROOFS_OF_ADOPTION,
    ),
    Mutant(
        "seal before a result is shared",
        "who is given a worker's result cannot write it, and nobody is when it is granted again",
        GoTest("./shm", "TestAResultIsSealedBeforeAnybodyElseHasIt"),
        (Cut("shm/adopt.go", "if !s.sole {", "if true {"),),
    ),
    Mutant(
        "lease before a result's memory is granted again",
        "memory is not written again that the writer of a result still reads",
        GoTest("./shm", "TestAResultThatSomebodySeesIsNotGrantedAgain"),
        (Cut("shm/recycle.go", "return writeLease(s.fd) == nil", "return true"),),
    ),
    Mutant(
        "zeros in memory that is granted again",
        "what a worker allocates does not show the result of an earlier task",
        PythonTest("test_recycling.py", "test_what_a_worker_allocates_is_zeroed"),
        (Cut("python/theus/worker/heavy.py", "if granted.used:", "if False:"),),
    ),
    Mutant(
        "acknowledgement before recycling",
        "memory is not used again while a worker may still ask for it or map it",
        GoTest("./shm", "TestAnArenaIsNotUsedAgainBeforeEachWorkerHasLetGo"),
        (Cut("shm/segment.go", "if s.remotes > 0 {", "if s.remotes < 0 {"),),
    ),
    Mutant(
        "lease before recycling",
        "memory is not used again while a process that nobody knows of sees it",
        GoTest("./shm", "TestAnArenaThatAnotherProcessMapsIsNeverUsedAgain"),
        (Cut("shm/recycle.go", "return writeLease(s.fd) == nil", "return true"),),
    ),
    Mutant(
        "count of forks before recycling",
        "memory is not used again that a child of the host maps, unknown to the lease",
        GoTest("./shm", "TestAnArenaThatAForkOfTheHostMapsIsNeverUsedAgain"),
        (
            Cut(
                "shm/recycle.go",
                "if s.forks != HostForks() {",
                "if false && s.forks != HostForks() {",
            ),
        ),
    ),
    Mutant(
        "only what was moved aside is recycled",
        "memory is not used again of which the host's program has the address",
        GoTest("./shm", "TestWhatWasNotFrozenByTheHostIsNeverUsedAgain"),
        (Cut("shm/recycle.go", "s.state == frozen && s.w.addr != 0", "s.w.addr != 0"),),
    ),
    Mutant(
        "forks are counted",
        "the same, as Python forks",
        PythonTest("test_recycling.py", "test_nothing_is_used_again_that_a_child_of_the_host_maps"),
        (Cut("capi/shim.c", "{ times_forked++; }", "{}"),),
    ),
    Mutant(
        "forks are counted before and after",
        "nor what was mapped while the host was about to fork",
        PythonTest(
            "test_recycling.py", "test_nothing_is_used_again_that_was_made_while_the_host_forked"
        ),
        (
            Cut(
                "capi/shim.c",
                "static void in_parent(void) {\n  count_fork();\n",
                "static void in_parent(void) {\n",
            ),
        ),
    ),
    Mutant(
        "an output's writers are gone",
        "the output of a map is not changed by a process that a task forked",
        PythonTest("test_map_output.py", "test_a_child_of_a_worker_that_writes_on_changes_nothing"),
        PROOFS_OF_ADOPTION,
    ),
    Mutant(
        "pins of tasks",
        "a small array stays where a worker was told that it is",
        GoTest("./pool", "TestASmallArrayStaysWhereItsTaskWasTold"),
        (Cut("pool/task.go", "a.Segment.Ref()\n\tt.pinned", "t.pinned"),),
    ),
    Mutant(
        "signal of leases",
        "an opener during a proof does not end the host by SIGIO",
        GoTest("./shm", "TestLeaseSignal"),
        (
            Cut(
                "shm/lease_linux.go",
                "unix.F_SETSIG, int(unix.SIGURG))",
                "unix.F_SETSIG, 0)",
            ),
        ),
    ),
    Mutant(
        "freeze at publish",
        "a pointer from before publish changes nothing that others read",
        PythonTest("test_invariants_memory.py", "test_writers_from_before_publish_change_nothing"),
        (
            Cut(
                "shm/freeze.go",
                "if err := s.swapWritable(); err != nil {\n\t\treturn err\n\t}\n",
                "",
            ),
        ),
    ),
    Mutant(
        "fork check in C",
        "a forked child of the host gets an error and does not hang",
        PythonTest("test_invariants_programs.py", "test_a_forked_child_is_refused_everything"),
        (
            Cut(
                "capi/shim.c",
                "return child_of_fork || (alive != NULL && *alive == 0);",
                "return alive == NULL;",
            ),
            Cut("python/theus/_core.py", "_forked = _core is not None or _forked", "pass"),
        ),
    ),
    Mutant(
        "recover",
        "a bug poisons its engine and does not end the host",
        PythonTest("test_panics.py", "test_a_panic_as_python_sees_it", injected=True),
        (Cut("internal/guard/guard.go", "v := recover(); v != nil", "v := any(nil); v != nil"),),
    ),
    Mutant(
        "reseeding after fork",
        "workers draw different random numbers",
        PythonTest(
            "test_invariants_random.py", "test_the_global_generators_differ_between_workers"
        ),
        (Cut("python/theus/worker/main.py", "    seeding.reseed(seed, worker)\n", ""),),
    ),
    Mutant(
        "death signal of workers and zygote",
        "a killed host takes its workers with it, whoever else holds their sockets",
        PythonTest(
            "test_invariants_death.py",
            "test_a_child_that_the_host_forked_does_not_keep_workers_alive",
        ),
        (
            Cut("pool/spawn.go", ", Pdeathsig: syscall.SIGKILL}", "}"),
            Cut(
                "python/theus/worker/process.py",
                "    _prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)\n",
                "",
            ),
        ),
    ),
    Mutant(
        "status page",
        "only the task that a dead worker had started ends with it",
        GoTest("./pool", "TestAPrefetchedTaskOfADeadWorkerRunsElsewhere"),
        (Cut("pool/death.go", "case t.id == started:", "case true || t.id == started:"),),
    ),
    Mutant(
        "order of forks and starts",
        "an engine starts while other threads of the host fork",
        PythonTest("test_host_forks.py", "test_engines_start_while_the_host_forks"),
        (Cut("capi/shim.c", "pthread_atfork(before_fork, in_parent, in_child);", ""),),
        tries=4,
    ),
    Mutant(
        "descriptor limit put back",
        "loading the library does not raise the host's soft limit",
        PythonTest("test_invariants_programs.py", "test_the_descriptor_limit_stays_as_it_was"),
        (Cut("python/theus/_core.py", "with descriptor_limit_kept():", "if True:"),),
    ),
    Mutant(
        "copy of what is still written",
        "a result that its writer can still write is not read where he writes",
        PythonTest("test_heavy.py", "test_an_output_that_somebody_can_still_write_is_copied"),
        (
            Cut(
                "pool/results.go",
                "\t\tif err == nil {\n\t\t\tcontinue\n\t\t}\n"
                "\t\tif !errors.Is(err, shm.ErrStillWritten)",
                "\t\tif err == nil || errors.Is(err, shm.ErrStillWritten) {\n"
                "\t\t\tcontinue\n\t\t}\n\t\tif !errors.Is(err, shm.ErrStillWritten)",
            ),
        ),
    ),
    Mutant(
        "adoption of what a worker wrote",
        "a result is not copied on its way to the host",
        PythonTest("test_zero_copy.py", "test_an_output_lies_where_its_worker_wrote_it"),
        (Cut("pool/results.go", "err := seg.Adopt()", "err := shm.ErrNoProof"),),
    ),
    Mutant(
        "page that a fork wipes",
        "a child that no library knows of, even as process 1 beside its parent, is refused",
        PythonTest("test_forks_raw.py", "test_a_child_of_a_bare_clone"),
        (
            Cut(
                "capi/shim.c",
                "return child_of_fork || (alive != NULL && *alive == 0);",
                "return child_of_fork;",
            ),
        ),
    ),
    Mutant(
        "thread that starts processes",
        "a zygote does not die with the thread that happened to start it",
        GoTest("./pool", "TestAChildOutlivesTheThreadThatAskedForIt"),
        (
            Cut(
                "pool/spawn.go",
                "\tspawner() <- request\n\treply := <-request.reply\n",
                "\treply := request.start()\n",
            ),
        ),
    ),
    Mutant(
        "no signal of broken pipes",
        "a message to a worker that has just died does not end the host",
        GoTest("./pool", "TestAMessageToAClosedSocketIsNoSignal"),
        (Cut("pool/conn.go", "unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)", "unix.MSG_DONTWAIT)"),),
    ),
    Mutant(
        "threads made beforehand",
        "the Go runtime is never refused a thread, which would end the host",
        PythonTest("test_limits_surroundings.py", "test_threads_run_out_while_it_is_used"),
        (Cut("capi/threads.go", "\toccupyThreads(wanted)\n", ""),),
    ),
    Mutant(
        "version check",
        "of two swaps that stand on the same version and touch the same, one loses",
        GoTest("./engine/state", "TestHistoriesAreLinearizable"),
        (
            Cut(
                "engine/state/store.go",
                "\tif now != seen {\n\t\tif err := now.admit(",
                "\tif false {\n\t\tif err := now.admit(",
            ),
        ),
        tries=5,
    ),
    Mutant(
        "rows behind rows",
        "what is appended to a window never touches what it showed before",
        GoTest("./engine", "TestWindowsNeverChange"),
        (Cut("shm/append.go", "\ts.appended += n\n", "\ts.appended = n\n"),),
    ),
    Mutant(
        "frames in use",
        "a stream has no more frames in memory than it keeps",
        GoTest("./engine", "TestAFrameIsInUseWhileAnybodyHasIt"),
        (Cut("engine/stream.go", "len(s.frames) >= s.options.Keep", "false"),),
    ),
    Mutant(
        "second look of who sends",
        "nobody sleeps through a frame that was put into a ring while he fell asleep",
        GoTest("./pool", "TestNobodySleepsThroughAFrameInARing"),
        (Cut("pool/conn.go", "\t\tif c.rings.PeerLooks() {\n", "\t\tif true {\n"),),
    ),
    Mutant(
        "second look of who falls asleep",
        "a worker does not sleep through a frame that was put into its ring just before",
        PythonTest("test_worker_rings.py", "test_who_falls_asleep_sees_what_was_put_before"),
        (
            Cut(
                "python/theus/worker/frames.py",
                "            if not rings.waiting:\n                self._poller.poll()",
                "            self._poller.poll()",
            ),
        ),
    ),
    Mutant(
        "last read of who looks no more",
        "a result that was put into a ring while the last one turned away is not left there",
        GoTest("./pool", "TestWhoLooksNoMoreReadsWhatWasPutMeanwhile"),
        (Cut("pool/look.go", "\tif w.page.Pending() {\n", "\tif false {\n"),),
    ),
    Mutant(
        "marks",
        "frames keep their order, whether they go by a ring or by the socket",
        GoTest("./pool", "TestFramesByRingAndBySocketKeepTheirOrder"),
        (Cut("shm/ring.go", "if load64(slot) > consumed {", "if false {"),),
    ),
    Mutant(
        "rings of the dead",
        "a result that a worker put into its ring before it died counts",
        GoTest("./pool", "TestAResultInTheRingOfADeadWorkerCounts"),
        (
            Cut(
                "pool/reactor.go",
                "if frameErr := dispatchFrames(peer); frameErr != nil { //",
                "if err != nil {\n\t} "
                "else if frameErr := dispatchFrames(peer); frameErr != nil { //",
            ),
        ),
    ),
)
