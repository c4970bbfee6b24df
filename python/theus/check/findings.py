"""What the checker can find: its rules, and one finding of one of them."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["RULES", "Edit", "Finding", "Fix", "Rule", "Severity"]

Severity = Literal["error", "warning"]


class Rule(NamedTuple):
    """One thing that is looked for.

    Attributes:
        code: ``TH001`` and on; a code never changes its meaning.
        title: what is wrong, in a few words.
        severity: error: it raises, or its effect is lost. warning: it works, but not as meant.
        instead: what to do instead.
    """

    code: str
    title: str
    severity: Severity
    instead: str


class Edit(NamedTuple):
    """Bytes of a file's UTF-8 text that are replaced."""

    start: int
    end: int
    text: str


class Fix(NamedTuple):
    """A mend that needs no thought: what it does, and its edits."""

    title: str
    edits: tuple[Edit, ...]


class Finding(NamedTuple):
    """One place that breaks a rule. Lines and columns count from 1, columns in characters."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    code: str
    severity: Severity
    message: str
    fix: Fix | None = None


_LISTED = (
    Rule("TH000", "the file cannot be parsed", "error", "mend the syntax"),
    Rule(
        "TH001",
        "a parallel process uses what belongs to one process",
        "error",
        "make the lock, file, socket, connection, generator or thread inside the process",
    ),
    Rule(
        "TH002",
        "what belongs to one process is sent, or put into the state",
        "error",
        "send the path or address that it is made from",
    ),
    Rule(
        "TH003",
        "a parallel process writes a global",
        "warning",
        "return the value; name its path in outputs=[…] if it belongs into the state",
    ),
    Rule(
        "TH004",
        "a parallel process captures a large array",
        "warning",
        "publish it with engine.heavy.put and read ctx.heavy",
    ),
    Rule("TH005", "data where names belong", "error", "name state paths or call arguments"),
    Rule(
        "TH006",
        "an array as an argument of a parallel process",
        "warning",
        "publish it with engine.heavy.put and read ctx.heavy",
    ),
    Rule(
        "TH007",
        "a write to ctx.heavy",
        "error",
        "write to ctx.heavy.cow(key), a private view, or return a new array",
    ),
    Rule(
        "TH008",
        "a write to an array that is published",
        "error",
        "make the next version: with engine.heavy.edit(key) as array",
    ),
    Rule(
        "TH009",
        "shared memory by hand",
        "error",
        "engine.heavy.alloc, which needs no name and no cleaning up",
    ),
    Rule("TH010", "cleaning up after engine.heavy by hand", "error", "leave it out"),
    Rule(
        "TH011",
        "a parallel process writes ctx.domain",
        "error",
        "return the value and name its path in outputs=[…]",
    ),
    Rule("TH012", "a write that the outputs do not cover", "error", "name the path in outputs=[…]"),
    Rule("TH013", "a read that the inputs do not name", "error", "name the path in inputs=[…]"),
    Rule(
        "TH014",
        "a parameter that is called like an option of the engine",
        "error",
        "rename it: timeout, retries and cas_retries are taken by the engine",
    ),
    Rule(
        "TH015",
        "an engine that is opened by an import",
        "warning",
        "open it in the program: workers import the module of a process",
    ),
    Rule(
        "TH016",
        "a fork while the library is loaded",
        "warning",
        "fork before the engine is opened, or use spawn or forkserver",
    ),
    Rule("TH017", "engine.execute() without await", "error", "await it, or call engine.run()"),
)

RULES: dict[str, Rule] = {rule.code: rule for rule in _LISTED}
