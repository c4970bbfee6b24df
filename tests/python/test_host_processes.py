"""Processes that are not parallel run in this process: what they may read and write, and how it is
committed."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from theus import (
    ContextError,
    ContractViolationError,
    StateUpdate,
    TheusEngine,
    process,
)

BASE = {"domain": {"n": 1, "names": ["a"], "inner": {"x": 1}}, "other": 5}


@pytest.fixture
def engine(engine: TheusEngine) -> TheusEngine:
    engine.compare_and_swap(0, data=BASE)
    return engine


@process(outputs=["domain.n", "domain.fresh", "domain.names"])
def count(ctx: Any, by: int = 1) -> None:
    ctx.domain.n += by
    ctx.domain["fresh"] = {"a": ctx.domain.n}
    ctx.domain.fresh.b = [by]
    ctx.domain.names.append("b")


def test_writes_are_committed_at_the_end(engine: TheusEngine) -> None:
    assert engine.run(count, by=2) is None
    assert engine.state.version == 2
    assert engine.state.to_dict() == {
        "domain": {"n": 3, "names": ["a", "b"], "inner": {"x": 1}, "fresh": {"a": 3, "b": [2]}},
        "other": 5,
    }
    asyncio.run(engine.execute(count, by=1))
    assert engine.state.domain.n == 4


def test_an_async_process_writes_as_well(engine: TheusEngine) -> None:
    @process(outputs=["domain"])
    async def slowly(ctx: Any) -> str:
        ctx.domain.n += 1
        await asyncio.sleep(0)
        del ctx.domain.inner
        return ctx.log.name

    with pytest.raises(ContractViolationError, match="returns a value for 'domain' as well"):
        asyncio.run(engine.execute(slowly))
    with pytest.raises(ContractViolationError, match="returns a value for 'domain' as well"):
        engine.run(slowly)
    assert engine.state.version == 1

    @process(outputs=["domain"])
    async def better(ctx: Any) -> None:
        ctx.domain.n += 1
        await asyncio.sleep(0)
        del ctx.domain.inner

    asyncio.run(engine.execute(better))
    assert engine.state.domain == {"n": 2, "names": ["a"]}


def test_what_raises_commits_nothing(engine: TheusEngine) -> None:
    @process(outputs=["domain.n"], errors=[LookupError])
    def fails(ctx: Any, kind: type[Exception]) -> None:
        ctx.domain.n = 7
        raise kind("on purpose")

    with pytest.raises(KeyError) as declared:
        engine.run(fails, kind=KeyError)
    with pytest.raises(ValueError, match="on purpose") as other:
        asyncio.run(engine.execute(fails, kind=ValueError))
    assert engine.state.version == 1
    assert not hasattr(declared.value, "__notes__")
    assert other.value.__notes__ == [
        "raised by process 'fails', on version 1 of the state; nothing that it returns or "
        "writes to ctx.domain was committed"
    ]


# ---- bounds --------------------------------------------------------------------------------------


def test_only_outputs_are_written(engine: TheusEngine) -> None:
    @process(outputs=["domain.inner.x", "other"])
    def writes(ctx: Any, what: str) -> None:
        if what == "inner.x":
            ctx.domain.inner.x = 5
        elif what == "inner.y":
            ctx.domain.inner.y = 5
        elif what == "inner":
            ctx.domain.inner = {"x": 5}
        elif what == "names":
            ctx.domain.names.append("b")
        elif what == "deleted":
            del ctx.domain.n

    for what, path in [
        ("inner.y", "domain.inner.y"),
        ("inner", "domain.inner"),
        ("deleted", "domain.n"),
    ]:
        with pytest.raises(
            ContractViolationError,
            match=rf"process 'writes' writes '{path}', which is not among its outputs \['domain",
        ):
            engine.run(writes, what=what)
    with pytest.raises(TypeError, match="a snapshot of the state never changes"):
        engine.run(writes, what="names")
    assert engine.state.version == 1
    with pytest.raises(ContractViolationError, match="returns a value for 'domain.inner.x'"):
        engine.run(process(outputs=["domain.inner.x"])(write_and_return))
    engine.run(writes, what="inner.x")
    assert engine.state.domain.inner.x == 5


def write_and_return(ctx: Any) -> int:
    ctx.domain.inner.x = 5
    return 6


def test_without_outputs_nothing_is_written(engine: TheusEngine) -> None:
    @process
    def writes(ctx: Any) -> None:
        ctx.domain.n = 5

    with pytest.raises(
        ContractViolationError, match=r"among any outputs. Declare it: @process\(ou"
    ):
        engine.run(writes)

    @process
    def lists(ctx: Any) -> int:
        ctx.domain.names.append("b")
        return len(ctx.domain.names)

    with pytest.raises(TypeError, match="a snapshot of the state never changes"):
        engine.run(lists)
    assert engine.state.version == 1


@pytest.mark.parametrize("parallel", [False, True])
def test_only_inputs_are_read(engine: TheusEngine, parallel: bool) -> None:
    engine.heavy.put("k", [1.0])
    engine.heavy.put("l", [2.0])

    @process(inputs=["domain.n", "heavy.k", "scale"], parallel=parallel)
    def reads(ctx: Any, what: str, scale: int) -> Any:
        if what == "declared":
            seen = sorted(ctx.domain), list(ctx.heavy), len(ctx.domain)
            return ctx.domain.n * ctx.domain.scale, float(ctx.heavy.k[0]), seen
        if what == "domain":
            return ctx.domain.get("names")
        if what == "attribute":
            return ctx.domain.names
        if what == "cow":
            return ctx.heavy.cow("l")
        return ctx.heavy.get("l")

    seen = ["n", "scale", "what"], ["k"], 3
    assert engine.run(reads, what="declared", scale=3) == (3, 1.0, seen)
    for what, name, path in [
        ("domain", r"ctx\.domain\['names'\]", "domain.names"),
        ("attribute", r"ctx\.domain\['names'\]", "domain.names"),
        ("heavy", r"ctx\.heavy\['l'\]", "heavy.l"),
        ("cow", r"ctx\.heavy\['l'\]", "heavy.l"),
    ]:
        with pytest.raises(
            ContractViolationError,
            match=rf"process '\S*reads' reads {name}, .*Declare it: inputs=\[…, '{path}'\]",
        ):
            engine.run(reads, what=what, scale=1)

    @process(inputs=["domain"], parallel=parallel)
    def whole(ctx: Any) -> Any:
        return sorted(ctx.domain), ctx.domain.n

    assert engine.run(whole) == (["inner", "n", "names"], 1)


@pytest.mark.parametrize("parallel", [False, True])
def test_on_the_way_to_an_input_only_that_way_is_seen(engine: TheusEngine, parallel: bool) -> None:
    engine.compare_and_swap(
        1, data={"domain.inner": {"y": 2, "deep": {"p": 1, "q": [2]}, "leaf": {1: 2}}}
    )

    @process(inputs=["domain.inner.x", "domain.inner.deep.q"], parallel=parallel)
    def reads(ctx: Any, what: str) -> Any:
        inner = ctx.domain.inner
        if what == "declared":
            assert (inner["x"], inner.x, inner.get("x")) == (1, 1, 1)
            assert (len(inner), sorted(inner), "x" in inner) == (2, ["deep", "x"], True)
            assert not hasattr(inner, "__array_interface__")
            assert not hasattr(inner, "_repr_html_")
            return inner.to_dict(), copy.deepcopy(dict(inner.deep)), list(inner.deep.q)
        if what == "item":
            return inner["y"]
        if what == "attribute":
            return inner.y
        if what == "in":
            return "y" in inner
        if what == "deeper":
            return inner.deep.p
        if what == "number":
            return inner[3]
        return inner.get("y")

    shown = {"x": 1, "deep": {"q": [2]}}
    assert engine.run(reads, what="declared") == (shown, {"q": [2]}, [2])
    for what in ("item", "attribute", "in", "get"):
        with pytest.raises(
            ContractViolationError,
            match=r"reads ctx\.domain\['inner'\]\['y'\], .*inputs=\[…, 'domain\.inner\.y'\]",
        ):
            engine.run(reads, what=what)
    with pytest.raises(ContractViolationError, match=r"\['inner'\]\['deep'\]\['p'\]"):
        engine.run(reads, what="deeper")
    with pytest.raises(KeyError, match="3"):
        engine.run(reads, what="number")

    @process(inputs=["domain.inner"], parallel=parallel)
    def whole(ctx: Any) -> Any:
        return ctx.domain.inner.y, ctx.domain.inner.leaf[1]

    assert engine.run(whole) == (2, 2)


def test_what_may_be_written_below_may_be_read(engine: TheusEngine) -> None:
    engine.compare_and_swap(1, data={"domain.inner.y": 2})

    @process(inputs=["domain.n"], outputs=["domain.inner.x"])
    def writes(ctx: Any) -> None:
        ctx.domain.inner.x += ctx.domain.n

    engine.run(writes)
    assert engine.state.domain.inner == {"x": 2, "y": 2}

    @process(inputs=["domain.n"], outputs=["domain.inner.x"])
    def clears(ctx: Any) -> None:
        ctx.domain.inner.clear()  # of what it sees

    engine.run(clears)
    assert engine.state.domain.inner == {"y": 2}


def test_an_argument_hides_what_the_state_has(engine: TheusEngine) -> None:
    @process(outputs=["domain.n"])
    def writes(ctx: Any, n: int) -> None:
        assert ctx.domain.n == n
        ctx.domain.n = 8

    with pytest.raises(ContractViolationError, match="'n' is an argument of this call"):
        engine.run(writes, n=3)


def test_names_and_kinds_that_do_not_fit(engine: TheusEngine) -> None:
    @process(outputs=["domain"])
    def asks(ctx: Any, how: str) -> Any:
        if how == "attribute":
            return ctx.domain.nmaes
        if how == "item":
            return ctx.domain["nmaes"]
        if how == "method":
            ctx.domain.items = 3
        if how == "delete":
            del ctx.domain.nmaes
        ctx.domain.x = threading.Lock()
        return None

    for how, kind in [
        ("attribute", AttributeError),
        ("item", KeyError),
        ("delete", AttributeError),
    ]:
        with pytest.raises(kind, match="no 'nmaes' here; did you mean 'names'"):
            engine.run(asks, how=how)
    with pytest.raises(AttributeError, match="a name of the dict itself"):
        engine.run(asks, how="method")
    with pytest.raises(TypeError, match=r"data\['domain\.x'\]"):
        engine.run(asks, how="lock")
    engine.compare_and_swap(1, data={"domain": 5})
    with pytest.raises(ContractViolationError, match="'domain' is not a dict"):
        engine.run(asks, how="write")


def test_a_domain_that_is_not_there_yet(make_engine: Any) -> None:
    engine = make_engine(workers=1)

    @process(outputs=["domain"])
    def begins(ctx: Any) -> None:
        assert "n" not in ctx.domain
        assert repr(ctx.domain) == "Domain({})"
        ctx.domain.n = 1

    engine.run(begins)
    assert engine.state.to_dict() == {"domain": {"n": 1}}


# ---- conflicts -----------------------------------------------------------------------------------


def test_a_process_that_has_lost_runs_again(engine: TheusEngine) -> None:
    versions: list[int] = []

    @process(inputs=["domain.n"], outputs=["domain.n"])
    def meddled(ctx: Any) -> None:
        versions.append(ctx.state.version)
        if len(versions) < 6:
            value = 10 * len(versions)
            elsewhere(lambda: engine.compare_and_swap(ctx.state.version, data={"domain.n": value}))
        ctx.domain.n += 1

    engine.run(meddled)
    assert engine.state.domain.n == 51
    assert versions == [1, 2, 3, 4, 5, 6]
    versions.clear()
    asyncio.run(engine.execute(meddled))
    assert engine.state.domain.n == 51


def test_what_it_read_has_changed(engine: TheusEngine) -> None:
    runs: list[int] = []
    engine.heavy.put("k", [1.0])

    @process(outputs=["domain.sum"])
    def adds(ctx: Any) -> None:
        runs.append(1)
        total = ctx.domain.n + float(ctx.heavy["k"][0])
        if len(runs) == 1:
            elsewhere(lambda: engine.update("domain.n", lambda _: 10))
        elif len(runs) == 2:
            elsewhere(lambda: engine.heavy.put("k", [100.0]))
        ctx.domain.sum = total

    engine.run(adds)
    assert (engine.state.domain.sum, len(runs)) == (110.0, 3)


def elsewhere(change: Callable[[], object]) -> None:
    """Something that somebody else does meanwhile."""
    thread = threading.Thread(target=change)
    thread.start()
    thread.join()


def test_returned_updates_stand_on_what_was_read(engine: TheusEngine) -> None:
    runs: list[int] = []

    @process
    def returns(ctx: Any) -> StateUpdate:
        runs.append(1)
        n = ctx.domain.n
        if len(runs) == 1:
            elsewhere(lambda: engine.update("domain.n", lambda n: n + 10))
        return StateUpdate("domain.n", n + 1)

    engine.run(returns)
    assert (engine.state.domain.n, len(runs)) == (12, 2)


def test_what_uses_no_domain_is_committed_as_from_a_worker(engine: TheusEngine) -> None:
    """Whatever is current: an orchestrator changes the state itself while it runs."""
    runs: list[int] = []

    @process(outputs=["domain.progress"])
    def orchestrates(ctx: Any) -> str:
        runs.append(1)
        engine.update("domain.progress", lambda _: "half")
        engine.heavy.put("k", [2.0])
        return "done"

    assert engine.run(orchestrates) == "done"
    assert (engine.state.domain.progress, len(runs)) == ("done", 1)


def test_who_loses_to_itself_is_told(engine: TheusEngine) -> None:
    runs: list[int] = []

    @process(outputs=["domain.n"])
    def meddles(ctx: Any) -> None:
        runs.append(1)
        ctx.domain.n += 1
        engine.update("domain.n", lambda n: n + 5)

    with pytest.raises(ContextError, match=r"domain\.n") as caught:
        engine.run(meddles)
    assert (engine.state.domain.n, len(runs)) == (6, 1)
    assert "'meddles' has changed this itself while it ran" in caught.value.__notes__[0]
    with pytest.raises(ContextError):
        asyncio.run(engine.execute(meddles))
    assert len(runs) == 2


def test_late_writes_are_refused(engine: TheusEngine) -> None:
    kept: list[Any] = []

    @process(outputs=["domain.n"])
    def keeps(ctx: Any) -> None:
        kept.append(ctx.domain)
        ctx.domain.n = 2

    engine.run(keeps)
    with pytest.raises(RuntimeError, match="'keeps' has ended"):
        kept[0].n = 3


def test_own_outputs_are_read_as_well(engine: TheusEngine) -> None:
    @process(inputs=["scale"], outputs=["domain.inner.x", "domain.fresh"])
    def writes(ctx: Any, scale: int) -> None:
        ctx.domain.inner.x += scale
        ctx.domain.fresh = {}
        ctx.domain.fresh.a = ctx.domain.setdefault("fresh", {}).get("a", scale)

    engine.run(writes, scale=3)
    assert engine.state.domain.inner.x == 4
    assert engine.state.domain.fresh == {"a": 3}

    @process(outputs=["domain.inner.x"])
    def removes(ctx: Any) -> None:
        del ctx.domain.inner.x

    engine.run(removes)
    assert "inner" not in engine.state.domain


def test_a_conflict_of_its_own_is_its_own(engine: TheusEngine) -> None:
    """It is not the commit that has lost: the exception is for whoever has called the process."""
    runs: list[int] = []

    @process(outputs=["other"])
    def loses(ctx: Any, how: str) -> Any:
        runs.append(1)
        engine.compare_and_swap(engine.state.version, data={"other": len(runs)})
        if how == "swap":
            engine.compare_and_swap(0, data={"other": 1})
        return StateUpdate("other", 3, assert_version=0)

    for how in ("swap", "assert"):
        with pytest.raises(ContextError):
            engine.run(loses, how=how)
    assert len(runs) == 2


def test_increments_of_processes_add_up(engine: TheusEngine) -> None:
    threads, times = 5, 20

    def work() -> None:
        for _ in range(times):
            engine.run(count)

    async def awaited() -> None:
        await asyncio.gather(*(engine.execute(count) for _ in range(times)))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    workers.append(threading.Thread(target=lambda: asyncio.run(awaited())))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert engine.state.domain.n == 1 + (threads + 1) * times
    assert len(engine.state.domain.names) == 1 + (threads + 1) * times


def test_arrays_are_published_with_it(engine: TheusEngine) -> None:
    @process(outputs=["domain.n", "heavy.made"])
    def makes(ctx: Any) -> dict[str, Any]:
        ctx.domain.n = 2
        array = engine.heavy.alloc("made", 2)
        array[:] = 4
        return {"heavy.made": array}

    engine.run(makes)
    state = engine.state
    assert (state.version, state.domain.n) == (2, 2)
    assert np.array_equal(state.heavy["made"], [4, 4])
