"""Changes written as if the state were a plain dict: what is seen, and what comes of them."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from theus import DELETE, REPLACE, TheusEngine
from theus.drafts import Draft
from theus.frozen import FrozenDict, FrozenLeaf, freeze
from theus.paths import join_path, parse_path
from theus.updates import changes_of

BASE = {"domain": {"n": 1, "names": ["a"], "inner": {"x": 1, "y": 2}}, "other": 5}


def draft_of(data: dict[str, Any]) -> Draft:
    return Draft(freeze(copy.deepcopy(data)), (), {})


@pytest.fixture
def draft() -> Draft:
    return draft_of(BASE)


def test_a_draft_reads_as_what_it_is_made_of(draft: Draft) -> None:
    assert draft.to_dict() == BASE
    assert draft == BASE
    assert draft.domain.inner.x == draft["domain"]["inner"]["x"] == 1
    assert draft.changes() == {}
    assert copy.deepcopy(draft) == pickle.loads(pickle.dumps(draft)) == BASE
    assert json.dumps(draft.to_dict()) == json.dumps(BASE)
    assert repr(draft) == f"Draft({BASE})"


def test_only_what_was_changed_is_a_change(draft: Draft) -> None:
    draft.domain.n += 1
    draft.domain.inner["z"] = 3
    del draft.domain.inner.x
    draft.new = {"a": {"b": 1}}
    changes = draft.changes()
    assert repr(changes.pop("new")) == "theus.REPLACE({'a': {'b': 1}})"
    assert changes == {"domain.n": 2, "domain.inner.z": 3, "domain.inner.x": DELETE}
    assert draft.to_dict() == {
        "domain": {"n": 2, "names": ["a"], "inner": {"y": 2, "z": 3}},
        "other": 5,
        "new": {"a": {"b": 1}},
    }


def test_values_that_change_in_place(draft: Draft) -> None:
    """What is read is a copy, which is a change only if it differs in the end."""
    names = draft.domain.names
    assert draft.domain.names is names
    assert draft.changes() == {}
    names.append("b")
    assert draft.changes() == {"domain.names": ["a", "b"]}
    names.pop()
    assert draft.changes() == {}
    base = Draft(FrozenDict(array=np.arange(3), set={1, 2}), (), {})
    assert base.changes() == {}
    assert base.array.flags.writeable
    base["array"][0] = 7
    base.set.add(3)
    changes = base.changes()
    assert changes["array"].tolist() == [7, 1, 2]
    assert changes["set"] == {1, 2, 3}


def test_what_was_assigned_can_be_changed_on(draft: Draft) -> None:
    items: list[int] = []
    draft.domain.items_ = items
    items.append(1)
    draft.domain.more = {"deep": {}}
    draft.domain.more.deep.x = items
    draft.domain.more.deep.x.append(2)
    assert draft.changes()["domain.items_"] == [1, 2]
    assert draft.changes()["domain.more"].value == {"deep": {"x": [1, 2]}}
    draft.domain.more = DELETE
    draft.other = REPLACE({"k": 1})
    assert set(draft.changes()) == {"domain.items_", "other"}
    draft.domain = draft.other
    assert draft.changes()["domain"].value == {"k": 1}


def test_names_that_are_not_there(draft: Draft) -> None:
    with pytest.raises(AttributeError, match=r"no 'domian' here; did you mean 'domain'\?"):
        _ = draft.domian
    with pytest.raises(KeyError, match="did you mean 'inner'"):
        draft.domain["iner"]
    with pytest.raises(AttributeError, match="no 'x' here"):
        del draft.x
    del draft.other
    assert "other" not in draft
    with pytest.raises(KeyError, match="no 'other' here"):
        draft["other"]
    with pytest.raises(KeyError):
        del draft["other"]


def test_names_that_cannot_be(draft: Draft) -> None:
    with pytest.raises(
        AttributeError, match=r"'items' is a name of the dict itself; write \['items'\]"
    ):
        draft.items = 3  # type: ignore[assignment, method-assign]
    draft["items"] = 3
    assert draft.changes() == {"items": 3}
    with pytest.raises(TypeError, match="strings, not int"):
        draft[3] = 1  # type: ignore[index]
    with pytest.raises(ValueError, match="empty"):
        draft[""] = 1
    assert 3 not in draft


def test_what_was_read_is_noted() -> None:
    reads: dict[Any, None] = {}
    draft = Draft(freeze(copy.deepcopy(BASE)), (), reads)
    _ = draft.domain
    assert not reads, "to go through a dict is not to read it"
    _ = draft.domain.n
    draft.domain.inner.z = 1
    assert list(reads) == [("domain", "n")]
    _ = "other" in draft
    _ = draft.domain.get("none")
    _ = list(draft.domain.inner)
    draft.domain.new = {"a": 1}
    _ = draft.domain.new.a
    draft.merge(("domain", "m"), 1)
    assert list(reads) == [
        ("domain", "n"),
        ("other",),
        ("domain", "none"),
        ("domain", "inner"),
    ]
    reads.clear()
    _ = "inner" in draft.domain
    draft.gone = 1
    del draft.gone
    draft.merge(("ghost",), DELETE)
    _ = draft.get(""), draft.get("\0"), draft.get("\ud800"), draft.get(3)
    assert list(reads) == [("domain", "inner"), ("gone",), ("ghost",)]


def test_removing_some_depends_on_one_that_stays() -> None:
    """If somebody else removes that as well, the state would lose the dict."""
    reads: dict[Any, None] = {}
    draft = Draft(freeze({"jobs": {"a": 1, "b": 2, "c": 3}}), (), reads)
    del draft.jobs.a
    assert draft.changes() == {"jobs.a": DELETE}
    assert ("jobs", "b") in reads


def test_methods_of_dicts_give_what_can_be_written(draft: Draft) -> None:
    draft.domain.setdefault("m", {})["k"] = 1
    draft.domain.setdefault("l", []).append(2)
    draft.domain.setdefault("n", 7)
    assert draft.domain.pop("inner") == {"x": 1, "y": 2}
    assert draft.domain.pop("none", 5) == 5
    with pytest.raises(KeyError, match="no 'none' here"):
        draft.domain.pop("none")
    assert draft.domain.to_dict() == {"n": 1, "names": ["a"], "m": {"k": 1}, "l": [2]}
    draft.domain.clear()
    assert draft.to_dict() == {"domain": {}, "other": 5}


class Lazy:
    """It changes when it is looked at."""

    def __init__(self) -> None:
        self.seen = 0

    def __getstate__(self) -> dict[str, Any]:
        self.seen += 1
        return dict(self.__dict__)


class Stubborn:
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("there can be only one")


def test_objects_that_do_not_stand_still_are_not_written_back() -> None:
    local = type("Local", (), {"x": 1})
    draft = Draft(
        FrozenDict(lazy=Lazy(), stubborn=Stubborn(), code=lambda: 1, local=local()), (), {}
    )
    assert [type(value).__name__ for value in draft.values()] == [
        "Lazy",
        "Stubborn",
        "function",
        "Local",
    ]
    assert draft.changes() == {}
    draft.local.x = 2
    assert draft.changes()["local"].x == 2


def test_a_dict_that_is_one_value_changes_as_a_whole() -> None:
    draft = Draft(FrozenDict(leaf=FrozenLeaf({"a": 1, "b": 2})), (), {})
    draft.leaf["a"] += 1
    assert draft.changes()["leaf"].value == {"a": 2, "b": 2}


# ---- against a plain dict ------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d.e"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 9), st.lists(st.integers(0, 9), max_size=2)
)
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=4)
TREES = st.dictionaries(NAMES, VALUES, max_size=3)


def committed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """What a commit makes of a state, as plain dicts: SET and DELETE of whole subtrees."""
    tree = copy.deepcopy(base)
    for change in changes_of(changes, lookup=lambda path: find(tree, path)):
        *above, key = parse_path(change.path)
        node = tree
        if change.codec:
            for name in above:
                if not isinstance(node.get(name), dict):
                    node[name] = {}
                node = node[name]
            value = change.payload
            node[key] = json.loads(value)
        else:
            remove(tree, above, key)
    return tree


def remove(tree: dict[str, Any], above: list[str], key: str) -> None:
    """As the state does: a dict of which nothing is left goes as well."""
    parent = find(tree, above)
    if isinstance(parent, dict) and key in parent:
        del parent[key]
        if above and not parent:
            remove(tree, above[:-1], above[-1])


def find(tree: Any, path: Any) -> Any:
    for name in path:
        if not isinstance(tree, dict) or name not in tree:
            return None
        tree = tree[name]
    return tree


class Machine(RuleBasedStateMachine):
    """Random reads and writes of a draft and of a plain dict are the same, and so is the commit."""

    @initialize(base=TREES)
    def begin(self, base: dict[str, Any]) -> None:
        self.base = base
        self.draft = draft_of(base)
        self.plain = copy.deepcopy(base)

    def inner(self, path: tuple[str, ...]) -> tuple[Any, Any]:
        """The dicts along a path, as far as it goes."""
        draft: Any = self.draft
        plain: Any = self.plain
        for name in path:
            if not isinstance(plain.get(name), dict):
                break
            draft, plain = draft[name], plain[name]
        return draft, plain

    @rule(path=PATHS, name=NAMES, value=VALUES)
    def assign(self, path: tuple[str, ...], name: str, value: Any) -> None:
        draft, plain = self.inner(path)
        draft[name] = copy.deepcopy(value)
        plain[name] = copy.deepcopy(value)

    @rule(path=PATHS, name=NAMES)
    def delete(self, path: tuple[str, ...], name: str) -> None:
        draft, plain = self.inner(path)
        assert (name in draft) == (name in plain)
        assert draft.pop(name, None) == plain.pop(name, None)

    @rule(path=PATHS, name=NAMES)
    def append(self, path: tuple[str, ...], name: str) -> None:
        draft, plain = self.inner(path)
        if isinstance(plain.get(name), list):
            draft[name].append(1)
            plain[name].append(1)

    @rule(path=PATHS, value=st.one_of(VALUES, st.just(DELETE)))
    def merge(self, path: tuple[str, ...], value: Any) -> None:
        self.draft.merge(path, copy.deepcopy(value))
        self.plain = committed(self.plain, {join_path(path): value})

    @rule()
    def compare(self) -> None:
        assert self.draft.to_dict() == self.plain
        assert committed(self.base, self.draft.changes()) == self.plain

    def teardown(self) -> None:
        if hasattr(self, "base"):
            self.compare()


TestAgainstAPlainDict = Machine.TestCase
TestAgainstAPlainDict.settings = settings(max_examples=100, deadline=None)


def test_commits_are_what_was_written(engine: TheusEngine) -> None:
    """The same programs in transactions of a real engine."""

    class Committed(Machine):
        @initialize(base=TREES)
        def begin(self, base: dict[str, Any]) -> None:
            engine.compare_and_swap(engine.state.version, data={"root": REPLACE({"base": base})})
            self.base = base
            self.transaction = engine.transaction()
            self.draft = self.transaction.root.base
            self.plain = copy.deepcopy(base)

        @rule()
        def compare(self) -> None:
            assert self.draft.to_dict() == self.plain

        def teardown(self) -> None:
            if hasattr(self, "base"):
                self.transaction.commit()
                assert engine.state.root.base.to_dict() == self.plain

    run_state_machine_as_test(Committed, settings=settings(max_examples=60, deadline=None))


@given(TREES)
def test_an_untouched_draft_changes_nothing(base: dict[str, Any]) -> None:
    draft = draft_of(base)
    assert draft.to_dict() == base
    assert draft.changes() == {}
