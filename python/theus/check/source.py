"""The text of a file, and where in it the nodes of its syntax tree are."""

from __future__ import annotations

import ast
import io
import re
import tokenize

__all__ = ["Source"]

_ALLOW = re.compile(r"#\s*theus:\s*allow\b[ \t]*((?:TH\d{3}[,\s]*)*)", re.IGNORECASE)
_NEWLINE = re.compile(rb"\r\n|\r|\n")

Position = tuple[int, int]


class Source:
    """A file that was parsed.

    The tree counts columns in bytes of UTF-8, so all places in here are offsets into `data`.

    Args:
        path: what to call it.
        text: its text, line ends as they are in the file.

    Raises:
        SyntaxError: it is no Python.
    """

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.data = text.encode()
        self.tree = ast.parse(text, filename=path)
        self._starts = [0, *(match.end() for match in _NEWLINE.finditer(self.data))]

    def offset(self, line: int, column: int) -> int:
        """Where a place of the tree is in the bytes."""
        return self._starts[line - 1] + column

    def span(self, node: ast.AST) -> tuple[int, int]:
        """First byte of a node, and the one after its last."""
        line, column, end_line, end_column = place(node)
        return self.offset(line, column), self.offset(end_line, end_column)

    def segment(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode()

    def character(self, line: int, column: int) -> int:
        """A column in characters, from 1."""
        start = self._starts[line - 1]
        return len(self.data[start : start + column].decode(errors="replace")) + 1

    def lines_of(self, statement: ast.stmt) -> tuple[int, int] | None:
        """The bytes of the lines of a statement; None if it shares them with something else."""
        start, end = self.span(statement)
        first = self._starts[statement.lineno - 1]
        if self.data[first:start].strip():
            return None
        after = _NEWLINE.search(self.data, end)
        last = len(self.data) if after is None else after.end()
        rest = self.data[end:last].strip()
        return None if rest and not rest.startswith(b"#") else (first, last)

    def indent(self, statement: ast.stmt) -> str:
        """What stands before a statement that begins its line."""
        first = self._starts[statement.lineno - 1]
        return self.data[first : self.offset(statement.lineno, statement.col_offset)].decode()

    def allowed(self) -> dict[int, frozenset[str]]:
        """Lines with ``# theus: allow``, and the codes they name; none named: all are meant."""
        found: dict[int, frozenset[str]] = {}
        if "theus:" not in self.text:
            return found
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(self.text).readline))
        except (tokenize.TokenError, IndentationError):
            return found
        for token in tokens:
            match = _ALLOW.search(token.string) if token.type == tokenize.COMMENT else None
            if match:
                codes = match[1].upper().replace(",", " ").split()
                found[token.start[0]] = frozenset(codes)
        return found


def place(node: ast.AST) -> tuple[int, int, int, int]:
    """Line, column, last line, and column after the last, of a node that has a place."""
    line = getattr(node, "lineno", 1)
    column = getattr(node, "col_offset", 0)
    end_line = getattr(node, "end_lineno", None) or line
    end_column = getattr(node, "end_col_offset", None)
    return line, column, end_line, column if end_column is None else end_column


def begin(node: ast.AST) -> Position:
    """Where a node begins, to be compared."""
    return place(node)[:2]


def end(node: ast.AST) -> Position:
    """Where a node ends, to be compared."""
    return place(node)[2:]
