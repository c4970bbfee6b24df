"""The engine: what a program opens, publishes arrays in and runs processes with."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ._core import core
from .contracts import ContractViolationError, contract_of
from .errors import StatelessnessError, TheusError
from .frozen import thaw
from .gone import ENGINE, refuse_attribute, refuse_name, refuse_option, refuse_signal
from .limits import CAS_RETRIES, Limits
from .opening import open_engine
from .paths import parse_path
from .running import Running
from .settings import Settings
from .structures import REPLACE

if TYPE_CHECKING:  # what is large is imported while the first engine's workers start
    from concurrent.futures import Future

    from .heavy import Heavy
    from .state import State
    from .transactions import Transaction

__all__ = ["ContractViolationError", "EngineOptions", "StatelessnessError", "TheusEngine"]

# With what these import it is all that an open engine may need, but for what needs asyncio.
_OF_AN_OPEN_ENGINE = ("heavy", "map_tasks", "reaping", "stats", "transactions")

F = TypeVar("F", bound=Callable[..., Any])
Process = Callable[..., Any] | str


class TheusEngine(Running):
    """A pool of worker processes, arrays that they share, and a versioned state.

    Works without arguments. It can be used as a context manager, plain or async: leaving the block
    waits for what was submitted, or ends it when an exception leaves the block. An engine that is
    never closed ends with the program.

    Args:
        context: seeds ``state.data``: a dict, a dataclass or an object with attributes; ``...``
            and None mean an empty state.
        workers: number of worker processes; default: one per CPU that this process may use
            (THEUS_POOL_SIZE).
        heap: limit of shared memory, bytes or e.g. ``"4GB"``; default: 80 % of what the machine
            or control group can still give (THEUS_HEAP_SIZE, in MB).
        strict_cas: compare-and-swap fails on any change since the expected version, not only on
            one to the same places.
        preload: modules that are imported once, before the workers are forked.
        seed: root of the tasks' random streams; default: drawn from the kernel.
        name: for messages and stats.

    Raises:
        StatelessnessError: something in `context` cannot leave this process.
        ImportError: theus cannot run here. TheusError: a limit of the machine is in the way.

    Example:
        >>> with TheusEngine(workers=4) as engine:
        ...     engine.heavy.put("prices", prices)
        ...     means = list(engine.map(mean_of_column, range(8)))
    """

    def __init__(
        self,
        context: Any = None,
        *,
        workers: int | None = None,
        heap: int | str | None = None,
        strict_cas: bool = False,
        preload: Iterable[str] = ("numpy",),
        seed: int | None = None,
        name: str | None = None,
        **gone: NoReturn,  # none, but a name that the Rust Theus took is refused with advice
    ) -> None:
        for option in gone:
            refuse_option("TheusEngine", option)
        data = _data_of(context)
        settings = Settings.of(workers=workers, heap=heap, seed=seed, preload=preload, name=name)
        handle = open_engine(settings)
        try:
            _import_the_rest()  # while its workers start
            from .dispatch import Dispatcher
            from .session import Session

            session = Session(settings, handle, strict_cas=strict_cas)
        except BaseException:
            core().close(handle.value, 0)
            raise
        self._session = session
        self._dispatcher = Dispatcher(session)
        self._limits = Limits()
        if data:
            try:
                session.committer.commit(None, data, {})
            except BaseException:
                session.close()
                raise

    # -- the state -----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """A snapshot of the current version; it never changes."""
        return self._session.state()

    @property
    def heavy(self) -> Heavy:
        """The shared arrays: make, publish, read and remove them."""
        from .heavy import Heavy

        return Heavy(self._session.committer, self._session.state)

    def compare_and_swap(
        self,
        expected_version: int,
        data: Mapping[str, Any] | None = None,
        heavy: Mapping[str, Any] | None = None,
        signal: None = None,
        requester: str | None = None,
    ) -> State:
        """Change the state, unless somebody else changed the same places in between.

        Args:
            expected_version: the version that was read, ``engine.state.version``.
            data: values by path: ``{"domain.rate": 0.5}``. Dots separate names; dicts merge by
                key; `theus.DELETE` removes, `theus.REPLACE` replaces a whole subtree.
            heavy: arrays by key, literally. One from ``engine.heavy.alloc`` is published without
                a copy; any other is copied into shared memory once.
            signal: not supported.
            requester: accepted for programs that pass it; nobody is let in before others here.

        Returns:
            The state afterwards.

        Raises:
            ContextError: a conflict; says which paths, and its attributes do too.
            ValueError: `expected_version` lies above the current version.
            TypeError: `signal` is given.
            StatelessnessError: a value cannot leave this process.

        Example:
            >>> state = engine.compare_and_swap(engine.state.version, data={"step": 1})
        """
        refuse_signal("compare_and_swap", signal)
        del requester
        if isinstance(expected_version, bool) or not isinstance(expected_version, int):
            raise TypeError(
                f"expected_version is a number, engine.state.version, not {expected_version!r}"
            )
        if expected_version < 0:
            raise ValueError(f"expected_version must not be negative, but is {expected_version}")
        self._session.require_open()
        self._session.committer.commit(
            expected_version, {} if data is None else data, {} if heavy is None else heavy
        )
        return self.state

    def transaction(self, write_timeout_ms: int | None = None) -> Transaction:
        """Several changes that are committed together, or not at all: a context manager.

        Args:
            write_timeout_ms: accepted for programs that pass it; nobody waits for a lock here.

        Example:
            >>> with engine.transaction() as tx:
            ...     tx.domain.step += 1
            ...     tx.update(heavy={"curve": curve})
        """
        from .transactions import Transaction

        del write_timeout_ms
        self._session.require_open()
        return Transaction(self.state, self._session.committer)

    def edit(self) -> Transaction:
        """The same as `transaction`, under the name that reads better with assignments.

        Example:
            >>> with engine.edit() as state:
            ...     state.domain.names.append("x")
        """
        return self.transaction()

    def update(self, path: str, fn: Callable[[Any], Any], *, cas_retries: int = CAS_RETRIES) -> Any:
        """Replace the value at a path by what `fn` makes of it, whoever else changes it meanwhile.

        Args:
            path: a dotted path in the data.
            fn: gets a copy of the value, None where there is none, and gives the new one. It is
                called again after a conflict.
            cas_retries: how often at most. In a coroutine the loop waits along.

        Returns:
            The new value.

        Raises:
            ContextError: it lost against others each time.
            Exception: what `fn` raises; nothing is changed then.

        Example:
            >>> engine.update("domain.count", lambda n: (n or 0) + 1)
            1
        """
        self._session.require_open()
        parsed = parse_path(path)

        def prepare() -> tuple[int, Any]:
            version, value = self._session.value_at(path, parsed)
            return version, fn(deepcopy(thaw(value)))

        def commit(prepared: tuple[int, Any]) -> Any:
            version, new = prepared
            whole = REPLACE(new) if isinstance(new, dict) else new
            self._session.committer.commit(version, {path: whole}, {})
            return new

        return self._session.contention.run(prepare, commit, cas_retries, [path])

    # -- processes -----------------------------------------------------------------------------

    def register(self, fn: F, name: str | None = None) -> F:
        """Make a process known by name; also usable as a decorator.

        Args:
            fn: the function.
            name: what to call it; default: its own name.

        Returns:
            `fn` itself.

        Raises:
            TypeError: it has a parameter with the name of an option of `execute`.
            StatelessnessError: it is to run in workers, and holds something that cannot leave this
                process.
        """
        from .functions import require_sendable

        self._dispatcher.registry.add(fn, name)
        contract = contract_of(fn)
        if contract is None or contract.parallel:
            require_sendable(fn)
        return fn

    def scan_and_register(self, directory: str) -> list[str]:
        """Import every Python file below a directory and register the processes in them.

        Files and directories whose name begins with ``__`` are left out.

        Returns:
            The names that were registered, sorted.

        Raises:
            NotADirectoryError: there is no such directory.
            ImportError: a file cannot be imported; says which.
        """
        from .scan import import_tree  # few need it

        found = import_tree(directory)
        for fn in found:
            self.register(fn)
        return sorted(fn.__name__ for fn in found)

    def execute_parallel(self, process: Process, /, *args: Any, **inputs: Any) -> Any:
        """`run` in the worker pool, whatever the contract says. It blocks: in async code await
        `execute`.
        """
        call = self._dispatcher.call(process, args, inputs, self._limits, force_parallel=True)
        del args, inputs  # what the task holds alone is what allocations wait for
        return self._dispatcher.run(call)

    def options(
        self, *, timeout: float | None = None, retries: int = 0, cas_retries: int = CAS_RETRIES
    ) -> EngineOptions:
        """A view of this engine with options set, so that every keyword is the function's.

        Example:
            >>> engine.options(timeout=5).run(fetch, timeout="an argument of fetch")
        """
        return EngineOptions(self, Limits.of(timeout, retries, cas_retries))

    # -- housekeeping --------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What the engine holds and does now.

        Returns:
            ``version``, ``workers`` (list of ``pid``, ``state``, ``tasks``, ``rss_bytes``),
            ``memory`` (``in_use``, ``free_list``, ``limit``, in bytes), ``segments`` (pieces of
            memory that hold an array or a value), ``arenas`` (what small ones of them share),
            ``tasks`` (``queued``, ``running``, ``done``, ``failed``), ``collisions`` (names that
            were registered for more than one function), ``conflicts`` (lost swaps by path),
            ``reaper`` (what was given back since the engine was opened: ``segments``, ``bytes``,
            ``handles``, ``processes``; and ``last_run``, when it last had anything to do, as
            `time.time` counts, None for never), ``features`` (what of the kernel is used).
        """
        from .stats import stats_of

        self._session.require_open()
        return stats_of(self._session, self._dispatcher.registry.collisions)

    def reap(self) -> dict[str, int]:
        """Reclaim now what would be reclaimed a little later; nothing that is in use goes.

        It is never needed: a background reaper does it without being asked. It collects garbage
        here, and asks idle workers that still map retired memory to do so too.

        Returns:
            What was given back while it ran, by this call or by anybody: ``segments`` that no
            process maps any more and their ``bytes``, ``handles`` that finalizers had queued, ended
            ``processes`` of which nothing is held any more. Allocations meanwhile do not change
            it, and no two calls report the same.

        Example:
            >>> engine.reap()
            {'segments': 1, 'bytes': 8192, 'handles': 1, 'processes': 0}
        """
        from .reaping import reap

        self._session.require_open()
        return reap(self._session.engine)

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Close the engine, by default after everything that was submitted has ended.

        Args:
            wait: False: return at once; the engine closes when its tasks have ended.
            cancel_futures: end what has not ended yet, running tasks included.
        """
        if cancel_futures:
            self._session.close()
        elif wait:
            self._session.drain()
            self._session.close()
        else:
            self._session.close_when_drained()

    def close(self) -> None:
        """Close the engine now: tasks that have not ended are cancelled. Arrays stay valid.

        Once more does nothing.
        """
        self._session.close()

    def __enter__(self) -> TheusEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.shutdown(cancel_futures=kind is not None)
        finally:
            self.close()  # also when Ctrl-C ends the wait

    async def __aenter__(self) -> TheusEngine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from .awaiting import on_thread

        try:
            await on_thread(lambda: self.shutdown(cancel_futures=kind is not None))
        finally:
            self.close()  # also when Ctrl-C, or who cancels, ends the wait

    if not TYPE_CHECKING:  # with it a checker takes any name for one that is there

        def __getattr__(self, name: str) -> NoReturn:
            refuse_attribute("engine", name, ENGINE)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        options = self._session.options
        with contextlib.suppress(TheusError):
            return f"<TheusEngine {options.name!r}, version {self.state.version}>"
        return f"<TheusEngine {options.name!r}, closed>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "an engine cannot be sent to another process. A process reads ctx.heavy and ctx.state, "
            "and changes the state by what it returns."
        )


def _import_the_rest() -> None:
    """Import what an open engine needs. Not when that is first used: by then a program may have run
    out of descriptors, or may not read where this package is any more."""
    try:
        for name in _OF_AN_OPEN_ENGINE:
            importlib.import_module(f".{name}", __package__)
    except OSError as error:  # the engine has just taken some descriptors
        raise TheusError(
            f"theus cannot be imported: {error}. If too many files are open, close some or raise "
            "the limit (ulimit -n)."
        ) from error


def _data_of(context: Any) -> dict[str, Any]:
    """The first content of the state."""
    if context is None or isinstance(context, EllipsisType):
        return {}
    from .seeding import data_of

    return data_of(context)


class EngineOptions(Running):
    """An engine with options set; see `TheusEngine.options`. Everything else is the engine's."""

    def __init__(self, engine: TheusEngine, limits: Limits) -> None:
        self._engine = engine
        self._dispatcher = engine._dispatcher
        self._limits = limits

    async def execute(self, process: Process, /, *args: Any, **inputs: Any) -> Any:
        """As `TheusEngine.execute`, with the options of this view."""
        call = self._dispatcher.call(process, args, inputs, self._limits)
        del args, inputs
        return await self._dispatcher.execute(call)

    def run(self, process: Process, /, *args: Any, **inputs: Any) -> Any:
        """As `TheusEngine.run`, with the options of this view."""
        call = self._dispatcher.call(process, args, inputs, self._limits)
        del args, inputs
        return self._dispatcher.run(call)

    def submit(self, process: Process, /, *args: Any, **inputs: Any) -> Future[Any]:
        """As `TheusEngine.submit`, with the options of this view."""
        return self._dispatcher.submit(self._dispatcher.call(process, args, inputs, self._limits))

    def options(self, **changes: Any) -> EngineOptions:
        """This view with some options changed."""
        return EngineOptions(self._engine, Limits.of(**{**self._limits._asdict(), **changes}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


if not TYPE_CHECKING:  # with it a checker takes any name for one that is there

    def __getattr__(name: str) -> NoReturn:
        refuse_name(__name__, name)
