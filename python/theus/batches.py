"""``engine.map``: many calls of one function, a few at a time in each task.

A task costs about as much as 50 µs of work, so short calls are sent in batches. How long a call
takes is not known beforehand: batches begin with one item and grow until one takes about
`TARGET` seconds. Random numbers belong to the item, so the cut into batches changes no result.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import operator
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["BatchSize", "BatchTask", "Batches", "MapResults", "progress_bar"]

TARGET = 0.05
GROWTH = 4
LARGEST = 1 << 16


class BatchTask(Protocol):
    """A batch on its way."""

    def wait(self) -> None:
        """Wait, in short pieces so that Ctrl-C is noticed, until the batch has ended."""

    async def ended(self) -> None:
        """The same, for the running asyncio loop."""

    def take(self) -> tuple[list[Any], BaseException | None]:
        """The values of its items, up to the first that raised, and what that one raised.

        Raises what became of the task as a whole: its worker crashed, say.
        """

    def cancel(self) -> None:
        """End the batch, whatever it does."""


class Batches(Protocol):
    """Sends the batches of one map."""

    def submit(self, first: int, items: list[tuple[Any, ...]], awaited: bool) -> BatchTask:
        """Send one.

        Args:
            first: index of its first item.
            items: the arguments of each.
            awaited: whether an asyncio loop waits for it.
        """

    def wait_for_any(self, batches: Sequence[Any]) -> int:
        """Wait, as `BatchTask.wait` does, until one of them has ended, and give its place."""


class BatchSize:
    """Finds how many items make a batch of about `TARGET` seconds.

    Args:
        fixed: a size that the caller chose, or None.
        workers: how many batches run at once.
        expected: how many items there will be, or None.
    """

    def __init__(self, fixed: int | None, workers: int, expected: int | None) -> None:
        self._fixed = fixed
        self._workers = workers
        self._expected = expected
        self._size = 1
        self._sent = 0
        # (when it ended, how many items) of the last batches: one alone says little, for several
        # may have ended by the time anyone looks.
        self._ends: collections.deque[tuple[float, int]] = collections.deque(maxlen=workers + 1)

    def next(self) -> int:
        """How many items to send now."""
        if self._fixed is not None:
            return self._fixed
        size = self._size
        if self._expected is not None:
            # Near the end every worker should still have something to do.
            rest = max(0, self._expected - self._sent)
            size = min(size, max(1, rest // (2 * self._workers)))
        self._sent += size
        return size

    def ended(self, items: int, now: float) -> None:
        """A batch of so many items has ended."""
        if self._fixed is not None:
            return
        self._ends.append((now, items))
        if len(self._ends) < self._ends.maxlen:  # type: ignore[operator]
            return
        elapsed = now - self._ends[0][0]
        count = sum(n for _, n in itertools.islice(self._ends, 1, None))
        per_item = max(elapsed, 1e-9) * self._workers / max(1, count)
        ideal = int(TARGET / per_item)
        self._size = max(1, min(ideal, self._size * GROWTH, LARGEST))
        if self._size > items:  # measure the new size, not the old one
            self._ends.clear()
            self._ends.append((now, items))


class MapResults:
    """The results of a map: an iterator and an asynchronous iterator, to be used once.

    Nothing is sent before the first result is asked for, and never more than a few batches ahead
    of what was taken. Closing it, or dropping it, cancels what is on its way.
    """

    def __init__(
        self,
        batches: Batches,
        iterables: tuple[Iterable[Any], ...],
        *,
        chunksize: int | Literal["auto"],
        ordered: bool,
        workers: int,
        progress: bool,
        name: str,
    ) -> None:
        if chunksize != "auto" and operator.index(chunksize) < 1:
            raise ValueError(f"chunksize must be at least 1 or 'auto', not {chunksize!r}")
        expected = _shortest(iterables)
        sizes = BatchSize(None if chunksize == "auto" else chunksize, workers, expected)
        items = zip(*(iter(i) for i in iterables), strict=False)
        bar = (lambda: progress_bar(expected, name)) if progress else None
        limit = 2 * workers + 2
        self._window: _Window | None = _Window(batches, items, sizes, limit, bar, ordered=ordered)
        # The generators refer to the window only, not to this object: dropping it ends them.
        self._generator: Generator[Any, None, None] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._generator is None:
            self._generator = self._take_window().run()
        return next(self._generator)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._take_window().run_async()

    def close(self) -> None:
        """Cancel what is on its way."""
        if self._generator is not None:
            self._generator.close()

    def _take_window(self) -> _Window:
        window, self._window = self._window, None
        if window is None:
            raise RuntimeError("the results of a map can be iterated once; call engine.map again")
        return window


class _Window:
    """The batches of a map that are on their way."""

    def __init__(
        self,
        batches: Batches,
        items: Iterator[tuple[Any, ...]],
        sizes: BatchSize,
        limit: int,
        bar: Callable[[], ProgressBar] | None,
        *,
        ordered: bool,
    ) -> None:
        self._batches = batches
        self._ordered = ordered
        self._items = items
        self._sizes = sizes
        self._limit = limit
        self._flight: collections.deque[tuple[BatchTask, int]] = collections.deque()
        self._waiting: dict[BatchTask, asyncio.Future[None]] = {}  # of those that are awaited
        self._first = 0
        self._make_bar = bar
        self._bar: ProgressBar | None = None

    def run(self) -> Generator[Any, None, None]:
        try:
            self._fill(awaited=False)
            while self._flight:
                yield from self._values(self._wait())
                self._fill(awaited=False)
        finally:
            self._end()

    async def run_async(self) -> AsyncIterator[Any]:
        try:
            self._fill(awaited=True)
            while self._flight:
                for value in self._values(await self._wait_async()):
                    yield value
                self._fill(awaited=True)
        finally:
            self._end()

    def _wait(self) -> int:
        """Wait for the batch that comes next; gives its place."""
        if not self._ordered:
            return self._batches.wait_for_any([task for task, _ in self._flight])
        self._flight[0][0].wait()
        return 0

    async def _wait_async(self) -> int:
        if self._ordered:
            await self._flight[0][0].ended()
            return 0
        import asyncio  # by now its user has imported it

        for task, _ in self._flight:
            if task not in self._waiting:
                self._waiting[task] = asyncio.ensure_future(task.ended())
        await asyncio.wait(self._waiting.values(), return_when=asyncio.FIRST_COMPLETED)
        place, ended = next(
            (place, task)
            for place, (task, _) in enumerate(self._flight)
            if self._waiting[task].done()
        )
        self._waiting.pop(ended).result()
        return place

    def _fill(self, *, awaited: bool) -> None:
        if self._make_bar is not None and self._bar is None:
            self._bar = self._make_bar()
        while len(self._flight) < self._limit:
            batch = list(itertools.islice(self._items, self._sizes.next()))
            if not batch:
                return
            task = self._batches.submit(self._first, batch, awaited)
            self._flight.append((task, len(batch)))
            self._first += len(batch)

    def _values(self, place: int) -> Iterator[Any]:
        """Of a batch that has ended."""
        task, count = self._flight[place]
        del self._flight[place]
        self._sizes.ended(count, time.perf_counter())
        values, failure = task.take()
        values.reverse()
        while values:
            if self._bar is not None:
                self._bar.update(1)
            yield values.pop()  # nothing here keeps a value that was handed out
        if failure is not None:
            raise failure

    def _end(self) -> None:
        while self._waiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                self._waiting.popitem()[1].cancel()
        while self._flight:
            self._flight.pop()[0].cancel()
        if self._bar is not None:
            self._bar.close()


def _shortest(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many items there will be, when every one of the iterables knows."""
    lengths = [operator.length_hint(i, -1) for i in iterables]
    return None if not lengths or min(lengths) < 0 else min(lengths)


class ProgressBar(Protocol):
    def update(self, count: int) -> Any: ...

    def close(self) -> Any: ...


def progress_bar(total: int | None, name: str) -> ProgressBar:
    """tqdm's bar, or one line of text where tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Line(total, name)
    bar: ProgressBar = tqdm(total=total, desc=name)
    return bar


class _Line:
    """One line on stderr that counts."""

    INTERVAL = 0.1

    def __init__(self, total: int | None, name: str) -> None:
        self._of = "" if total is None else f"/{total}"
        self._name = name
        self._count = 0
        self._shown = 0.0

    def update(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now - self._shown >= self.INTERVAL:
            self._shown = now
            self._show("")

    def close(self) -> None:
        self._show("\n")

    def _show(self, end: str) -> None:
        sys.stderr.write(f"\r{self._name}: {self._count}{self._of}{end}")
        sys.stderr.flush()
