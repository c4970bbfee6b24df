"""What the kernel, and the sandbox around this process, let a program do. Each is tried once."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import select
from collections.abc import Callable, Iterator

from .findings import Finding, Status

_OLDEST = (5, 4)
_NOEXEC_SEAL = 0x8
_SEALS = {"shrink": 0x2, "grow": 0x4, "future_write": 0x10}
_F_ADD_SEALS, _F_SETSIG = 1033, 10
_SIGURG = 23
_MREMAP_MAYMOVE, _MREMAP_DONTUNMAP = 1, 4
_DONTDUMP, _WIPEONFORK = 16, 18
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_O_TMPFILE = 0o20200000

_SANDBOX = (
    "a sandbox forbids it, most likely: allow it in the system call filter (docker: "
    "--security-opt seccomp=profile.json; gVisor: run this container without it)"
)


def findings() -> list[Finding]:
    """Try everything."""
    return [_version(), *_memory_files(), _size_seals(), *(_tried(*row) for row in _TABLE)]


def _version() -> Finding:
    release = platform.release()
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    if tuple(numbers) >= _OLDEST:
        return Finding("kernel", "version", "ok", f"Linux {release}")
    return Finding(
        "kernel",
        "version",
        "degraded",
        f"Linux {release}",
        "theus is made for Linux 5.4 and later and was not tried on older ones",
        "run it on a newer kernel",
    )


def _memory_files() -> list[Finding]:
    """Anonymous files, or else unnamed ones on /dev/shm: one of the two is needed."""
    refusal = _refusal(_try_memfd)
    if not refusal:
        text = "arrays are anonymous memory: nothing is left behind, and /dev/shm is not used"
        return [Finding("kernel", "memfd_create", "ok", "works", text)]
    fallback = _refusal(_try_tmpfile)
    if not fallback:
        text = (
            "arrays are unnamed files on /dev/shm instead, so its size is their limit, and "
            "nothing seals them"
        )
        return [Finding("kernel", "memfd_create", "degraded", refusal, text, _SANDBOX)]
    return [
        Finding(
            "kernel",
            "memfd_create",
            "missing",
            refusal,
            f"there is no shared memory to be had; an unnamed file on /dev/shm failed too: "
            f"{fallback}",
            f"{_SANDBOX}; or mount a tmpfs on /dev/shm",
        )
    ]


def _size_seals() -> Finding:
    """As the engine takes it: of an anonymous file it insists on the seals (shm/segment.go), an
    unnamed one on /dev/shm has none, and whether they hold it does not ask."""
    name = "seals of the size"
    refusal = _refusal(_try_size_seals)
    if not refusal:
        return Finding("kernel", name, "ok", "works")
    if not _refusal(_try_memfd) and _refusal(_add_size_seals):
        text = "no array can be made: the size of each is sealed"
        return Finding("kernel", name, "missing", refusal, text, _SANDBOX)
    text = "a process that holds an array could cut it short under the others"
    return Finding("kernel", name, "degraded", refusal, text, _SANDBOX)


def _tried(
    name: str, attempt: Callable[[], None], otherwise: Status, without: str, mend: str
) -> Finding:
    refusal = _refusal(attempt)
    if not refusal:
        return Finding("kernel", name, "ok", "works")
    return Finding("kernel", name, otherwise, refusal, without, "" if otherwise == "ok" else mend)


def _refusal(attempt: Callable[[], None]) -> str:
    """Why an attempt failed; empty if it did not."""
    try:
        attempt()
    except OSError as failure:
        return f"refused: {failure.strerror or failure}"
    except (AttributeError, ValueError) as failure:
        return f"refused: {failure}"
    return ""


# ---- the attempts: each raises OSError if it is refused


@contextlib.contextmanager
def _memory_file(flags: int = 0) -> Iterator[int]:
    """A page of memory in an anonymous file, or where there are none in an unnamed one."""
    try:
        fd = os.memfd_create("theus-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    except OSError:
        if flags:
            raise
        fd = os.open("/dev/shm", _O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened_again(fd: int, flags: int) -> Iterator[int]:
    again = os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
    try:
        yield again
    finally:
        os.close(again)


@contextlib.contextmanager
def _mapped(fd: int, access: int, flags: int) -> Iterator[int]:
    address = _libc().mmap(None, mmap.PAGESIZE, access, flags, fd, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise _last_error()
    try:
        yield address
    finally:
        _libc().munmap(address, mmap.PAGESIZE)


def _try_memfd() -> None:
    os.close(os.memfd_create("theus-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def _try_tmpfile() -> None:
    os.close(os.open("/dev/shm", _O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600))


def _seal_size(fd: int) -> None:
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS["shrink"] | _SEALS["grow"])


def _add_size_seals() -> None:
    with _memory_file() as fd:
        _seal_size(fd)


def _try_size_seals() -> None:
    with _memory_file() as fd:
        _seal_size(fd)
        try:
            os.ftruncate(fd, 0)
        except PermissionError:
            return
        raise OSError(errno.ENOTSUP, "the seal was accepted, but the size can be changed")


def _try_future_write_seal() -> None:
    with _memory_file() as fd:
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS["future_write"])
        try:
            with _mapped(fd, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED):
                pass
        except PermissionError:
            return
        raise OSError(errno.ENOTSUP, "the seal was accepted, but the file can be mapped to write")


def _try_noexec_seal() -> None:
    with _memory_file(_NOEXEC_SEAL):
        pass


def _try_fallocate() -> None:
    with _memory_file() as fd:
        # Not posix_fallocate: the C library writes zeros where the kernel refuses; theus does not.
        if _libc().fallocate(fd, 0, 0, mmap.PAGESIZE) != 0:
            raise _last_error()


def _try_read_only_description() -> None:
    with _memory_file() as fd, _opened_again(fd, os.O_RDONLY) as reader:
        try:
            with _mapped(reader, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED):
                pass
        except PermissionError:
            return
        raise OSError(errno.ENOTSUP, "a read-only descriptor can be mapped to write")


def _try_mremap() -> None:
    shared = mmap.MAP_SHARED
    with _memory_file() as fd, _mapped(fd, mmap.PROT_READ | mmap.PROT_WRITE, shared) as address:
        size, how = mmap.PAGESIZE, _MREMAP_MAYMOVE | _MREMAP_DONTUNMAP
        moved = _libc().mremap(address, size, size, how, None)
        if moved in (None, ctypes.c_void_p(-1).value):
            raise _last_error()
        _libc().munmap(moved, size)


def _try_leases() -> None:
    """A read lease must be refused while there is a writer, and granted when there is none."""
    with _memory_file() as fd, _opened_again(fd, os.O_RDONLY) as reader:
        with _opened_again(fd, os.O_RDWR):
            try:
                _read_lease(reader)
            except BlockingIOError:
                pass
            else:
                raise OSError(errno.ENOTSUP, "a lease was granted while there was a writer")
        _read_lease(reader)


def _read_lease(fd: int) -> None:
    fcntl.fcntl(fd, _F_SETSIG, _SIGURG)  # not SIGIO, whose default is to end the process
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _try_pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _try_advice(advice: int) -> None:
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with _mapped(-1, mmap.PROT_READ | mmap.PROT_WRITE, private) as address:
        if _libc().madvise(address, mmap.PAGESIZE, advice) != 0:
            raise _last_error()


def _try_death_signal() -> None:
    """Set it to what it is, which changes nothing."""
    now = ctypes.c_int()
    if _libc().prctl(_PR_GET_PDEATHSIG, ctypes.byref(now), 0, 0, 0) != 0:
        raise _last_error()
    if _libc().prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(now.value), 0, 0, 0) != 0:
        raise _last_error()


def _try_events() -> None:
    libc = _libc()
    event = libc.eventfd(0, os.O_CLOEXEC | os.O_NONBLOCK)
    if event < 0:
        raise _last_error()
    try:
        with select.epoll() as poll:
            poll.register(event, select.EPOLLIN)
            os.write(event, (1).to_bytes(8, "little"))
            if not poll.poll(0):
                raise OSError(errno.ENOTSUP, "epoll does not see what an eventfd says")
    finally:
        os.close(event)


_NEWER = "use a newer kernel"
_TABLE: tuple[tuple[str, Callable[[], None], Status, str, str], ...] = (
    (
        "fallocate",
        _try_fallocate,
        "missing",
        "memory cannot be reserved beforehand, so that a full machine would end programs",
        _SANDBOX,
    ),
    (
        "read-only descriptors",
        _try_read_only_description,
        "missing",
        "workers could write what they must only read (theus opens /proc/self/fd/N)",
        "mount /proc; or " + _SANDBOX,
    ),
    (
        "FUTURE_WRITE seal",
        _try_future_write_seal,
        "degraded",
        "a worker that means to could open a published array for writing",
        f"{_NEWER} (5.1), or {_SANDBOX}",
    ),
    (
        "NOEXEC seal",
        _try_noexec_seal,
        "ok",
        "not needed: older kernels (before 6.3) do not know it",
        "",
    ),
    (
        "moving shared maps",
        _try_mremap,
        "ok",
        "not needed: older kernels (before 5.13) cannot, and publishing maps the array anew",
        "",
    ),
    (
        "file leases",
        _try_leases,
        "degraded",
        "large results are copied once when a worker hands them over",
        _SANDBOX,
    ),
    (
        "pidfd_open",
        _try_pidfd,
        "missing",
        "workers cannot be started: each is signalled and watched through one",
        f"{_NEWER} (5.3), or {_SANDBOX}",
    ),
    (
        "parent death signal",
        _try_death_signal,
        "degraded",
        "workers of a program that is killed may live on until they read from it",
        _SANDBOX,
    ),
    (
        "eventfd and epoll",
        _try_events,
        "missing",
        "nothing can be waited for",
        _SANDBOX,
    ),
    (
        "WIPEONFORK",
        lambda: _try_advice(_WIPEONFORK),
        "degraded",
        "children of fork() get an error when they use the engine; one that was made by a bare "
        "clone() hangs",
        f"{_NEWER} (4.14), or {_SANDBOX}",
    ),
    (
        "DONTDUMP",
        lambda: _try_advice(_DONTDUMP),
        "degraded",
        "a core dump contains the shared arrays, and takes seconds",
        f"ulimit -c 0; or {_SANDBOX}",
    ),
)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    address, length, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes = (address, length, number, number, number, ctypes.c_long)
    libc.munmap.argtypes = (address, length)
    libc.mremap.argtypes = (address, length, length, number, address)
    libc.madvise.argtypes = (address, length, number)
    libc.fallocate.argtypes = (number, number, ctypes.c_long, ctypes.c_long)
    return libc


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
