"""A sandbox as containers and cloud functions have them: the kernel refuses some system calls.

`refusing(...)` gives a prefix for the commands of `programs`. Run as a program, this file puts the
filter (seccomp) in place and becomes the program that is named behind it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import NamedTuple

NUMBERS = {
    "x86_64": {
        "clone": 56,
        "clone3": 435,
        "fallocate": 285,
        "fcntl": 72,
        "madvise": 28,
        "memfd_create": 319,
        "mremap": 25,
        "pidfd_open": 434,
        "semget": 64,
        "shmget": 29,
    },
    "aarch64": {
        "clone": 220,
        "clone3": 435,
        "fallocate": 47,
        "fcntl": 25,
        "madvise": 233,
        "memfd_create": 279,
        "mremap": 216,
        "pidfd_open": 434,
        "semget": 190,
        "shmget": 194,
    },
}
F_SETLEASE, F_ADD_SEALS, MADV_WIPEONFORK = 1024, 1033, 18

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


class Refused(NamedTuple):
    """A system call that fails, always or with one value of one of its arguments."""

    call: str
    error: int
    argument: int | None = None
    value: int = 0

    def text(self) -> str:
        argument = "" if self.argument is None else f":{self.argument}:{self.value}"
        return f"{self.call}:{errno.errorcode[self.error]}{argument}"

    @classmethod
    def parse(cls, text: str) -> Refused:
        call, error, *argument = text.split(":")
        return cls(call, getattr(errno, error), *map(int, argument))

    def instructions(self) -> list[tuple[int, int, int, int]]:
        """Fail if it is this call, else go on behind them."""
        number = NUMBERS[platform.machine()][self.call]
        test = []
        if self.argument is not None:  # its lower half; both machines are little-endian
            test = [
                (_LOAD, 0, 0, 16 + 8 * self.argument),
                (_JUMP_IF_EQUAL, 0, 1, self.value),
            ]
        rest = [*test, (_RETURN, 0, 0, _FAIL | self.error)]
        return [(_LOAD, 0, 0, 0), (_JUMP_IF_EQUAL, 0, len(rest), number), *rest]


def refusing(*refused: Refused) -> list[str]:
    """A prefix under which a program and its children are refused these calls."""
    return [sys.executable, __file__, *(r.text() for r in refused), "--"]


def confine(refused: list[Refused]) -> None:
    """Put the filter in place, for this process and all that come of it.

    Raises:
        OSError: the kernel has no filters of system calls.
    """
    program = [i for r in refused for i in r.instructions()] + [(_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in program))
    filters = ctypes.create_string_buffer(
        struct.pack("@HP", len(program), ctypes.addressof(code)), struct.calcsize("@HP")
    )
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(filters), 0, 0),
    ):
        if libc.prctl(*(ctypes.c_ulong(a) for a in arguments)):
            number = ctypes.get_errno()
            raise OSError(number, f"prctl: {os.strerror(number)}")


if __name__ == "__main__":
    end = sys.argv.index("--")
    confine([Refused.parse(text) for text in sys.argv[1:end]])
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
