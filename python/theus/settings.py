"""What an engine is opened with: its options, the environment's, and what it finds by itself."""

from __future__ import annotations

import operator
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from .errors import TheusError

__all__ = ["Settings", "parse_size"]

_UNITS = {"": 0, "B": 0, "K": 10, "KB": 10, "M": 20, "MB": 20, "G": 30, "GB": 30, "T": 40, "TB": 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?B)?\s*", re.IGNORECASE)
_MAX_SEED = 2**64 - 1
# The library takes 0 for "draw one", but a user's 0 is a seed like any other.
_SEED_FOR_ZERO = 0x9E3779B97F4A7C15


class Settings(NamedTuple):
    """The options of one engine, checked and complete.

    Attributes:
        workers: how many; 0 lets the library count the CPUs that this process may use.
        heap_bytes: limit of the engine's shared memory; 0: what the machine can give.
        seed: root of the tasks' random streams, never 0.
        preload: modules that are imported once, before workers start.
        name: for messages and stats.
        processes: False: functions run on threads of this process.
    """

    workers: int
    heap_bytes: int
    seed: int
    preload: tuple[str, ...]
    name: str
    processes: bool

    @classmethod
    def of(
        cls,
        *,
        workers: int | None,
        heap: int | str | None,
        seed: int | None,
        preload: Iterable[str],
        name: str | None,
    ) -> Settings:
        """Check what the constructor was given, and fill in from the environment.

        Raises:
            TypeError, ValueError: an option, or a variable of the environment, makes no sense.
        """
        if isinstance(preload, str):
            raise TypeError(f"preload takes a list of module names, not the string {preload!r}")
        return cls(
            workers=_workers(workers),
            heap_bytes=_heap(heap),
            seed=_seed(seed),
            preload=tuple(preload),
            name=name or "theus",
            processes=os.environ.get("THEUS_USE_PROCESSES", "1").strip() != "0",
        )


def parse_size(text: str) -> int:
    """Bytes of a size like ``"4GB"``, ``"512 MiB"`` or ``"1.5G"``; units are powers of 1024.

    Raises:
        ValueError: it is no such size.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size; write bytes as a number, or e.g. '4GB', '512MB'")
    return int(float(found[1]) * (1 << _UNITS[found[2].upper()]))


def interpreter() -> str:
    """The Python that workers run on.

    Raises:
        TheusError: this program is not a plain Python interpreter, so it cannot be asked to be one.
    """
    chosen = os.environ.get("THEUS_PYTHON")
    if chosen:
        return chosen
    if getattr(sys, "frozen", False) or not sys.executable:
        raise TheusError(
            "this is a frozen or embedded Python: starting it again for the workers would start "
            "the whole program again. Set THEUS_PYTHON to a Python interpreter that has theus."
        )
    return sys.executable


def search_path() -> list[str]:
    """sys.path with absolute entries, for workers: they may have another working directory."""
    here = working_directory()
    return [os.path.join(here, p) for p in sys.path if isinstance(p, str)]


def working_directory() -> str:
    """Where this process is, or the root when that place was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def environment() -> list[bytes]:
    """``NAME=value`` of every variable; the library saw only those at the start of the program.

    What this interpreter was told by -B, -W and -X utf8 is put as the variables say it.
    """
    variables = dict(os.environb)
    if sys.dont_write_bytecode:
        variables[b"PYTHONDONTWRITEBYTECODE"] = b"1"
    if sys.warnoptions:  # those of PYTHONWARNINGS are among them
        variables[b"PYTHONWARNINGS"] = os.fsencode(",".join(sys.warnoptions))
    if "utf8" in sys._xoptions:
        variables[b"PYTHONUTF8"] = b"%d" % sys.flags.utf8_mode
    return [name + b"=" + value for name, value in variables.items()]


def _workers(workers: int | None) -> int:
    if workers is None:
        return _count(os.environ.get("THEUS_POOL_SIZE"), "THEUS_POOL_SIZE")
    number = _whole(workers, "workers")
    if number < 1:
        raise ValueError(f"workers must be at least 1, not {number}; leave it out for one per CPU")
    return number


def _heap(heap: Any) -> int:
    if heap is None:
        return _count(os.environ.get("THEUS_HEAP_SIZE"), "THEUS_HEAP_SIZE") << 20
    size = parse_size(heap) if isinstance(heap, str) else _whole(heap, "heap")
    if size < 1:
        raise ValueError(f"heap must be more than 0 bytes, not {heap!r}")
    return size


def _seed(seed: Any) -> int:
    if seed is None:
        return int.from_bytes(os.urandom(8), "little") or 1
    number = _whole(seed, "seed")
    if not 0 <= number <= _MAX_SEED:
        raise ValueError(f"seed must be between 0 and 2**64 - 1, not {number}")
    return number or _SEED_FOR_ZERO


def _whole(value: Any, option: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{option} must be a whole number, not {value!r}") from None


def _count(text: str | None, variable: str) -> int:
    if not text:
        return 0
    if not text.strip().isdigit() or int(text) < 1:
        raise ValueError(
            f"the environment variable {variable} must be a whole number, not {text!r}"
        )
    return int(text)
