"""Compiles libtheus.so, for the wheel (hatch_build.py) and for the tests (Makefile).

As a program: ``library.py OUTPUT [TAG...]`` builds the checkout with Go build tags.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import compilers


class BuildFailed(Exception):
    """The Go toolchain reported an error; its own words went to stderr."""


def build(
    root: Path, output: Path, *, version: str, cache: Path, tags: tuple[str, ...] = ()
) -> None:
    """Compiles the library of the checkout at ``root`` to ``output``, stripped.

    Args:
        root: Where go.mod is.
        output: The file to make; it appears complete or not at all.
        version: What ``theus_version()`` will say.
        cache: Used for Go's caches where the user has none.
        tags: Go build tags.

    Raises:
        compilers.ToolMissing: There is no Go or no C compiler.
        BuildFailed: The sources do not compile, or their modules cannot be fetched.
    """
    tools = compilers.find(root)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Go writes a header beside the library, which nobody wants: include/theus.h is the header.
    with tempfile.TemporaryDirectory(prefix="theus-build-", dir=output.parent) as directory:
        library = Path(directory, output.name)
        command = [
            str(tools.go),
            "build",
            "-buildmode=c-shared",
            "-trimpath",
            # Whether git trusts the directory's owner must not decide whether the build works.
            "-buildvcs=false",
            f"-tags={','.join(tags)}",
            f"-ldflags={_linker_flags(root, version)}",
            "-o",
            str(library),
            "./capi",
        ]
        done = subprocess.run(
            command, cwd=root, env=os.environ | tools.environment(cache), check=False
        )
        if done.returncode:
            raise BuildFailed(
                f"`go build` of {root} failed with status {done.returncode}; its messages are"
                " above. If they name a host: the first build downloads the modules in go.mod,"
                " from $GOPROXY when it is set."
            )
        library.replace(output)


def source_version(root: Path) -> str:
    """Returns ``__version__`` of the checkout, without importing it."""
    path = root / "python" / "theus" / "_version.py"
    found = re.search(r'^__version__(?:: \w+)? = "([^"]+)"', path.read_text(), re.M)
    if not found:
        raise BuildFailed(f'{path} has no line `__version__ = "..."`')
    return found[1]


def _linker_flags(root: Path, version: str) -> str:
    """The version script goes through -extldflags: cgo refuses it in a #cgo line, and the linker
    runs in a directory of its own, so its path is absolute; quotes guard spaces in it."""
    script = f"-Wl,--version-script={root / 'capi' / 'exports.map'}"
    return f"-s -w -X main.version={version} \"-extldflags='{script}'\""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    root = Path(__file__).resolve().parent.parent
    try:
        build(
            root,
            Path(arguments[0]).resolve(),
            version=source_version(root),
            cache=root / "build" / ".cache",
            tags=tuple(arguments[1:]),
        )
    except (compilers.ToolMissing, BuildFailed) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
