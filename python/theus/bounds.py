"""What a process may read and write of the state: what its contract names, if it names anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .context import DOMAIN, HeavyView
from .contracts import ProcessContract
from .errors import ContractViolationError
from .frozen import FrozenDict, FrozenLeaf
from .outputs import HEAVY
from .paths import join_path, parse_path

if TYPE_CHECKING:
    from .arrays import ShmArray

__all__ = ["BoundedDict", "BoundedHeavy", "Bounds"]


class Bounds:
    """The reach of one process.

    Without `inputs` it may read everything. With them it reads its arguments, and of the state
    what they name: ``ctx.domain.rate`` by ``"domain.rate"``, or by ``"domain"`` as a whole;
    ``ctx.heavy`` by ``"heavy.<key>"``. On the way to a longer path only that way is seen. It may
    write what its `outputs` name, and read that as well.

    Args:
        name: of the process.
        contract: its contract, if it has one.
    """

    def __init__(self, name: str, contract: ProcessContract | None) -> None:
        self._name = name
        self._inputs = () if contract is None else contract.inputs
        self._outputs = () if contract is None else contract.outputs
        self._heavy = {name[len(HEAVY) :] for name in self._inputs if name.startswith(HEAVY)}
        self._writes = [parse_path(name) for name in self._outputs if not name.startswith(HEAVY)]
        reads = [parse_path(name) for name in self._inputs if not name.startswith(HEAVY)]
        self._reads = [*reads, *self._writes]

    @property
    def read_everything(self) -> bool:
        """Whether nothing needs to be asked."""
        return not self._inputs

    def may_read(self, path: tuple[str, ...]) -> bool:
        """Whether a path of the data is among the inputs, below one, or on the way to one."""
        return not self._inputs or any(
            path[: len(read)] == read or read[: len(path)] == path for read in self._reads
        )

    def require_read(self, path: tuple[str, ...]) -> None:
        """Raise ContractViolationError if a path of the data may not be read."""
        if not self.may_read(path):
            first, *rest = path[1:] or path
            place = f"ctx.{DOMAIN}[{first!r}]" + "".join(f"[{name!r}]" for name in rest)
            raise self._undeclared(place, join_path([str(name) for name in path]))

    def within(self, path: tuple[str, ...], value: Any) -> Any:
        """What may be read of the value at a path."""
        whole = not self._inputs or any(path[: len(read)] == read for read in self._reads)
        if whole or not isinstance(value, FrozenDict) or isinstance(value, FrozenLeaf):
            return value
        return BoundedDict(value, path, self)

    def may_write(self, path: tuple[str, ...]) -> bool:
        """Whether a path of the data, or something below it, is among the outputs."""
        return any(
            path[: len(output)] == output or output[: len(path)] == path for output in self._writes
        )

    def may_replace(self, path: tuple[str, ...]) -> bool:
        """Whether a path of the data as a whole is among the outputs."""
        return any(path[: len(output)] == output for output in self._writes)

    def may_read_heavy(self, key: str) -> bool:
        return not self._inputs or key in self._heavy

    def require_heavy(self, key: str) -> None:
        """Raise ContractViolationError if ``ctx.heavy[key]`` is not among the inputs."""
        if not self.may_read_heavy(key):
            raise self._undeclared(f"ctx.heavy[{key!r}]", f"heavy.{key}")

    def require_write(self, path: tuple[str, ...]) -> None:
        """Raise ContractViolationError if a path of the data is not among the outputs."""
        if self.may_replace(path):
            return
        text = join_path(path)
        declared = f"its outputs {list(self._outputs)}" if self._outputs else "any outputs"
        raise ContractViolationError(
            f"process {self._name!r} writes {text!r}, which is not among {declared}. Declare it: "
            f"@process(outputs=[{text!r}])."
        )

    def heavy(self, view: HeavyView) -> HeavyView:
        """The arrays as far as they may be read."""
        return BoundedHeavy(view, self) if self._inputs else view

    def _undeclared(self, what: str, path: str) -> ContractViolationError:
        return ContractViolationError(
            f"process {self._name!r} reads {what}, which is not among its inputs "
            f"{list(self._inputs)}. Declare it: inputs=[…, {path!r}]."
        )


class BoundedDict(FrozenDict):
    """A dict of the state of which a contract names some, further down."""

    __slots__ = ("_bounds", "_path")

    def __init__(self, whole: FrozenDict, path: tuple[str, ...], bounds: Bounds) -> None:
        own = object.__setattr__  # a snapshot refuses its own
        own(self, "_bounds", bounds)
        own(self, "_path", path)
        super().__init__(
            (key, bounds.within((*path, key), value))
            for key, value in whole.items()
            if bounds.may_read((*path, key))
        )

    def __missing__(self, key: Any) -> NoReturn:
        self._ask(key)
        raise KeyError(key)

    def _ask(self, key: object) -> None:
        if isinstance(key, str):  # a path has no other names
            self._bounds.require_read((*self._path, key))

    def get(self, key: Any, default: Any = None) -> Any:
        """The value, or `default` where there is none; what may not be read is an error."""
        self._ask(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._ask(key)
        return super().__contains__(key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy, numpy, notebooks and others probe for these
            raise AttributeError(name)
        return super().__getattr__(name)


class BoundedHeavy(HeavyView):
    """The arrays of a version of which a contract names some."""

    __slots__ = ("_bounds", "_view")

    def __init__(self, view: HeavyView, bounds: Bounds) -> None:
        self._view = view
        self._bounds = bounds

    def _find(self, key: str) -> ShmArray | None:
        self._bounds.require_heavy(key)
        return self._view._find(key)

    def _is_unpublished(self, key: str) -> bool:
        return self._view._is_unpublished(key)

    def _alike(self, key: str) -> Sequence[str]:
        return self._view._alike(key)

    def keys(self) -> Sequence[str]:
        """The keys of this version that may be read."""
        return [key for key in self._view if self._bounds.may_read_heavy(key)]

    def cow(self, key: str) -> Any:
        """As without bounds, for what may be read."""
        self._bounds.require_heavy(key)
        return self._view.cow(key)

    def alloc(self, key: str, shape: Any, dtype: Any = "float64") -> ShmArray:
        """As without bounds: what becomes of it is for the outputs to say."""
        return self._view.alloc(key, shape, dtype)
