"""Which files are checked, and their text."""

from __future__ import annotations

import os
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from .config import Config, WrongUse

__all__ = ["find", "read", "write"]

_SKIPPED = {
    *("__pycache__", "build", "dist", "node_modules", "site-packages", "venv", "env"),
    *("__pypackages__",),
}


def find(paths: Iterable[Path], config: Config) -> list[Path]:
    """The Python files that paths mean, each once: files as given, and what is below directories.

    Raises:
        WrongUse: there is no such path.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_below(path, config)))
        elif path.is_file():
            if not config.excludes(path):
                found[path] = None
        else:
            raise WrongUse(f"{path}: there is no such file or directory")
    return list(found)


def _below(directory: Path, config: Config) -> Iterator[Path]:
    for here, names, files in os.walk(directory):
        around = Path(here)
        names[:] = sorted(
            name
            for name in names
            if name not in _SKIPPED
            and not name.startswith(".")
            and not config.excludes(around / name)
        )
        for name in sorted(files):
            if name.endswith(".py") and not config.excludes(around / name):
                yield around / name


def read(path: Path) -> tuple[str, str]:
    """The text of a file, with its own line ends, and its encoding.

    Raises:
        OSError, SyntaxError, UnicodeDecodeError: it cannot be read as Python.
    """
    with path.open("rb") as file:
        encoding, _ = tokenize.detect_encoding(file.readline)
        file.seek(0)
        return file.read().decode(encoding), encoding


def write(path: Path, text: str, encoding: str) -> None:
    """Replace the text of a file; whoever reads it meanwhile reads all of one of the two."""
    new = path.with_name(f".{path.name}.theus-check")
    try:
        with new.open("wb") as file:
            file.write(text.encode(encoding))
        new.chmod(path.stat().st_mode & 0o7777)
        new.replace(path.resolve())
    finally:
        new.unlink(missing_ok=True)
