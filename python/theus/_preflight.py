"""What must be true before a Go runtime is loaded into this process.

The Go runtime ends the process when the machine refuses it a thread or address space. So both are
asked for here first, in a way that fails as an exception: by trying.

Only what `require_platform` needs is imported with the module: the package calls it at import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import TheusError

# The runtime starts about ten threads at load and some more as calls wait in the kernel.
THREADS = 24
# Reserved (not used) at load: heap arena index, bitmaps and thread stacks. Measured with
# RLIMIT_AS on 64-bit Linux: loading dies below 0.6 GiB of headroom.
ADDRESS_SPACE = 1 << 30

_SEMAPHORE = 64  # bytes, at least those of a sem_t


def require_platform() -> None:
    """Refuse what theus cannot run on.

    Raises:
        ImportError: not Linux, or a C library that cannot load Go's shared libraries.
    """
    if sys.platform == "win32":
        raise ImportError(
            "theus runs on Linux only: it shares memory by memfd and file descriptors. On Windows "
            "install it inside WSL2 (wsl --install), where it runs as on any Linux."
        )
    if sys.platform != "linux":
        raise ImportError(
            f"theus runs on Linux only (this is {sys.platform}): it shares memory by memfd and "
            "file descriptors, which this system does not have. A Linux container works."
        )
    if not _is_glibc():
        raise ImportError(
            "theus needs glibc, but this Python runs on another C library (musl, as on Alpine): "
            "the Go runtime inside libtheus.so cannot be loaded there. Use a Debian-based image, "
            "e.g. python:3-slim."
        )


def require_proc() -> None:
    """Refuse to start without /proc.

    Raises:
        TheusError: it is not mounted.
    """
    if not os.path.exists("/proc/self/fd"):
        raise TheusError(
            "theus needs /proc, which is not mounted here: a reader of shared memory is given a "
            "descriptor that was opened again by its name there, and nothing else says how much "
            "memory is left. Mount it (mount -t proc proc /proc), or have the sandbox do so."
        )


def require_headroom() -> None:
    """Refuse to load when the Go runtime would end the process for want of threads or room.

    Raises:
        TheusError: names the limit that is in the way.
    """
    import resource

    if not _address_space_left(ADDRESS_SPACE):
        raise TheusError(
            f"not enough address space to start theus: it needs {ADDRESS_SPACE >> 20} MiB more "
            f"(reserved, not used), and RLIMIT_AS is {_limit(resource.RLIMIT_AS)} bytes. Raise it "
            "(ulimit -v unlimited) before this process starts."
        )
    started = _threads_left(THREADS)
    if started < THREADS:
        raise TheusError(
            f"not enough threads to start theus: it needs {THREADS} more, but only {started} could "
            f"be started. RLIMIT_NPROC is {_limit(resource.RLIMIT_NPROC)} for all processes of "
            f"this user, and pids.max of the control group is {_pids_max()}. Raise the one that "
            "is used up (ulimit -u, docker --pids-limit), or end other processes."
        )


@contextmanager
def descriptor_limit_kept() -> Iterator[None]:
    """Keep RLIMIT_NOFILE as the user set it: Go raises the soft limit while it starts.

    A raised limit breaks programs that use select(), and every subprocess would inherit it.
    """
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != before[0]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], hard))


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return False


def _address_space_left(size: int) -> bool:
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return True
    import ctypes
    import mmap

    try:
        libc = ctypes.CDLL(None, use_errno=True)
    except OSError:
        return False
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    map_noreserve, prot_none = 0x4000, 0
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | map_noreserve
    address = libc.mmap(None, size, prot_none, flags, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        return False
    libc.munmap(address, size)
    return True


def _threads_left(wanted: int) -> int:
    """Start up to `wanted` threads at once, end them, and say how many there were."""
    import _thread

    started: list[int] = []
    done = _thread.allocate_lock()
    done.acquire()

    # On a thread, where no handler of a signal can leave half of it undone. Not one of threading's,
    # whose finalizers would swallow what a handler raises here.
    def probe() -> None:
        try:
            started.append(1 + _start_and_end(wanted - 1))
        finally:
            done.release()

    try:
        _thread.start_new_thread(probe, ())
    except RuntimeError:  # "can't start new thread"
        return 0
    done.acquire()
    return started[0]


def _start_and_end(wanted: int) -> int:
    """`_threads_left`, with threads that run nothing but the C library's sem_wait: Python's own
    would all wait for the interpreter's lock first, which takes up to 30 ms."""
    import ctypes as c

    libc = c.CDLL(None)
    gate = (c.c_char * _SEMAPHORE)()
    threads = (c.c_ulong * wanted)()
    started = 0
    libc.sem_init(gate, 0, 0)
    while started < wanted:
        place = c.byref(threads, started * c.sizeof(c.c_ulong))
        if libc.pthread_create(place, None, libc.sem_wait, gate):
            break
        started += 1
    for _ in range(started):
        libc.sem_post(gate)
    for thread in threads[:started]:
        libc.pthread_join(c.c_ulong(thread), None)
    return started


def _limit(which: int) -> str:
    import resource

    soft = resource.getrlimit(which)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def _pids_max() -> str:
    """The lowest pids.max on the way up from this process's control group, for the message."""
    found: list[int] = []
    for directory in _pids_directories():
        while len(directory) > len("/sys/fs/cgroup"):
            try:
                # utf-8, which is always there: a codec would have to be imported, and this may be
                # a process that has just lost the right to read the standard library.
                with open(f"{directory}/pids.max", encoding="utf-8") as file:
                    text = file.read().strip()
            except OSError:
                text = "max"
            if text.isdigit():
                found.append(int(text))
            directory = directory.rpartition("/")[0]
    return str(min(found)) if found else "not set"


def _pids_directories() -> Iterator[str]:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield "/sys/fs/cgroup" + path.rstrip("/")
        elif "pids" in controllers.split(","):
            yield "/sys/fs/cgroup/pids" + path.rstrip("/")
