"""How many threads the linear algebra libraries of a worker use."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re

# (a part of the library's file name, functions that set the number of threads). numpy's and
# scipy's own builds of OpenBLAS have prefixes and suffixes on their names. (Those with an
# underscore right after "threads" are for Fortran and take a pointer.)
_SETTERS = (
    (
        "openblas",
        (
            "openblas_set_num_threads",
            "openblas_set_num_threads64_",
            "scipy_openblas_set_num_threads",
            "scipy_openblas_set_num_threads64_",
        ),
    ),
    ("libmkl_rt", ("MKL_Set_Num_Threads",)),
    ("libblis", ("bli_thread_set_num_threads",)),
    ("libgomp", ("omp_set_num_threads",)),
    ("libomp", ("omp_set_num_threads",)),
    ("libiomp", ("omp_set_num_threads",)),
)

_RTLD_NOLOAD = 4
_KMP = "KMP_DUPLICATE_LIB_OK"


def set_threads(threads: int) -> None:
    """Set the number of threads of all such libraries that are loaded.

    They are loaded with one thread, before the fork; starting threads in the child is safe.
    """
    known = _KMP in os.environ
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        for path in _loaded_libraries():
            _set_in_library(path, threads)
    else:
        threadpoolctl.threadpool_limits(limits=threads)
        if not known:  # set by threadpoolctl for itself; user code would hand it to its children
            os.environ.pop(_KMP, None)


def wanted(environment: dict[str, str] | None, threads: int) -> int:
    """The user's own setting, else the engine's share of the processors."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        value = (environment or os.environ).get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return max(1, threads)


def _loaded_libraries() -> set[str]:
    names = "|".join(re.escape(name) for name, _ in _SETTERS)
    pattern = re.compile(rf"(/\S*/[^/\s]*(?:{names})[^/\s]*\.so[^/\s]*)$", re.MULTILINE)
    with open("/proc/self/maps") as maps:
        return set(pattern.findall(maps.read()))


def _set_in_library(path: str, threads: int) -> None:
    try:
        library = ctypes.CDLL(path, mode=_RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return
    for part, functions in _SETTERS:
        if part in os.path.basename(path):
            for function in functions:
                with contextlib.suppress(AttributeError):
                    getattr(library, function)(ctypes.c_long(threads))
