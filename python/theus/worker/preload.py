"""The modules that are imported once, before workers fork from the zygote."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator

# While modules are imported these are 1: a library that starts threads then starts none, and a
# process with threads cannot be forked safely (one of them may hold a lock for ever in the child).
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "VECLIB_NUM_THREADS",
)


def set_environment(variables: dict[str, str] | None, threads: int | None) -> None:
    """Replace the environment.

    Args:
        variables: the new one; None keeps the present one.
        threads: value for those of THREAD_VARIABLES that `variables` lacks; None sets all of
            them to 1, whatever `variables` says.
    """
    if variables is not None:
        os.environ.clear()
        os.environ.update(variables)
    for name in THREAD_VARIABLES:
        if threads is None:
            os.environ[name] = "1"
        elif name not in (variables or {}):
            os.environ[name] = str(threads)


def import_modules(
    names: Iterable[str], *, stop_at_threads: bool
) -> Iterator[tuple[str, str | None]]:
    """Import modules one after the other and yield what went wrong: (module, text).

    Args:
        names: what to import.
        stop_at_threads: end after the first module that started threads; its text is None.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # a module may well call sys.exit()
            yield name, f"{type(error).__name__}: {error}"
        if stop_at_threads and has_threads():
            yield name, None
            return


def has_threads() -> bool:
    """Whether this process has more than one thread, Python's or any library's."""
    return len(os.listdir("/proc/self/task")) > 1


def preload(names: Iterable[str], warn: Callable[[str], None]) -> bool:
    """Import modules in the zygote. False: it has threads now, and must not fork."""
    for name, problem in import_modules(names, stop_at_threads=True):
        if problem is None:
            warn(
                f"importing {name!r} started threads, so workers cannot be forked after it: each "
                "is started as a fresh interpreter, which takes longer. Leave it out of preload= "
                "to have them forked."
            )
            return False
        warn(
            f"preload: {name!r} cannot be imported in worker processes ({problem}). Tasks that "
            "need it will fail; correct preload= or install it for this interpreter."
        )
    return True
