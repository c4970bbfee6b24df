"""Refuses bare `go` statements outside internal/guard.

A panic that nobody recovers ends the whole process, and here the process is somebody else's Python.
internal/guard starts goroutines that recover; so nothing else may start one. Tests may: a panic in
a test is a failed test.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

# gofmt has run: a statement starts a line, or follows `{`, `;` or a case's `:`.
_STATEMENT = re.compile(r"(?:^|[{;:])\s*go\s+[\w(]")
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|//[^\n]*|/\*.*?\*/', re.DOTALL)


def bare_go(source: str) -> Iterator[int]:
    """Yields the numbers of the lines with a go statement, ignoring strings and comments."""
    code = _LITERAL.sub(lambda text: "_" + "\n" * text[0].count("\n"), source)
    for number, line in enumerate(code.splitlines(), 1):
        if _STATEMENT.search(line):
            yield number


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    found = checked = 0
    for path in sorted(root.glob("[!.]*/**/*.go")):
        place = path.relative_to(root)
        if place.parts[0] == "build" or place.name.endswith("_test.go"):
            continue
        checked += 1
        if place.parts[:2] == ("internal", "guard"):
            continue
        for number in bare_go(path.read_text()):
            found += 1
            print(f"{place}:{number}: bare go statement; start it through internal/guard")
    if not checked:
        print("no Go file was found: this check looks in the wrong place")
    return 1 if found or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
