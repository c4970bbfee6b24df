"""``python -m theus check``: the golden rules, looked for in the text of programs.

Nothing is imported or run: a file is parsed, names are followed as far as one file tells, and a
rule speaks up only when it is sure. Neither numpy nor the library is needed.

    text -> Source (offsets) -> Scopes (names) -> Module (processes, calls) -> rules -> findings
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import files, fixes
from .config import Config, WrongUse
from .findings import RULES, Finding
from .module import Module
from .rules import ALL
from .source import Source

__all__ = ["RULES", "Checked", "Config", "Finding", "WrongUse", "check_paths", "check_text"]

_ROUNDS = 10  # of mends, each of which may make room for another


class Checked(NamedTuple):
    """What came of it: findings that are left, and how many were mended."""

    findings: list[Finding]
    fixed: int


def check_paths(
    paths: Sequence[str | Path], config: Config | None = None, *, fix: bool = False
) -> Checked:
    """Check files, and what is below directories.

    Args:
        paths: files and directories.
        config: which rules, and what to leave out.
        fix: whether to mend what can be mended, in the files.

    Raises:
        WrongUse: there is no such path, or a file cannot be read or written.
    """
    config = config or Config()
    found: list[Finding] = []
    fixed = 0
    for path in files.find([Path(path) for path in paths], config):
        try:
            text, encoding = files.read(path)
        except (SyntaxError, UnicodeDecodeError) as error:
            found += _unreadable(str(path), error, config)
            continue
        except OSError as error:
            raise WrongUse(f"{path} cannot be read: {error.strerror}") from None
        findings = check_text(text, str(path), config)
        if fix and any(finding.fix for finding in findings):
            new, mended = _fixed(text, str(path), config)
            try:
                files.write(path, new, encoding)
            except (OSError, UnicodeEncodeError) as error:
                raise WrongUse(f"{path} cannot be written: {error}") from None
            findings = check_text(new, str(path), config)
            fixed += mended
        found += findings
    return Checked(found, fixed)


def check_text(text: str, path: str = "<text>", config: Config | None = None) -> list[Finding]:
    """Check the text of one file; a file that never names theus has nothing to be found."""
    config = config or Config()
    if "theus" not in text:
        return []
    try:
        source = Source(path, text)
        module = Module(source)
        found = [f for rule in ALL for f in rule(module)] if _imports_theus(module) else []
    except (SyntaxError, ValueError) as error:
        return _unreadable(path, error, config)
    except RecursionError:
        return _unreadable(path, SyntaxError("it is nested too deeply"), config)
    allowed = source.allowed()
    wanted = {f for f in found if config.wants(f.code) and not _is_allowed(f, allowed)}
    return sorted(wanted, key=lambda f: (f.line, f.column, f.code))


def _fixed(text: str, path: str, config: Config) -> tuple[str, int]:
    total = 0
    for _ in range(_ROUNDS):
        text, mended = fixes.apply(text, check_text(text, path, config))
        if not mended:
            break
        total += mended
    return text, total


def _imports_theus(module: Module) -> bool:
    return any(
        binding.qualified.partition(".")[0] == "theus"
        for scope in {id(s): s for s in module.scope_of.values()}.values()
        for bindings in scope.bindings.values()
        for binding in bindings
    )


def _is_allowed(finding: Finding, allowed: dict[int, frozenset[str]]) -> bool:
    return any(
        line in allowed and (not allowed[line] or finding.code in allowed[line])
        for line in range(finding.line, finding.end_line + 1)
    )


def _unreadable(path: str, error: Exception, config: Config) -> list[Finding]:
    if not config.wants("TH000"):
        return []
    line = (getattr(error, "lineno", None) or 1) if isinstance(error, SyntaxError) else 1
    column = (getattr(error, "offset", None) or 1) if isinstance(error, SyntaxError) else 1
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    message = f"the file cannot be parsed: {what}. Nothing else of it was checked."
    return [Finding(path, line, column, line, column, "TH000", "error", message)]
