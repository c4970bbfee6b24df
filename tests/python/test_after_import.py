"""What is done once a module is loaded, whoever loads it: how numpy.random comes to be seeded."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from theus.worker.seeding import _AfterImport

AWAITED, OTHER = "theus_test_awaited", "theus_test_other"


class Loader:
    """One for all its modules, that takes no attributes."""

    __slots__ = ()

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        module.value = 5  # type: ignore[attr-defined]


class Finder:
    loader: Any = Loader()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self.loader) if name in (AWAITED, OTHER) else None


@pytest.fixture
def calls() -> Iterator[list[str]]:
    before = list(sys.meta_path)
    calls: list[str] = []
    sys.meta_path[:0] = [_AfterImport(AWAITED, lambda: calls.append("then")), Finder()]  # type: ignore[list-item]
    yield calls
    sys.meta_path[:] = before
    for name in (AWAITED, OTHER):
        sys.modules.pop(name, None)


def test_it_is_done_once_and_the_loader_is_put_back(calls: list[str]) -> None:
    assert importlib.util.find_spec(AWAITED) is not None
    assert importlib.import_module(OTHER).value == 5
    assert calls == []
    module = importlib.import_module(AWAITED)
    assert module.value == 5
    assert calls == ["then"]
    assert module.__loader__ is module.__spec__.loader is Finder.loader  # type: ignore[union-attr]
    del sys.modules[AWAITED]
    importlib.import_module(AWAITED)
    assert calls == ["then"]


def test_a_loader_of_the_old_kind_is_left_alone(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = object()
    monkeypatch.setattr(Finder, "loader", loader)
    spec = importlib.util.find_spec(AWAITED)
    assert spec is not None
    assert spec.loader is loader


def test_a_module_that_cannot_be_loaded_is_awaited_still(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(Loader, "exec_module", lambda self, module: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            importlib.import_module(AWAITED)
    assert calls == []
    importlib.import_module(AWAITED)
    assert calls == ["then"]
