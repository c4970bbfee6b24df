"""Several changes as one: transaction(), edit() and update()."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from theus import DELETE, ContextError, EngineClosed, StatelessnessError, TheusEngine
from theus.transactions import Transaction

BASE = {"domain": {"n": 1, "names": ["a"], "inner": {"x": 1}}, "other": 5}


@pytest.fixture
def engine(engine: TheusEngine) -> TheusEngine:
    engine.compare_and_swap(0, data=BASE)
    return engine


def test_a_transaction_is_one_version(engine: TheusEngine) -> None:
    curve = engine.heavy.alloc("curve", 3)
    curve[:] = 7
    with engine.transaction() as tx:
        assert (tx.state.version, tx.version) == (1, None)
        tx.domain.n += 1
        tx["new"] = {"a": [1]}
        tx.update(data={"domain.names": ["b"], "domain.m": 3}, heavy={"curve": curve})
        assert tx.domain.m == 3, "a transaction sees what it has written"
        assert engine.state.to_dict() == BASE, "nobody else does"
        assert "curve" not in engine.state.heavy
    assert tx.version == engine.state.version == 2
    assert engine.state.to_dict() == {
        "domain": {"n": 2, "names": ["b"], "inner": {"x": 1}, "m": 3},
        "other": 5,
        "new": {"a": [1]},
    }
    assert engine.run(lambda ctx: ctx.heavy["curve"].tolist()) == [7, 7, 7]


def test_edit_reads_better_with_assignments(engine: TheusEngine) -> None:
    with engine.edit() as state:
        state.domain.names.append("b")
        del state.other
        state.domain.inner = {"y": 2}
    assert engine.state.to_dict() == {"domain": {"n": 1, "names": ["a", "b"], "inner": {"y": 2}}}


def test_an_exception_drops_everything(engine: TheusEngine) -> None:
    with pytest.raises(ZeroDivisionError), engine.edit() as state:
        state.domain.n = 1 / 0
    state = engine.edit()
    state.other = 6
    state.domain.n = threading.Lock()
    with pytest.raises(StatelessnessError, match=r"data\['domain\.n'\]"):
        state.commit()
    assert engine.state.version == 1
    assert engine.state.to_dict() == BASE


def test_a_transaction_that_changes_nothing_makes_no_version(engine: TheusEngine) -> None:
    with engine.transaction() as tx:
        assert tx.domain.names == ["a"]
        engine.compare_and_swap(1, data={"domain.names": []})
    assert (tx.version, engine.state.version) == (None, 2)


def test_both_change_the_same(engine: TheusEngine) -> None:
    state = engine.edit()
    state.domain.n = 5
    engine.compare_and_swap(1, data={"domain.n": 6})
    with pytest.raises(ContextError, match=r"Conflict Detected.*domain\.n"):
        state.commit()
    assert engine.state.domain.n == 6


def test_what_was_read_has_changed(engine: TheusEngine) -> None:
    """Two that each write what the other has read: one of them loses, or the sum would be wrong."""
    engine.compare_and_swap(1, data={"a": 1, "b": 1})
    with engine.transaction() as one:
        one.a = one.b + 10
        with engine.transaction() as other:
            other.c = other.a
        assert other.version == 3
    assert engine.state.a == 11, "nobody has changed what it read"
    one = engine.transaction()
    one.a = one.b + 10
    with engine.transaction() as other:
        other.b = 2
    assert conflicts_of(one) == ["b"]
    one = engine.transaction()
    one.d = "new" in one
    engine.compare_and_swap(engine.state.version, data={"new": 1})
    assert conflicts_of(one) == ["new"]
    one = engine.transaction()
    one.d = len(one.data)
    engine.compare_and_swap(engine.state.version, data={"newer": 1})
    assert conflicts_of(one) == [""]
    assert "d" not in engine.state


def conflicts_of(tx: Transaction) -> list[str]:
    with pytest.raises(ContextError) as caught:
        tx.commit()
    return [c.path for c in caught.value.conflicts]


def test_siblings_do_not_conflict(engine: TheusEngine) -> None:
    with engine.edit() as state:
        state.domain.n += 1
        state.update(data={"fresh.mine": 1})
        engine.compare_and_swap(1, data={"domain.inner.x": 3, "fresh.theirs": 2})
    assert engine.state.domain.to_dict() == {"n": 2, "names": ["a"], "inner": {"x": 3}}
    assert engine.state.fresh == {"mine": 1, "theirs": 2}


def test_arrays_of_a_transaction(engine: TheusEngine) -> None:
    engine.heavy.put("k", np.arange(3))
    with engine.transaction() as tx:
        assert tx.heavy["k"].tolist() == [0, 1, 2]
        assert "none" not in tx.heavy
        tx.heavy["l"] = np.ones(2)
        del tx.heavy["k"]
        assert (list(tx.heavy), len(tx.heavy)) == (["l"], 1)
        with pytest.raises(KeyError, match="no 'k' here"):
            tx.heavy["k"]
    assert list(engine.state.heavy) == ["l"]
    tx = engine.transaction()
    tx.other = float(tx.heavy["l"].sum())
    engine.heavy.put("l", np.zeros(2))
    assert conflicts_of(tx) == ["l"]
    with engine.transaction() as tx:
        tx.update(heavy={"l": DELETE})
    assert list(engine.state.heavy) == []
    with pytest.raises(TypeError, match="keys of heavy arrays"), engine.transaction() as tx:
        tx.heavy[3] = 1  # type: ignore[index]
    with pytest.raises(KeyError), engine.transaction() as tx:
        del tx.heavy["none"]


def test_the_list_of_arrays_is_read_too(engine: TheusEngine) -> None:
    engine.heavy.put("k", np.arange(3))
    tx = engine.edit()
    tx.other = list(tx.heavy)
    engine.heavy.put("l", np.arange(3))
    with pytest.raises(ContextError, match=r"\(all arrays\) \(changed at 3\)") as lost:
        tx.commit()
    assert [(c.path, c.heavy) for c in lost.value.conflicts] == [("", True)]
    tx = engine.edit()
    assert "" not in tx.heavy, "no array has that key, and so it reads none"
    tx.other = 1
    engine.heavy.put("m", np.arange(3))
    tx.commit()
    tx = engine.edit()
    tx.other = len(tx.heavy)
    engine.update("domain.n", lambda n: n + 1)  # touches no array
    tx.commit()
    assert engine.state.other == 3


def test_it_ends_once(engine: TheusEngine) -> None:
    tx = engine.transaction(write_timeout_ms=100)
    tx.other = 6
    assert tx.commit() == 2
    assert repr(tx) == "<theus.Transaction on version 1, which was committed>"
    for late in (tx.commit, tx.update, tx.__enter__, lambda: setattr(tx, "x", 1)):
        with pytest.raises(RuntimeError, match=r"was committed; take another one"):
            late()
    with engine.transaction() as tx:
        tx.other = 7
        tx.discard()
    assert engine.state.other == 6
    for late in (
        lambda: setattr(tx.domain, "n", 1),
        lambda: tx.heavy.__setitem__("k", [1.0]),
        lambda: tx.domain.inner.clear(),
    ):
        with pytest.raises(RuntimeError, match="take another one"):
            late()
    with pytest.raises(AttributeError, match="'state' is the transaction's own"):
        engine.transaction().state = 5  # type: ignore[assignment]
    with engine.transaction() as tx:
        tx.other = 8
        tx.commit()
    assert engine.state.other == 8
    engine.close()
    with pytest.raises(EngineClosed):
        engine.transaction()


# ---- update --------------------------------------------------------------------------------------


def test_update_makes_a_new_value_of_the_old_one(engine: TheusEngine) -> None:
    assert engine.update("domain.n", lambda n: n + 1) == 2
    assert engine.update("domain.names", lambda names: [*names, "b"]) == ["a", "b"]
    assert engine.update("none.yet", lambda old: (old, 1)) == (None, 1)

    def in_place(inner: dict[str, int]) -> dict[str, int]:
        inner["y"] = 2
        return inner

    assert engine.update("domain.inner", in_place) == {"x": 1, "y": 2}
    assert engine.update("domain.inner", lambda _: {"z": 3}) == {"z": 3}
    assert engine.update("other", lambda _: DELETE) is DELETE
    assert engine.state.to_dict() == {
        "domain": {"n": 2, "names": ["a", "b"], "inner": {"z": 3}},
        "none": {"yet": (None, 1)},
    }
    with pytest.raises(ZeroDivisionError):
        engine.update("domain.n", lambda n: n / 0)
    with pytest.raises(ValueError, match="empty component"):
        engine.update("", lambda _: 1)


def test_update_tries_again(engine: TheusEngine) -> None:
    seen: list[int] = []

    def meddle(n: int) -> int:
        seen.append(n)
        if len(seen) < 6:
            engine.compare_and_swap(engine.state.version, data={"domain.n": 10 * len(seen)})
        return n + 1

    assert engine.update("domain.n", meddle) == 51
    assert seen == [1, 10, 20, 30, 40, 50]
    seen.clear()
    with pytest.raises(ContextError):
        engine.update("domain.n", meddle, cas_retries=2)
    assert len(seen) == 3


def test_increments_add_up(engine: TheusEngine) -> None:
    """From threads, from coroutines and in transactions: none is lost."""
    threads, times = 6, 40

    def by_update() -> None:
        for _ in range(times):
            engine.update("domain.n", lambda n: n + 1)

    def by_transaction() -> None:
        left = times
        while left:
            try:
                with engine.transaction() as tx:
                    tx.domain.n += 1
                left -= 1
            except ContextError:
                pass

    async def by_coroutine() -> None:
        for _ in range(times):
            engine.update("domain.n", lambda n: n + 1)
            await asyncio.sleep(0)

    async def by_coroutines() -> None:
        await asyncio.gather(*(by_coroutine() for _ in range(3)))

    workers = [threading.Thread(target=by_update) for _ in range(threads)]
    workers += [threading.Thread(target=by_transaction) for _ in range(threads)]
    workers.append(threading.Thread(target=lambda: asyncio.run(by_coroutines())))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert engine.state.domain.n == 1 + times * (2 * threads + 3)


def test_who_loses_again_and_again_goes_first(engine: TheusEngine) -> None:
    """One that takes long would lose for ever against many that are quick."""
    slow_is_through = threading.Event()
    started = threading.Barrier(4)

    def quick() -> None:
        started.wait()
        while not slow_is_through.is_set():
            engine.update("domain.n", lambda n: n + 1)

    def slow(n: int) -> int:
        before = engine.state.version
        while engine.state.version == before and not alone():
            pass
        return n + 1000

    def alone() -> bool:
        return engine._session.contention._first is not None

    rivals: list[Any] = [threading.Thread(target=quick) for _ in range(3)]
    for rival in rivals:
        rival.start()
    started.wait()
    try:
        assert engine.update("domain.n", slow) > 1000
    finally:
        slow_is_through.set()
        for rival in rivals:
            rival.join()


def test_an_update_within_an_update(engine: TheusEngine) -> None:
    def outer(n: int) -> int:
        return n + int(engine.update("other", lambda o: o + 1))

    assert engine.update("domain.n", outer) == 7
