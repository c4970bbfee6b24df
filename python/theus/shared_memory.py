"""What people who come from ``multiprocessing.shared_memory`` look for on an array."""

from __future__ import annotations

from collections.abc import Callable

from .errors import ContractViolationError

__all__ = ["SharedMemoryInfo"]


class SharedMemoryInfo:
    """Looks like ``multiprocessing.shared_memory.SharedMemory``, but owns nothing.

    The memory has no name in the file system: it is freed when the last process that uses it is
    gone, and nobody has to, or can, remove it.

    Attributes:
        name: no real name; opening it fails, with a hint in place of the file's name.
    """

    __slots__ = ("_bytes", "_key", "name")

    def __init__(self, key: str | None, bytes_of_array: Callable[[], memoryview]) -> None:
        # shm_open takes one path component of at most 255 bytes.
        legal = "".join(c if c.isprintable() and c != "/" else "_" for c in key or "key")
        self.name = f"theus-use-ctx.heavy-{legal}".encode()[:240].decode(errors="ignore")
        self._key = key
        self._bytes = bytes_of_array

    @property
    def buf(self) -> memoryview:
        """The bytes under the array; writable if the array is."""
        return self._bytes()

    @property
    def size(self) -> int:
        """How many bytes those are."""
        return self._bytes().nbytes

    def close(self) -> None:
        """Does nothing: the memory goes with the last array over it."""

    def unlink(self) -> None:
        """Always refused: theus owns the memory, and there is nothing to remove.

        Raises:
            ContractViolationError: always; it is a PermissionError.
        """
        what = "this array" if self._key is None else f"heavy[{self._key!r}]"
        raise ContractViolationError(
            f"The memory behind {what} is owned by theus, and others may be using it. "
            "Remove the call to unlink(): it is freed when its last user is gone."
        )

    def __repr__(self) -> str:
        return f"SharedMemoryInfo(name={self.name!r})"
