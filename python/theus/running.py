"""The ways to run a process: awaited, blocking, as a future, over many items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from .contracts import contract_of
from .errors import TheusError
from .limits import CAS_RETRIES, Limits
from .names import refuse_shadowed_options

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .arrays import ShmArray
    from .batches import MapResults
    from .dispatch import Dispatcher
    from .map_output import MapOutput

__all__ = ["Running"]

Process = Callable[..., Any] | str


class Running:
    """The ways to run a process, for the engine and for a view of it with other options."""

    _dispatcher: Dispatcher
    _limits: Limits

    def _limited(
        self, process: Process, timeout: float | None, retries: int, cas_retries: int
    ) -> Limits:
        """The options of a call; a process that has parameters of those names is refused."""
        if timeout is None and not retries and cas_retries == CAS_RETRIES:
            return self._limits
        fn = self._dispatcher.function(process)
        refuse_shadowed_options(fn, getattr(fn, "__name__", "?"))
        return Limits.of(timeout, retries, cas_retries)

    async def execute(
        self,
        process: Process,
        /,
        *args: Any,
        timeout: float | None = None,
        retries: int = 0,
        cas_retries: int = CAS_RETRIES,
        **inputs: Any,
    ) -> Any:
        """Run a process and wait for its result without blocking the event loop.

        Parallel processes, and functions that no decorator marked, run in the worker pool; other
        processes run in this process: async ones on the loop, plain ones on a thread.

        Args:
            process: a function, or the name of a registered or decorated one.
            *args: positional arguments after the context.
            timeout: seconds that it may run, not counting the time in the queue. Its worker is
                ended then, and only that.
            retries: how often to start again when its worker crashes.
            cas_retries: how often to run again what is not parallel, when somebody else has changed
                in between what it writes or has read for that.
            **inputs: keyword arguments, also found in ``ctx.input``.

        Returns:
            What the process returned.

        Raises:
            UnknownProcess: no process has that name.
            StatelessnessError: an argument cannot leave this process; nothing was sent.
            WorkerCrashed: the worker died. TaskTimeout: it ran too long.
            Exception: what the process raised, with the remote traceback as its cause.

        Example:
            >>> total = await engine.execute(total_of, column=3, timeout=10)
        """
        limits = self._limited(process, timeout, retries, cas_retries)
        call = self._dispatcher.call(process, args, inputs, limits)
        del args, inputs  # what the task holds alone is what allocations wait for
        return await self._dispatcher.execute(call)

    def run(
        self,
        process: Process,
        /,
        *args: Any,
        timeout: float | None = None,
        retries: int = 0,
        cas_retries: int = CAS_RETRIES,
        **inputs: Any,
    ) -> Any:
        """Run a process and wait for its result in this thread; the same as `execute` otherwise.

        Works without asyncio and also under a running loop, as in a notebook. Ctrl-C ends the
        task.
        """
        limits = self._limited(process, timeout, retries, cas_retries)
        call = self._dispatcher.call(process, args, inputs, limits)
        del args, inputs  # what the task holds alone is what allocations wait for
        return self._dispatcher.run(call)

    def submit(
        self,
        process: Process,
        /,
        *args: Any,
        timeout: float | None = None,
        retries: int = 0,
        cas_retries: int = CAS_RETRIES,
        **inputs: Any,
    ) -> Future[Any]:
        """Start a process and return a `concurrent.futures.Future`.

        ``future.cancel()`` also ends a task that is running. The arguments are those of `execute`.

        Example:
            >>> engine.submit(pow, 2, 3).result()
            8
        """
        limits = self._limited(process, timeout, retries, cas_retries)
        return self._dispatcher.submit(self._dispatcher.call(process, args, inputs, limits))

    @overload
    def map(
        self,
        process: Process,
        /,
        *iterables: Iterable[Any],
        chunksize: int | Literal["auto"] = "auto",
        ordered: bool = True,
        progress: bool = False,
        out: None = None,
    ) -> MapResults: ...

    @overload
    def map(
        self,
        process: Process,
        /,
        *iterables: Iterable[Any],
        chunksize: int | Literal["auto"] = "auto",
        ordered: bool = True,
        progress: bool = False,
        out: str,
        shape: int | Sequence[int] = (),
        dtype: Any = float,
    ) -> ShmArray: ...

    def map(
        self,
        process: Process,
        /,
        *iterables: Iterable[Any],
        chunksize: int | Literal["auto"] = "auto",
        ordered: bool = True,
        progress: bool = False,
        out: str | None = None,
        shape: int | Sequence[int] = (),
        dtype: Any = float,
    ) -> MapResults | ShmArray:
        """Call a process for each item, in parallel; results come as they are asked for, in order.

        Nothing runs before the first result is asked for, and never more than a few batches ahead,
        so endless inputs and results larger than memory are fine (not with `out`, which needs to
        know how many there are). The first exception is raised in its place, and the rest is
        cancelled.

        Args:
            process: a function or a name; called with one item of each iterable.
            *iterables: as for the builtin map: it ends with the shortest.
            chunksize: items per task; "auto" finds a size that takes about 50 ms. It never
                changes a result: random numbers belong to the item.
            ordered: False: results come as they are ready (a few together, where calls are short),
                so that a slow item keeps none waiting.
            progress: show a progress bar (tqdm's, where it is installed).
            out: the key of a heavy array to be made, with a row for each item, in place of
                results that travel back. A process writes its row as ``ctx.out``; what a function
                returns is stored there, as numpy assigns it, unless it is None. Then `map` runs to
                the end before it returns (in a coroutine it holds up the loop: use
                ``asyncio.to_thread``), and the array is published when all rows are there; when an
                item raises, it never is.
            shape: of a row; an int or a tuple of ints. Default: a row is one element.
            dtype: of its elements; default float64.

        Returns:
            An iterator, and an asynchronous one for ``async for``; with `out` the published array,
            of shape ``(items, *shape)``.

        Raises:
            HeapFull: with `out`: there is no room for it.
            ValueError: with `out`: a row does not take what an item returned, among others.

        Example:
            >>> squares = list(engine.map(square, range(1000)))
            >>> engine.map(square, range(1000), out="squares")[3]
            9.0
        """
        if not iterables:
            raise TypeError("map() needs at least one iterable")
        fn = self._dispatcher.function(process)
        if out is None:
            if shape != () or dtype is not float:
                raise TypeError("shape= and dtype= say what the array of out=key is like")
            return self._results(fn, iterables, chunksize, ordered, progress)
        from .map_output import MapOutput

        self._dispatcher.session.require_open()
        contract = contract_of(fn)
        if contract is not None and contract.outputs:
            name, outputs = getattr(fn, "__name__", "the process"), list(contract.outputs)
            raise TypeError(
                f"{name} declares {outputs=}, which out= would leave without a value: with out= "
                "what an item returns is its row"
            )
        items = list(zip(*iterables, strict=False))
        output = MapOutput(
            self._dispatcher.session,
            out,
            len(items),
            shape,
            dtype,
            in_workers=self._dispatcher.maps_in_workers(fn),
        )
        try:
            columns = tuple(zip(*items, strict=True)) or ((),)
            for left in self._results(fn, columns, chunksize, ordered, progress, output):
                if left is not None:
                    raise TheusError(
                        f"{left!r} came back instead of being stored; please report it"
                    )
            return output.publish()
        except BaseException:
            output.drop()
            raise

    def _results(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        chunksize: int | Literal["auto"],
        ordered: bool,
        progress: bool,
        output: MapOutput | None = None,
    ) -> MapResults:
        from .batches import MapResults

        return MapResults(
            self._dispatcher.batches(fn, self._limits, output),
            iterables,
            chunksize=chunksize,
            ordered=ordered,
            workers=self._dispatcher.session.worker_count(),
            progress=progress,
            name=getattr(fn, "__name__", "map"),
        )
