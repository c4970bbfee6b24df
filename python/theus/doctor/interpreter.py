"""The Python that runs this, and what theus needs to find in it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from .._version import __version__
from .findings import Finding

_OLDEST_PYTHON = (3, 10)
_REQUIRED = {"numpy": (1, 24), "cloudpickle": (3, 0)}
_PROCESSORS = ("x86_64", "aarch64")


def findings() -> list[Finding]:
    """Look at the interpreter, the packages and the machine that it is made for."""
    return [
        _python(),
        *(_package(name, oldest) for name, oldest in _REQUIRED.items()),
        _c_library(),
        _processor(),
        _library(),
    ]


def _python() -> Finding:
    build = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"
    value = f"{platform.python_implementation()} {platform.python_version()}{build}"
    if sys.version_info < _OLDEST_PYTHON or platform.python_implementation() != "CPython":
        text, more = "theus is made for CPython 3.10 and later", "use another interpreter"
        return Finding("python", "interpreter", "missing", value, text, more)
    if getattr(sys, "frozen", False) and not os.environ.get("THEUS_PYTHON"):
        text = "this is a frozen program: it cannot be started again as a worker"
        more = "set THEUS_PYTHON to a Python interpreter that has theus"
        return Finding("python", "interpreter", "missing", value, text, more)
    return Finding("python", "interpreter", "ok", value)


def _package(name: str, oldest: tuple[int, int]) -> Finding:
    wanted = ".".join(map(str, oldest))
    more = f'{sys.executable} -m pip install "{name}>={wanted}"'
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("python", name, "missing", "not installed", "theus is built on it", more)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < oldest:
        text = f"theus needs {wanted} or later"
        return Finding("python", name, "missing", version, text, more)
    return Finding("python", name, "ok", version)


def _c_library() -> Finding:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        version = None
    if version and version.startswith("glibc"):
        return Finding("python", "C library", "ok", version)
    return Finding(
        "python",
        "C library",
        "missing",
        "not glibc (musl, as on Alpine)",
        "the Go runtime inside the library cannot be loaded there",
        "use a Debian-based image, e.g. python:3-slim",
    )


def _processor() -> Finding:
    machine = platform.machine()
    if machine in _PROCESSORS:
        return Finding("python", "processor", "ok", machine)
    text = f"theus is made for {' and '.join(_PROCESSORS)}"
    return Finding("python", "processor", "degraded", machine, text, "build it from source")


def _library() -> Finding:
    # Not by the module that loads it: that one needs numpy, which may be what is missing.
    beside = os.path.join(os.path.dirname(os.path.dirname(__file__)), "libtheus.so")
    path = os.environ.get("THEUS_LIBRARY") or beside
    if os.path.isfile(path):
        return Finding("python", "library", "ok", f"{path}, version {__version__}")
    text = "this is a source tree or an incomplete installation"
    more = f"{sys.executable} -m pip install --force-reinstall theus-go"
    return Finding("python", "library", "missing", f"{path} is not there", text, more)
