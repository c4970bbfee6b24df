"""Findings as text, JSON, annotations of GitHub, or SARIF."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from .._version import __version__
from .findings import RULES, Finding

__all__ = ["FORMATS"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_text(findings: Sequence[Finding], fixed: int = 0) -> str:
    """A line for each finding, and one that counts them."""
    lines = [f"{f.path}:{f.line}:{f.column}: {f.code} {f.severity}: {f.message}" for f in findings]
    fixable = sum(f.fix is not None for f in findings)
    if findings:
        count = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
        lines.append(count + (f", {fixable} of which --fix can mend." if fixable else "."))
    else:
        lines.append("Nothing was found.")
    if fixed:
        lines.append(f"{fixed} {'was' if fixed == 1 else 'were'} mended.")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding], fixed: int = 0) -> str:
    """One object: ``theus`` (the version), ``fixed`` (a number), ``findings`` (their fields)."""
    listed = [
        {**f._asdict(), "title": RULES[f.code].title, "fix": None if f.fix is None else f.fix.title}
        for f in findings
    ]
    return json.dumps({"theus": __version__, "fixed": fixed, "findings": listed}, indent=2)


def as_github(findings: Sequence[Finding], fixed: int = 0) -> str:
    """Commands that GitHub Actions turns into annotations of the files."""
    return "\n".join(
        f"::{f.severity} file={_property(f.path)},line={f.line},col={f.column},"
        f"endLine={f.end_line},endColumn={f.end_column},"
        f"title={_property(f'{f.code} {RULES[f.code].title}')}::{_data(f.message)}"
        for f in findings
    )


def as_sarif(findings: Sequence[Finding], fixed: int = 0) -> str:
    """A log in SARIF 2.1.0, which code scanners take."""
    listed = list(RULES)
    driver = {
        "name": "theus check",
        "version": __version__,
        "rules": [
            {
                "id": rule.code,
                "name": "".join(word.capitalize() for word in _words(rule.title)),
                "shortDescription": {"text": rule.title},
                "help": {"text": f"Instead: {rule.instead}."},
                "defaultConfiguration": {"level": rule.severity},
            }
            for rule in RULES.values()
        ],
    }
    results = [
        {
            "ruleId": f.code,
            "ruleIndex": listed.index(f.code),
            "level": f.severity,
            "message": {"text": f.message},
            "locations": [{"physicalLocation": _location(f)}],
        }
        for f in findings
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


FORMATS: dict[str, Callable[[Sequence[Finding], int], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}


def _location(finding: Finding) -> dict[str, Any]:
    path = PurePath(finding.path)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    return {
        "artifactLocation": {"uri": uri},
        "region": {
            "startLine": finding.line,
            "startColumn": finding.column,
            "endLine": finding.end_line,
            "endColumn": finding.end_column,
        },
    }


def _words(title: str) -> list[str]:
    return ["".join(c for c in word if c.isalnum()) for word in title.split()]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
