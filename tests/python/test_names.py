"""Which function a name means."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from theus import UnknownProcess, process
from theus.names import Registry, decorated


def defined_in(module: str, name: str, body: str = "return 1") -> Any:
    """A decorated function as if `module` had defined it."""
    namespace: dict[str, Any] = {"__name__": module, "process": process}
    exec(f"@process\ndef {name}(ctx):\n    {body}", namespace)
    return namespace[name]


def test_registered_names_win_over_decorated_ones() -> None:
    one = defined_in("module_one", "same_name")
    other = defined_in("module_two", "same_name")
    registry = Registry()
    registry.add(other)
    assert registry.find("same_name") is other
    del one


def test_a_unique_decorated_function_is_found() -> None:
    fn = defined_in("module_one", "only_here")
    assert Registry().find("only_here") is fn


def test_the_same_name_in_two_modules_is_ambiguous() -> None:
    kept = [defined_in("module_one", "twice"), defined_in("module_two", "twice")]
    with pytest.raises(UnknownProcess, match="ambiguous: module_one.twice, module_two.twice"):
        Registry().find("twice")
    del kept


def test_the_newest_definition_of_main_counts() -> None:
    registry = Registry()
    first = defined_in("__main__", "cell")
    registry.add(first)
    second = defined_in("__main__", "cell", "return 2")
    assert registry.find("cell") is second
    del first


def test_a_function_is_not_kept_alive() -> None:
    defined_in("module_one", "short_lived")
    gc.collect()
    assert decorated("short_lived") == {}
    with pytest.raises(UnknownProcess):
        Registry().find("short_lived")


def test_unknown_names_give_the_nearest_and_all() -> None:
    registry = Registry()
    registry.add(lambda ctx: 1, "compute_totals")
    with pytest.raises(UnknownProcess) as caught:
        registry.find("compute_total")
    assert "Did you mean 'compute_totals'" in str(caught.value)
    assert not str(caught.value).startswith('"'), "a KeyError's text would be a repr"
    assert "compute_totals" in caught.value.known
    assert isinstance(caught.value, KeyError)


def test_collisions_are_other_functions_under_the_same_name() -> None:
    registry = Registry()
    registry.add(defined_in("module_one", "job"))
    registry.add(defined_in("module_one", "job"))  # the module was reloaded
    assert registry.collisions == []
    registry.add(defined_in("module_two", "job"))
    assert registry.collisions == ["job"]


def test_parameters_called_like_options_are_refused() -> None:
    def fetch(ctx: Any, url: str, timeout: float) -> None: ...

    with pytest.raises(TypeError, match=r"parameter 'timeout'.*engine\.options\(timeout"):
        Registry().add(fetch)


def test_only_functions_with_a_name() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        Registry().add("name")  # type: ignore[arg-type]
