"""Programs that were written for the Rust Theus: what they rely on holds, and what is gone names
what to use instead. The page about it, in ``docs/``, is run as it stands."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import theus
from conftest import EngineFactory
from pages import blocks_of, run_program
from programs import printed_by
from theus import ContractViolationError, StateUpdate, TheusEngine, gone, process
from theus.__main__ import main
from theus.context import BaseDomainContext, BaseGlobalContext, BaseSystemContext
from theus.contracts import ProcessContract, SemanticType
from theus.structures import ContextError

PAGE = Path(__file__).parents[2] / "docs" / "migrating-from-rust-theus.md"
MODULES = ["theus", "theus.context", "theus.contracts", "theus.engine", "theus.structures"]

# -- what is kept, line by line --------------------------------------------------------------------


def test_names_are_where_they_were() -> None:
    for module, names in {
        "theus": "TheusEngine process ContractViolationError BaseSystemContext BaseGlobalContext "
        "BaseDomainContext __version__",
        "theus.engine": "TheusEngine ContractViolationError",
        "theus.contracts": "process ContractViolationError SemanticType ProcessContract",
        "theus.context": "BaseSystemContext BaseGlobalContext BaseDomainContext ShmArray",
        "theus.structures": "StateUpdate ContextError ShmArray",
    }.items():
        for name in names.split():
            value = getattr(importlib.import_module(module), name)
            assert value is getattr(theus, name, value), "the same one everywhere"


def test_process_takes_its_six_arguments_in_order() -> None:
    decorate: Any = process

    @decorate(["domain.a"], ["domain.b"], SemanticType.PURE, ["KeyError"], ["prints"], True)
    def full(ctx: Any) -> None: ...

    @decorate
    def bare(ctx: Any) -> None: ...

    contract = full._pop_contract
    assert list(contract.inputs) == ["domain.a"]
    assert list(contract.outputs) == ["domain.b"]
    assert (contract.semantic, contract.parallel) == ("pure", True), "it is a string, too"
    assert list(contract.errors) == ["KeyError"]
    assert list(contract.side_effects) == ["prints"]
    assert bare._pop_contract == ProcessContract((), (), SemanticType.EFFECT)


def test_contexts_are_dataclasses_to_derive_from(make_engine: EngineFactory) -> None:
    @dataclass
    class Settings(BaseGlobalContext):
        retries: int = 3

    @dataclass
    class Shop(BaseDomainContext):
        orders: list[str] = field(default_factory=list)

    @dataclass
    class System(BaseSystemContext):
        domain: Shop = field(default_factory=Shop)
        note: str = "mine"

    @dataclass
    class Bare(BaseSystemContext):
        pass

    wanted = {"global_ctx": {"retries": 3}, "domain": {"orders": []}}
    state = make_engine(System(Settings()), workers=1).state
    assert state.data == {**wanted, "note": "mine"}
    assert make_engine(Bare(Settings(), Shop()), workers=1).state.data == wanted
    more: Any = BaseSystemContext(domain=Shop())
    more.tasks = {"active": 0}
    assert make_engine(more, workers=1).state.data == {
        "domain": {"orders": []},
        "tasks": {"active": 0},
    }


def test_state_updates_keep_their_order_and_all_of_it_counts(engine: TheusEngine) -> None:
    @process(parallel=True)
    def update(ctx: Any, version: int) -> StateUpdate:
        made = ctx.heavy.alloc("made", 2)
        made[:] = 7
        return StateUpdate("domain.n", 1, {"domain.m": 2}, {"made": made}, None, version)

    assert isinstance(engine.execute_parallel(update, version=0), StateUpdate)
    assert engine.state.data == {"domain": {"n": 1, "m": 2}}
    assert engine.heavy["made"].tolist() == [7, 7], "heavy= is published"
    with pytest.raises(ContextError):
        engine.execute_parallel(update, version=0)
    with pytest.raises(TypeError, match="no signals.*into the state"):
        StateUpdate("domain.n", 1, None, None, {"stop": True})


@pytest.mark.parametrize("parallel", [False, True])
def test_execute_gives_what_was_returned_and_commits_it(
    engine: TheusEngine, parallel: bool
) -> None:
    @process(outputs=["domain.a", "domain.b"], parallel=parallel)
    def give(ctx: Any, result: Any) -> Any:
        return result

    async def main() -> None:
        engine.register(give)
        for result, committed in [
            ((1, 2), {"a": 1, "b": 2}),
            ([3, None], {"a": 3, "b": 2}),
            ({"domain.a": 4, "b": 5}, {"a": 4, "b": 5}),
            (None, {"a": 4, "b": 5}),
        ]:
            assert await engine.execute("give", result=result) == result
            assert engine.state.domain == committed
        with pytest.raises(ContractViolationError, match="declares 2 outputs"):
            await engine.execute("give", result=5)
        assert engine.state.domain == {"a": 4, "b": 5}

    asyncio.run(main())


@pytest.mark.parametrize("parallel", [False, True])
def test_arguments_arrive_by_place_and_by_name(engine: TheusEngine, parallel: bool) -> None:
    @process(parallel=parallel)
    def give(ctx: Any, a: int, b: int = 0) -> tuple[Any, ...]:
        return a, b, dict(ctx.input), ctx.input.get("c")

    async def main() -> None:
        assert await engine.execute(give, 1, b=2, c=3) == (1, 2, {"a": 1, "b": 2, "c": 3}, 3)

    asyncio.run(main())


def test_compare_and_swap_takes_its_parameters(engine: TheusEngine) -> None:
    swap: Any = engine.compare_and_swap
    state = swap(0, {"n": 1}, {"x": np.ones(2)}, None, "worker 1")
    assert state.version == 1
    assert state, "on success: `if res:` has to be turned round"
    for n in (2, 3):
        swap(engine.state.version, data={"n": n}, requester="worker 1")
    text = r"^CAS Version Mismatch \(Conflict Detected\): Expected 0, Found 3 \(Keys Changed\)"
    with pytest.raises(ContextError, match=text):
        swap(0, data={"n": 4})
    with pytest.raises(TypeError, match=r"compare_and_swap\(signal=….*no signals"):
        swap(3, {"n": 4}, None, {"stop": True})
    assert (engine.state.version, engine.state.n) == (3, 3)


def test_transactions_and_edits(engine: TheusEngine) -> None:
    with engine.transaction(5000) as tx:
        tx.update(data={"domain.n": 1, "domain": {"m": 2}}, heavy={"x": np.ones(2)})
    assert engine.state.version == 1
    with engine.edit() as ctx:
        ctx.domain.n = 999
    assert engine.state.data == {"domain": {"n": 999, "m": 2}}
    with pytest.raises(TypeError, match="no signals"), engine.transaction() as tx:
        tx.update(data={"domain.n": 0}, signal={"stop": True})  # type: ignore[arg-type]
    assert engine.state.domain.n == 999


def test_execute_parallel_blocks_and_gives_the_result(engine: TheusEngine) -> None:
    @process
    def where(ctx: Any, n: int) -> tuple[int, int]:
        return os.getpid(), n

    engine.register(where)
    assert engine.run("where", n=1) == (os.getpid(), 1)
    pid, n = engine.execute_parallel("where", n=2)
    assert (pid != os.getpid(), n) == (True, 2)
    with pytest.raises(ValueError, match="nobody"):
        engine.execute_parallel("nobody")


def test_scanned_processes_run_in_workers(engine: TheusEngine, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    text = "from theus import process\nSTEP = {n}\n@process(parallel=True)\ndef {name}(ctx, n):\n"
    text += "    return helper(n)\ndef helper(n):\n    return n + STEP\n"
    (tmp_path / "top.py").write_text(text.format(name="add_one", n=1))
    (tmp_path / "deep" / "er" / "top.py").write_text(text.format(name="add_two", n=2))
    (tmp_path / "deep" / "__init__.py").write_text("raise RuntimeError('was imported')")
    engine.scan_and_register(str(tmp_path))
    assert engine.execute_parallel("add_one", n=10) == 11
    assert engine.execute_parallel("add_two", n=10) == 12


def test_cleaning_up_and_shutting_down(engine: TheusEngine) -> None:
    engine.heavy.put("x", [1.0])
    engine.heavy.cleanup()
    assert engine.heavy["x"].tolist() == [1.0], "nothing that is published goes"
    engine.shutdown()
    engine.shutdown()
    with pytest.raises(theus.EngineClosed):
        engine.heavy.get("x")


def test_the_state_reads_as_before(make_engine: EngineFactory) -> None:
    state = make_engine({"domain": {"x": 1, "deep": {"y": [2]}}}, workers=1).state
    assert state.data["domain"] == {"x": 1, "deep": {"y": [2]}}
    assert state.data.get("domain")["x"] == state.domain.x == state["domain"].x == 1
    assert state.data.get("nothing", 0) == 0
    plain = state.data["domain"].to_dict()
    plain["deep"]["y"].append(3)
    assert type(plain["deep"]) is dict
    assert state.to_dict() == state.data.to_dict() == {"domain": {"x": 1, "deep": {"y": [2]}}}
    assert json.loads(json.dumps(state.data)) == state.data


@pytest.mark.parametrize("parallel", [False, True])
def test_heavy_arrays_are_attributes_of_ctx_heavy(engine: TheusEngine, parallel: bool) -> None:
    engine.heavy.put("x", [1.0, 2.0])

    @process(parallel=parallel)
    def total(ctx: Any) -> float:
        assert ctx.heavy.get("y") is None
        assert "x" in ctx.heavy
        return float(ctx.heavy.x.sum() + ctx.heavy["x"].sum())

    assert engine.run(total) == 6


@pytest.mark.parametrize("parallel", [False, True])
def test_arguments_lie_over_the_domain(engine: TheusEngine, parallel: bool) -> None:
    engine.compare_and_swap(0, data={"domain": {"a": 1, "b": 1}})

    @process(parallel=parallel)
    def look(ctx: Any) -> tuple[Any, ...]:
        return ctx.domain["a"], ctx.domain.b, ctx.domain.get("c"), ctx.domain.get("d", 4)

    assert engine.run(look, b=2, c=3) == (1, 2, 3, 4)


def test_arrays_have_their_shared_memory(engine: TheusEngine) -> None:
    array = engine.heavy.alloc("x", (4,), np.float32)
    for memory in (array.shm, array._shm_ref):
        assert "x" in memory.name
        assert memory.size == len(memory.buf) == 16
        memory.buf[:4] = np.float32(5).tobytes()
        memory.close()
    assert array.tolist() == [5, 0, 0, 0]


def test_the_first_rows_of_the_page_are_writes_of_the_host_and_of_workers() -> None:
    changes = PAGE.read_text().partition("## What changes first\n")[2].partition("\n## ")[0]
    first, second, third = re.findall("^### (.*)$", changes, re.M)[:3]
    assert "host writes after publishing" in first
    assert "workers see is read-only" in second
    assert "compare_and_swap" in third


def test_conflicts_and_crashes_are_retried_apart(engine: TheusEngine, tmp_path: Path) -> None:
    runs = 0

    @process(outputs=["domain.n"])
    def always_late(ctx: Any) -> None:
        nonlocal runs
        runs += 1
        other = threading.Thread(target=lambda: engine.update("domain.n", lambda _: runs))
        other.start()
        other.join()
        ctx.domain.n = -1

    for retries, limits in [(0, {}), (3, {"retries": 9})]:
        runs = 0
        with pytest.raises(ContextError):
            engine.run(always_late, cas_retries=retries, **limits)
        assert runs == retries + 1
    with pytest.raises(ContextError):
        engine.options(cas_retries=0).submit(always_late).result(60)
    with pytest.raises(ValueError, match="cas_retries must not be negative"):
        engine.run(always_late, cas_retries=-1)

    @process(parallel=True)
    def dies_once(ctx: Any, file: str) -> str:
        if not Path(file).exists():
            Path(file).touch()
            os.kill(os.getpid(), 9)
        return "lives"

    with pytest.raises(theus.WorkerCrashed):
        engine.run(dies_once, str(tmp_path / "a"), cas_retries=1)
    assert engine.run(dies_once, str(tmp_path / "b"), retries=1) == "lives"


def test_random_numbers_of_tasks_differ(make_engine: EngineFactory) -> None:
    @process(parallel=True)
    def draw(ctx: Any) -> tuple[float, float]:
        return float(ctx.rng.random()), random.random()

    drawn = []
    for _ in range(2):
        engine = make_engine(workers=2, seed=5)
        futures = [engine.submit(draw) for _ in range(8)]
        drawn.append([future.result(60) for future in futures])
        engine.close()
    own = [[task for task, _ in run] for run in drawn]
    assert own[0] == own[1], "whichever worker ran them"
    assert len(set(own[0])) == 8
    for run in drawn:
        assert len({number for _, number in run}) == 8, "of the global generator, too"


# -- what is gone, word by word --------------------------------------------------------------------


def says(error: type[Exception], *words: str) -> Any:
    """Expect an error that says where it comes from, and what to use."""
    return pytest.raises(error, match=r"part of the Rust Theus.*" + ".*".join(words))


def test_theus_core_is_not_ours() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("theus_core")
    assert theus.__file__
    assert not (Path(theus.__file__).parents[1] / "theus_core").exists()
    assert "### theus_core" in PAGE.read_text()


def test_signals_are_gone(engine: TheusEngine) -> None:
    with says(ImportError, "into the state"):
        from theus import SignalHub  # noqa: F401
    with says(ImportError, "into the state"):
        from theus import SignalReceiver  # noqa: F401
    with says(AttributeError, "into the state"):
        _ = engine.state.signals
    with says(AttributeError, "into the state"):
        engine.run(lambda ctx: ctx.signal)


def test_flux_is_gone(engine: TheusEngine) -> None:
    for module in ("theus.workflow", "theus.orchestrator"):
        with says(ImportError, r"engine\.execute"):
            importlib.import_module(module)
    with says(ImportError, r"engine\.execute"):
        from theus import orchestrator  # noqa: F401
    with says(AttributeError, r"engine\.execute"):
        _ = engine.execute_workflow  # type: ignore[attr-defined]


def test_audit_is_gone(engine: TheusEngine) -> None:
    for module in ("theus.audit", "theus.config"):
        with says(ImportError, r"ctx\.log"):
            importlib.import_module(module)
    with says(AttributeError, r"ctx\.log"):
        engine.set_audit_system(None)  # type: ignore[attr-defined]
    with says(TypeError, r"ctx\.log"):
        TheusEngine(audit_recipe="audit.yaml")  # type: ignore[arg-type]


def test_outboxes_are_gone(engine: TheusEngine) -> None:
    with says(ImportError, "a list in the state"):
        from theus.contracts import OutboxMsg  # noqa: F401
    for name in ("attach_worker", "process_outbox", "outbox"):
        with says(AttributeError, "a list in the state"):
            getattr(engine, name)
    with says(AttributeError, "a list in the state"), engine.transaction() as tx:
        tx.outbox.add("message")

    @process
    def send(ctx: Any) -> None:
        ctx.outbox.add("message")

    with says(AttributeError, "a list in the state"):
        engine.run(send)
    engine.compare_and_swap(0, data={"outbox": ["mine"]})
    assert engine.state.outbox == ["mine"], "names of the user's own come first"
    with engine.transaction() as tx:
        assert tx.outbox == ["mine"]


def test_prefixes_of_zones_mean_nothing(engine: TheusEngine) -> None:
    with says(ImportError, r"outputs=.*engine\.heavy"):
        importlib.import_module("theus.zones")
    for name in ("AppendOnly", "Immutable", "Mutable", "ContextZone", "resolve_zone"):
        with says(ImportError, "outputs="):
            getattr(importlib.import_module("theus.context"), name)
    names = [f"{prefix}x" for prefix in ("log_", "meta_", "sig_", "cmd_", "heavy_")]

    @process(outputs=[f"domain.{name}" for name in names])
    def write(ctx: Any, value: Any) -> None:
        for name in names:
            ctx.domain[name] = value

    for value in ([1], []):
        engine.run(write, value=value)
        assert engine.state.to_dict() == {"domain": dict.fromkeys(names, value)}


def test_there_is_no_singleton_of_namespaces(make_engine: EngineFactory) -> None:
    for name in ("Namespace", "NamespacePolicy", "NamespaceRegistry"):
        with says(ImportError, "a state of its own"):
            getattr(importlib.import_module("theus.context"), name)
    with says(TypeError, "a state of its own"):
        make_engine(namespaces=[{"name": "tasks"}])
    one = make_engine({"tasks": {"n": 1}}, workers=1)
    assert make_engine(workers=1).state.data == {}
    assert one.state.tasks.n == 1


def test_admin_transactions_are_gone() -> None:
    with says(ImportError, r"outputs=.*engine\.edit"):
        from theus.contracts import AdminTransaction  # noqa: F401


def test_nobody_is_told_that_the_system_is_busy(engine: TheusEngine) -> None:
    engine.compare_and_swap(0, data={"a": 0, "b": 0})
    seen = engine.state.version
    for n in range(20):  # loses again and again, which once kept all others out
        engine.compare_and_swap(engine.state.version, data={"a": n})
        with pytest.raises(ContextError, match="Mismatch"):
            engine.compare_and_swap(seen, data={"a": -1}, requester="unlucky")
    with engine.transaction(write_timeout_ms=1) as tx:
        tx.update(data={"a": 1})
        engine.compare_and_swap(engine.state.version, data={"b": 2}, requester="other")
    assert engine.state.data == {"a": 1, "b": 2}
    with says(AttributeError, "cas_retries"):
        _ = engine.report_conflict  # type: ignore[attr-defined]
    with says(TypeError, "nobody waits"):
        TheusEngine(write_timeout_ms=1)  # type: ignore[arg-type]


def test_there_are_no_sub_interpreters() -> None:
    with says(ImportError, r"worker processes.*THEUS_USE_PROCESSES"):
        from theus.parallel import InterpreterPool  # noqa: F401


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["init", "shop", "--quiet"], "README"),
        (["audit", "gen-spec"], r"ctx\.log"),
        (["schema", "gen", "--context-file", "src/context.py"], "dict or dataclass"),
    ],
)
def test_commands_that_are_gone(
    arguments: list[str], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(rf"^theus {arguments[0]} was part of the Rust Theus.*{instead}", said.err)


# -- the table, and the page -----------------------------------------------------------------------


def test_what_the_table_says_is_gone_is_gone(engine: TheusEngine) -> None:
    for name in gone.NAMES:
        for module in map(importlib.import_module, MODULES):
            if name not in vars(module):
                with says(ImportError, re.escape(gone.NAMES[name])):
                    getattr(module, name)
    for name, instead in gone.MODULES.items():
        with says(ImportError, re.escape(instead)):
            importlib.import_module(f"theus.{name}")
        assert not hasattr(theus, name)
    for name in gone.ENGINE:
        with says(AttributeError):
            getattr(engine, name)
    for name in gone.STATE:
        with says(AttributeError):
            getattr(engine.state, name)
    for name in gone.TRANSACTION:
        with says(AttributeError):
            getattr(engine.transaction(), name)
    assert engine.run(lambda ctx, names: [hasattr(ctx, n) for n in names], list(gone.CONTEXT)) == [
        False
    ] * len(gone.CONTEXT)
    for name in gone.OPTIONS:
        with says(TypeError):
            TheusEngine(**{name: None})
    assert PAGE.name in gone.gone_text("", "")


def test_what_never_was_there_is_an_ordinary_error(engine: TheusEngine) -> None:
    for module in map(importlib.import_module, MODULES):
        with pytest.raises(AttributeError, match="has no attribute 'never'"):
            _ = module.never
    with pytest.raises(AttributeError, match="'TheusEngine' object has no attribute 'never'"):
        _ = engine.never  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unexpected keyword argument 'never'"):
        TheusEngine(never=1)  # type: ignore[arg-type]


def test_the_table_is_not_loaded_for_what_is_there(tmp_path: Path) -> None:
    code = "import sys, theus; theus.process; print('theus.audit' in sys.modules)"
    assert printed_by(code, tmp_path) == "False"


class Block(NamedTuple):
    """A Python block of the page: its code, what it prints, or what it raises."""

    code: str
    prints: str | None
    raises: str | None


def blocks() -> list[Block]:
    """The Python blocks of the page, in order."""
    found = []
    for _, code, after in blocks_of(PAGE):
        said = re.match(r"\s*It (prints|raises) `(.*?)`", after)
        assert said, f"the page does not say what comes of this:\n{code}"
        prints = said[2] if said[1] == "prints" else None
        found.append(Block(code, prints, said[2] if prints is None else None))
    return found


BLOCKS = blocks()


def test_the_page_has_blocks_of_both_kinds() -> None:
    assert len(BLOCKS) == PAGE.read_text().count("```python")
    assert len([b for b in BLOCKS if b.prints]) > 15
    assert len([b for b in BLOCKS if b.raises]) > 8


@pytest.mark.parametrize("block", BLOCKS)
def test_it_does_what_the_page_says(block: Block, tmp_path: Path) -> None:
    done = run_program(block.code, tmp_path)
    if block.prints is not None:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() == block.prints
    else:
        assert done.returncode == 1
        error = re.findall(r"^(\w[\w.]*?)(?::|$)", done.stderr, re.M)[-1]
        assert error == block.raises, done.stderr
        if error in ("ImportError", "AttributeError"):
            assert PAGE.name in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["program.py"]
