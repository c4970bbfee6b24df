"""Options of an engine and variables of the environment."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from theus import TheusError, settings
from theus.settings import Settings, parse_size


def settings_of(**options: Any) -> Settings:
    defaults: dict[str, Any] = {
        "workers": None,
        "heap": None,
        "seed": None,
        "preload": ("numpy",),
        "name": None,
    }
    return Settings.of(**{**defaults, **options})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 << 30),
        ("4 GiB", 4 << 30),
        ("512MB", 512 << 20),
        ("1.5g", 3 << 29),
        ("7", 7),
        ("10 b", 10),
        ("2K", 2048),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4 XB", "-1", "4GB please"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="4GB"):
        parse_size(text)


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEUS_POOL_SIZE", "3")
    monkeypatch.setenv("THEUS_HEAP_SIZE", "64")
    assert settings_of().workers == 3
    assert settings_of().heap_bytes == 64 << 20
    assert settings_of(workers=5).workers == 5
    assert settings_of(heap="1GB").heap_bytes == 1 << 30


def test_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of().processes
    monkeypatch.setenv("THEUS_USE_PROCESSES", "0")
    assert not settings_of().processes
    monkeypatch.setenv("THEUS_USE_PROCESSES", "1")
    assert settings_of().processes


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"workers": 0}, ValueError, "at least 1"),
        ({"workers": 1.5}, TypeError, "workers must be a whole number, not 1.5"),
        ({"workers": "2"}, TypeError, "workers must be a whole number, not '2'"),
        ({"heap": 1e9}, TypeError, "heap must be a whole number"),
        ({"seed": "a"}, TypeError, "seed must be a whole number"),
        ({"heap": 0}, ValueError, "more than 0"),
        ({"heap": "lots"}, ValueError, "not a size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 2**64}, ValueError, "seed"),
        ({"preload": "numpy"}, TypeError, "list of module names"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        settings_of(**options)


def test_nonsense_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEUS_POOL_SIZE", "many")
    with pytest.raises(ValueError, match="THEUS_POOL_SIZE"):
        settings_of()


def test_a_seed_of_zero_is_a_seed() -> None:
    assert settings_of(seed=0) == settings_of(seed=0)
    assert settings_of(seed=0).seed != 0
    assert settings_of(seed=5).seed == 5
    assert settings_of().seed != settings_of().seed


def test_a_frozen_program_must_name_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.interpreter() == sys.executable
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(TheusError, match="THEUS_PYTHON"):
        settings.interpreter()
    monkeypatch.setenv("THEUS_PYTHON", "python3")
    assert settings.interpreter() == "python3"
