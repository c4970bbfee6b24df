"""Mends: the edits of findings, put into a text."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from .findings import Edit, Finding

__all__ = ["apply"]


def apply(text: str, findings: Sequence[Finding]) -> tuple[str, int]:
    """Put as many mends into a text as go together.

    Args:
        text: of the file that the findings are of.
        findings: of that text, as it is.

    Returns:
        The new text, and how many findings it mends. It can be parsed if `text` could.
    """
    data = text.encode()
    taken: list[Edit] = []
    mended = 0
    for finding in findings:
        if finding.fix is None:
            continue
        edits = [edit for edit in finding.fix.edits if edit not in taken]
        if any(_overlap(edit, other) for edit in edits for other in taken):
            continue  # the next round looks at the text again
        if not _parses(_edited(data, [*taken, *edits])):
            continue
        taken += edits
        mended += 1
    return _edited(data, taken), mended


def _overlap(one: Edit, other: Edit) -> bool:
    return one.start == other.start or (one.start < other.end and other.start < one.end)


def _edited(data: bytes, edits: Sequence[Edit]) -> str:
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end), reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data.decode()


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
