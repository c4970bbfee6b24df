"""The rules, a module for each subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..findings import Finding
from ..module import Module
from . import captures, contracts, heavy, memory, module_globals, programs, sending

__all__ = ["ALL"]

ALL: tuple[Callable[[Module], Iterator[Finding]], ...] = (
    captures.check,
    module_globals.check,
    sending.check,
    heavy.check,
    memory.check,
    contracts.check,
    programs.check,
)
