"""What a process sees of the world: ``ctx``, in workers and in the host alike."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import ContractViolationError, TheusError
from .frozen import no_such_name
from .gone import CONTEXT, refuse_attribute, refuse_name
from .structures import StateUpdate

if TYPE_CHECKING:
    import logging

    import numpy as np

    from .arrays import ShmArray
    from .bounds import Bounds

__all__ = [
    "BaseDomainContext",
    "BaseGlobalContext",
    "BaseSystemContext",
    "Domain",
    "HeavyView",
    "Inputs",
    "ShmArray",
    "TaskContext",
    "WorkerInfo",
    "task_generator",
]


class Inputs(Mapping[str, Any]):
    """The arguments of a call, by item and by attribute; read-only.

    An argument wins over a method of the same name: with an argument called ``items``,
    ``ctx.input.items`` is that argument.

    Example:
        >>> ctx.input.rate == ctx.input["rate"]
        True
    """

    # The arguments are the instance's attributes, so that reading one costs no call.

    def __init__(self, arguments: Mapping[str, Any] | None = None) -> None:
        self.__dict__.update(arguments or {})

    def __getitem__(self, name: str) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:
            raise KeyError(self._missing(name)) from None

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(self._missing(name))

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"ctx.input is read-only; {name!r} cannot be set. Return new values.")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument, or `default` where it was not given."""
        return self.__dict__.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __repr__(self) -> str:
        return f"Inputs({self.__dict__!r})"

    def __reduce__(self) -> Any:
        return type(self), (dict(self.__dict__),)

    def _missing(self, name: str) -> str:
        return f"ctx.input: {no_such_name(name, self.__dict__)}"


DOMAIN = "domain"
"""The key of the state's data that `ctx.domain` shows."""


class Domain(Mapping[str, Any]):
    """The call's arguments layered over ``state.data["domain"]``; read-only.

    Args:
        arguments: the call's arguments; they win.
        load: gives the mapping below, when it is first needed.
        bounds: what of that may be read; None: everything.
    """

    __slots__ = ("_arguments", "_below", "_bounds", "_load")

    def __init__(
        self,
        arguments: Mapping[str, Any],
        load: Callable[[], Any],
        bounds: Bounds | None = None,
    ) -> None:
        object.__setattr__(self, "_arguments", arguments)
        object.__setattr__(self, "_load", load)
        object.__setattr__(self, "_bounds", bounds)
        object.__setattr__(self, "_below", None)

    def _stored(self) -> Mapping[str, Any]:
        if self._below is None:
            below = self._load()
            if not isinstance(below, Mapping):
                below = {}
            elif self._bounds is not None:
                below = {
                    key: self._bounds.within((DOMAIN, key), value)
                    for key, value in below.items()
                    if self._bounds.may_read((DOMAIN, key))
                }
            object.__setattr__(self, "_below", below)
        stored: Mapping[str, Any] = self._below
        return stored

    def __getitem__(self, name: str) -> Any:
        if name in self._arguments:
            return self._arguments[name]
        if self._bounds is not None:
            self._bounds.require_read((DOMAIN, name))
        try:
            return self._stored()[name]
        except KeyError:
            raise KeyError(self._missing(name)) from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle probe for these
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(self._missing(name)) from None

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise ContractViolationError(
            f"ctx.domain is read-only; {name!r} was to be set. Return the value and name its path "
            "in outputs=[…], or return a StateUpdate."
        )

    __setitem__ = __setattr__
    __delattr__ = __delitem__ = __setattr__  # type: ignore[assignment]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._stored(), **self._arguments})

    def __len__(self) -> int:
        return len({**self._stored(), **self._arguments})

    def __repr__(self) -> str:
        return f"Domain({dict(self)!r})"

    def _missing(self, name: str) -> str:
        return f"ctx.domain: {no_such_name(name, {*self._stored(), *self._arguments})}"


class HeavyView(abc.ABC):
    """The heavy arrays of one version of the state, read-only and without copies.

    A key that is allocated but was never published is not there: ``[key]`` says so, `get` gives
    None.
    """

    __slots__ = ()

    @abc.abstractmethod
    def _find(self, key: str) -> ShmArray | None:
        """The array, or None when there is none."""

    @abc.abstractmethod
    def _is_unpublished(self, key: str) -> bool:
        """Whether a key that was not found is allocated and waits to be published."""

    @abc.abstractmethod
    def keys(self) -> Sequence[str]:
        """The keys of this version."""

    @abc.abstractmethod
    def cow(self, key: str) -> np.ndarray[Any, Any]:
        """A private, writable view: no copy until touched, then of the touched pages only.

        Raises:
            KeyError: there is no such array.
        """

    @abc.abstractmethod
    def alloc(self, key: str, shape: Any, dtype: Any = "float64") -> ShmArray:
        """A zeroed array for a result, in shared memory: return it, and nobody copies it.

        Args:
            key: what it is called; published under it when the process's contract says so.
            shape: an int or a tuple of ints.
            dtype: anything numpy takes but object.

        Raises:
            HeapFull: there is no room.
        """

    def get(self, key: str, default: Any = None) -> Any:
        """The array under `key`, or `default` where there is none in this version."""
        array = self._find(key)
        return default if array is None else array

    def __getitem__(self, key: str) -> ShmArray:
        if not isinstance(key, str):
            raise TypeError(f"keys of heavy arrays are strings, not {type(key).__name__}")
        array = self._find(key)
        if array is None:
            raise KeyError(self._missing(key))
        return array

    def __getattr__(self, name: str) -> ShmArray:
        if name.startswith("__"):
            raise AttributeError(name)
        array = self._find(name)
        if array is None:
            raise AttributeError(self._missing(name))
        return array

    def __setitem__(self, key: str, value: Any) -> NoReturn:
        raise ContractViolationError(
            f"ctx.heavy is read-only; {key!r} was to be set. In a worker return the array and name "
            f"'heavy.{key}' in outputs=[…]; in the host use engine.heavy.put({key!r}, array)."
        )

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        return f"<heavy arrays: {', '.join(self.keys()) or 'none'}>"

    def _missing(self, key: str) -> str:
        if self._is_unpublished(key):
            return (
                f"heavy[{key!r}] is allocated but not published, so nobody reads it yet. Fill it "
                "in the host, then call its publish(), or pass it to compare_and_swap(heavy=…)."
            )
        return f"heavy: {no_such_name(key, self._alike(key))}"

    def _alike(self, key: str) -> Sequence[str]:
        """Keys to offer instead of one that is not there."""
        return self.keys()


@dataclass(frozen=True)
class WorkerInfo:
    """Which worker runs the task.

    Attributes:
        index: 0 … workers-1; for choosing a GPU, say. The host's own is 0.
        pid: its process id.
    """

    index: int
    pid: int


def task_generator(seed: int, rng_key: int, item: int | None = None) -> np.random.Generator:
    """The random generator of one task, or of one item of a batch.

    It depends on nothing else: not on the worker, nor on their number, nor on how a map was cut
    into batches.

    Args:
        seed: the engine's.
        rng_key: the task's, or that of the whole map.
        item: index of the item in its map; None for a call that is not part of one.
    """
    import numpy as np

    # Two words each: numpy joins the words of a key without marks between its numbers, so that
    # (2**32 + 5,) would be (5, 1).
    numbers = (rng_key,) if item is None else (rng_key, item)
    words = [word for n in numbers for word in (n & 0xFFFFFFFF, n >> 32 & 0xFFFFFFFF)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=words)))


class TaskContext:
    """The first argument of a process.

    Attributes:
        input: the call's arguments, see `Inputs`.
        heavy: read-only arrays of the task's version, see `HeavyView`.
        domain: the arguments over ``state.data["domain"]``; in a process that is not parallel what
            its outputs name can be written.
        state: the task's version of the state.
        log: a `logging.Logger`; from a worker its records reach the host.
        worker: which worker this is, see `WorkerInfo`.
        rng: a `numpy.random.Generator` of this task alone: results depend neither on the number
            of workers nor on which of them runs the task.
    """

    __slots__ = (
        "_item",
        "_out",
        "_rng",
        "_rng_key",
        "_seed",
        "domain",
        "heavy",
        "input",
        "log",
        "state",
        "worker",
    )

    def __init__(
        self,
        *,
        input: Inputs,
        domain: Any,
        heavy: HeavyView,
        state: Any,
        log: logging.Logger,
        worker: WorkerInfo,
        seed: int,
        rng_key: int,
        item: int | None = None,
        out: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self.input = input
        self.domain = domain
        self.heavy = heavy
        self.state = state
        self.log = log
        self.worker = worker
        self._seed = seed
        self._rng_key = rng_key
        self._item = item
        self._out = out
        self._rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The task's own random generator, see `task_generator`."""
        if self._rng is None:
            self._rng = task_generator(self._seed, self._rng_key, self._item)
        return self._rng

    @property
    def out(self) -> np.ndarray[Any, Any]:
        """This item's row of the array that ``engine.map(…, out=key)`` makes: zeros, to be written.

        Valid for the time of the call: what is written to it later reaches nobody.

        Raises:
            TheusError: the call is none of a map with ``out=``.
        """
        if self._out is None:
            # Not an AttributeError, after which __getattr__ would be asked and hide the reason.
            raise TheusError(
                "ctx.out: this task has no output array; engine.map(…, out=key, shape=…) gives "
                "each item a row of one. Elsewhere return the values, or allocate an array for "
                "them with ctx.heavy.alloc(key, shape) and return that."
            )
        return self._out

    def __getattr__(self, name: str) -> NoReturn:
        refuse_attribute("ctx", name, CONTEXT)
        known = [n for n in dir(type(self)) if not n.startswith("_")]
        raise AttributeError(f"ctx: {no_such_name(name, known)}")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "ctx belongs to the call that it was made for: it cannot be copied, returned or sent. "
            "Take from it what is needed: ctx.state.to_dict(), say, or numpy.array(ctx.heavy[key])."
        )

    def __copy__(self) -> TaskContext:
        return self  # a copy would have the same parts

    def __repr__(self) -> str:
        return f"<theus.TaskContext, inputs: {', '.join(self.input) or 'none'}>"


def store_row(row: np.ndarray[Any, Any], value: Any) -> None:
    """What an item of a map returned belongs into its row of the output.

    None does not: it has written the row itself, which it may have returned as well.
    """
    if isinstance(value, StateUpdate):
        raise TypeError(
            "with out= an item returns its row, or None; a StateUpdate belongs to a map without it"
        )
    if value is not None and value is not row:
        row[...] = value


def clear_row(row: np.ndarray[Any, Any]) -> None:
    """An item that is run again finds zeros, like the first time."""
    import numpy as np  # by now its maker has imported it

    row[...] = np.zeros((), row.dtype)


class _Attributes:
    """A bag of attributes, given by keyword."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items())
        return f"{type(self).__name__}({given})"


class BaseGlobalContext(_Attributes):
    """Base of an engine's settings; seeds ``state.data["global_ctx"]``."""


class BaseDomainContext(_Attributes):
    """Base of an engine's working data; seeds ``state.data["domain"]``."""


# Dataclasses, so that one that derives from it takes these two as well.
@dataclass(init=False, repr=False, eq=False)
class BaseSystemContext(_Attributes):
    """Base of what is given as an engine's context: settings and working data.

    Args:
        global_ctx: the settings.
        domain: the working data.
    """

    global_ctx: Any = None
    domain: Any = None

    def __init__(self, global_ctx: Any = None, domain: Any = None, **attributes: Any) -> None:
        super().__init__(global_ctx=global_ctx, domain=domain, **attributes)


def __getattr__(name: str) -> Any:
    if name != "ShmArray":
        refuse_name(__name__, name)
    from .arrays import ShmArray  # imports numpy, and so only when it is asked for

    return ShmArray
