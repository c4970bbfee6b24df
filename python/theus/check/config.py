"""What a project says of the checker, in ``[tool.theus.check]`` of its pyproject.toml."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .findings import RULES

__all__ = ["Config", "WrongUse", "codes", "find"]

_FILE = "pyproject.toml"
_KEYS = ("select", "ignore", "exclude")


class WrongUse(Exception):
    """The command line or the configuration is wrong; the text says how."""


class Config(NamedTuple):
    """Which rules are looked for, and where.

    Attributes:
        select: codes; what begins with one of them is looked for.
        ignore: codes; what begins with one of them is not, whatever is selected.
        exclude: patterns of paths, from `root`.
        root: the directory of the pyproject.toml.
        note: something to tell the user.
    """

    select: tuple[str, ...] = ("TH",)
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    root: Path = Path()
    note: str = ""

    def wants(self, code: str) -> bool:
        """Whether a rule is looked for."""
        return code.startswith(self.select) and not (self.ignore and code.startswith(self.ignore))

    def excludes(self, path: Path) -> bool:
        """Whether a file or directory is left out."""
        if not self.exclude:
            return False
        absolute = path.absolute()
        try:
            relative = absolute.relative_to(self.root.absolute())
        except ValueError:
            return False
        texts = [relative.as_posix(), *(parent.as_posix() for parent in relative.parents)]
        names = relative.parts
        return any(
            fnmatch.fnmatch(text, pattern.rstrip("/"))
            for pattern in self.exclude
            for text in (*texts, *names)
        )


def codes(given: Iterable[str], where: str) -> tuple[str, ...]:
    """Codes, or the beginnings of codes.

    Raises:
        WrongUse: no rule is called so.
    """
    found = tuple(code.strip().upper() for code in given if code.strip())
    for code in found:
        if not any(known.startswith(code) for known in RULES):
            raise WrongUse(f"{where}: there is no rule {code!r}. Rules are TH001 to {max(RULES)}.")
    return found


def find(paths: Sequence[Path]) -> Config:
    """The configuration of the project that the first of some paths is in.

    Raises:
        WrongUse: it cannot be read, or says what it cannot say.
    """
    start = (paths[0] if paths else Path()).resolve()
    for directory in (start, *start.parents):
        file = directory / _FILE
        if file.is_file():
            return read(file)
    return Config()


def read(file: Path) -> Config:
    """The configuration in one file; the usual one if it has no such table.

    Raises:
        WrongUse: it cannot be read, or says what it cannot say.
    """
    toml = _toml()
    text = _text(file)
    if toml is None:
        note = f"{file} is not read: Python 3.10 needs the package tomli for that."
        return Config(root=file.parent, note=note if "tool.theus.check" in text else "")
    try:
        table = toml.loads(text)
    except ValueError as error:
        raise WrongUse(f"{file}: {error}") from None
    for name in ("tool", "theus", "check"):
        table = table.get(name, {}) if isinstance(table, dict) else {}
    where = f"{file}, [tool.theus.check]"
    if not isinstance(table, dict):
        raise WrongUse(f"{where} is not a table")
    for key, value in table.items():
        if key not in _KEYS:
            raise WrongUse(f"{where} has {key!r}; it can have {', '.join(_KEYS)}.")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise WrongUse(f"{where}: {key} is a list of texts, not {value!r}.")
    return Config(
        select=codes(table.get("select", ["TH"]), f"{where}, select"),
        ignore=codes(table.get("ignore", []), f"{where}, ignore"),
        exclude=tuple(table.get("exclude", [])),
        root=file.parent,
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"{file} cannot be read: {error}") from None


def _toml() -> Any:
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
