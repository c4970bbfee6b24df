"""What a process may read and write of the state: what its contract names, if it names anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .context import HeavyView
from .contracts import ProcessContract
from .errors import ContractViolationError
from .outputs import HEAVY
from .updates import join_path, parse_path

if TYPE_CHECKING:
    from .arrays import ShmArray

__all__ = ["DOMAIN", "BoundedHeavy", "Bounds"]

DOMAIN = "domain"


class Bounds:
    """The reach of one process.

    Without `inputs` it may read everything. With them it reads its arguments, and of the state
    what they name: ``ctx.domain.rate`` by ``"domain.rate"``, or by ``"domain"`` as a whole;
    ``ctx.heavy`` by ``"heavy.<key>"``. Of a longer path the first name below the domain counts. It
    may write what its `outputs` name, and read that as well.

    Args:
        name: of the process.
        contract: its contract, if it has one.
    """

    def __init__(self, name: str, contract: ProcessContract | None) -> None:
        self._name = name
        self._inputs = () if contract is None else contract.inputs
        self._outputs = () if contract is None else contract.outputs
        self._heavy = {name[len(HEAVY) :] for name in self._inputs if name.startswith(HEAVY)}
        paths = [parse_path(name) for name in self._inputs if not name.startswith(HEAVY)]
        self._domain = {path[1] for path in paths if path[0] == DOMAIN and len(path) > 1}
        self._reads_domain = not self._inputs or (DOMAIN,) in paths
        self._writes = [parse_path(name) for name in self._outputs if not name.startswith(HEAVY)]

    @property
    def read_everything(self) -> bool:
        """Whether nothing needs to be asked."""
        return not self._inputs

    def may_read_domain(self, name: str) -> bool:
        """Whether ``ctx.domain[name]`` is among the inputs, or on the way to an output."""
        return self._reads_domain or name in self._domain or self.may_write((DOMAIN, name))

    def may_write(self, path: tuple[str, ...]) -> bool:
        """Whether a path of the data, or something below it, is among the outputs."""
        return any(
            path[: len(output)] == output or output[: len(path)] == path for output in self._writes
        )

    def may_replace(self, path: tuple[str, ...]) -> bool:
        """Whether a path of the data as a whole is among the outputs."""
        return any(path[: len(output)] == output for output in self._writes)

    def require_domain(self, name: str) -> None:
        """Raise ContractViolationError if ``ctx.domain[name]`` is not among the inputs."""
        if not self.may_read_domain(name):
            raise self._undeclared(f"ctx.domain[{name!r}]", f"domain.{name}")

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
