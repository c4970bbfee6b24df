"""Compares what libtheus.so exports with the functions that include/theus.h declares.

``check_abi.py LIBRARY``: exit status 1 and both differences when they are not the same list.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import elf

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_PREPROCESSOR = re.compile(r"^[ \t]*#(?:[^\\\n]|\\\n)*", re.MULTILINE)
_FUNCTION = re.compile(r"\b(theus_\w+)\s*\([^()]*\)\s*;")


def declared(header: str) -> set[str]:
    """Returns the names of the functions that the text of a header declares."""
    return set(_FUNCTION.findall(_PREPROCESSOR.sub("", _COMMENT.sub(" ", header))))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    header = Path(__file__).resolve().parent.parent / "include" / "theus.h"
    promised, exported = declared(header.read_text()), set(elf.read(Path(arguments[0])).exported)
    for name in sorted(promised - exported):
        print(f"{name}: declared in {header.name}, not exported by {arguments[0]}")
    for name in sorted(exported - promised):
        print(f"{name}: exported by {arguments[0]}, not declared in {header.name}")
    if not promised or promised != exported:
        return 1
    print(f"abi: {len(exported)} functions, the same in {header.name} and {arguments[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
