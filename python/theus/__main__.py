"""``python -m theus``: where the C header and the library are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ._version import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="theus", description="Shared arrays and worker processes: the command line of theus."
    )
    parser.add_argument("--version", action="version", version=f"theus {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("includes", help="print the directory of theus.h, for cc -I")
    commands.add_parser("libs", help="print the path of the shared library, to link with")
    command = parser.parse_args(argv).command
    if command is None:
        parser.print_help()
        return 2
    found = {"includes": _includes, "libs": _library}[command]()
    if found is None:
        print(
            f"theus {command}: not found beside {Path(__file__).parent}; this is a source tree or "
            "an incomplete installation. Install it with pip install theus-go.",
            file=sys.stderr,
        )
        return 1
    print(found)
    return 0


def _includes() -> Path | None:
    here = Path(__file__).resolve().parent
    candidates = (here / "include", here.parent.parent / "include")
    return next((c for c in candidates if (c / "theus.h").is_file()), None)


def _library() -> Path | None:
    library = Path(__file__).resolve().parent / "libtheus.so"
    return library if library.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
