"""Findings as text for people, as JSON for machines, and as an exit status."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal

from .._version import __version__
from .findings import Finding

Verdict = Literal["ok", "degraded", "unusable"]

_WIDTH = 100
_TITLES = {
    "python": "Python",
    "kernel": "Kernel and sandbox",
    "limits": "Limits",
    "memory": "Memory",
    "live": "An engine, tried",
}
_SUMMARIES = {
    "ok": "All is well: theus works here.",
    "degraded": "theus works here; see the lines that say degraded.",
    "unusable": "theus does not work here; see the lines that say missing.",
}


def verdict(findings: Sequence[Finding]) -> Verdict:
    """What it all amounts to."""
    found = {finding.status for finding in findings}
    if "missing" in found:
        return "unusable"
    return "degraded" if "degraded" in found else "ok"


def exit_status(findings: Sequence[Finding], *, strict: bool) -> int:
    """0: theus works; 1: it does, but less well, and that was asked for; 2: it does not."""
    return {"ok": 0, "degraded": int(strict), "unusable": 2}[verdict(findings)]


def as_json(findings: Sequence[Finding]) -> str:
    """One object: ``theus`` (the version), ``verdict``, ``findings`` (a list of their fields)."""
    listed = [finding._asdict() for finding in findings]
    return json.dumps(
        {"theus": __version__, "verdict": verdict(findings), "findings": listed}, indent=2
    )


def as_text(findings: Sequence[Finding]) -> str:
    """One line for each finding, below it what that means and how to mend it."""
    return "\n".join(_lines(findings))


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    width = max((len(finding.name) for finding in findings if len(finding.name) <= 24), default=0)
    subject = ""
    for finding in findings:
        if finding.subject != subject:
            subject = finding.subject
            yield f"{_TITLES[subject]}"
        yield f"  {finding.status:<8}  {finding.name:<{width}}  {finding.value}".rstrip()
        if finding.meaning:
            yield from _paragraph(finding.meaning)
        if finding.mend:
            yield from _paragraph(f"To mend it: {finding.mend}")
    yield ""
    yield _SUMMARIES[verdict(findings)]


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * 12,
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )
