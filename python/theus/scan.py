"""Importing a directory of process files that is no package."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from .contracts import contract_of

__all__ = ["import_tree"]


def import_tree(directory: str) -> list[Callable[..., Any]]:
    """The decorated functions of every Python file below a directory.

    The modules get names of their own, so files may be called as they like. Workers cannot import
    those names, so what is in the files travels by value.

    Raises:
        NotADirectoryError: there is no such directory.
        ImportError: a file cannot be imported; says which.
    """
    root = Path(directory).resolve()
    if not root.is_dir():
        raise NotADirectoryError(f"scan_and_register: there is no directory {directory!r}")
    found: list[Callable[..., Any]] = []
    for file in sorted(root.rglob("*.py")):
        if any(part.startswith("__") for part in file.relative_to(root).parts):
            continue
        module = _import(file)
        found += [
            value
            for value in vars(module).values()
            if contract_of(value) is not None and value.__module__ == module.__name__
        ]
    return found


def _import(file: Path) -> ModuleType:
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    name = f"theus_scanned_{digest}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"scan_and_register: {file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class' module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as failure:
        del sys.modules[name]
        if not isinstance(failure, Exception):
            raise
        raise ImportError(
            f"scan_and_register: {file} cannot be imported: {type(failure).__name__}: {failure}"
        ) from failure
    cloudpickle.register_pickle_by_value(module)
    return module
