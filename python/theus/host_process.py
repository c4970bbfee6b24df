"""One run of a process in this process: what it reads and writes, and the commit of both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from .bounds import DOMAIN, Bounds
from .contracts import ProcessContract
from .drafts import Draft
from .errors import ContractViolationError
from .frozen import no_such_name
from .outputs import Commit, commit_of
from .structures import StateUpdate
from .updates import join_path, parse_path

if TYPE_CHECKING:
    from .commits import Committer
    from .state import State

__all__ = ["HostRun", "WritableDomain"]


class HostRun:
    """A process on one version of the state, with its writes until they are committed.

    Args:
        name: of the process.
        contract: its contract, if it has one.
        state: the version.
    """

    def __init__(self, name: str, contract: ProcessContract | None, state: State) -> None:
        self.bounds = Bounds(name, contract)
        self.state = state
        self._name = name
        self._contract = contract
        self._draft: Draft | None = None
        self._ended = False

    def domain(self, arguments: Mapping[str, Any]) -> WritableDomain:
        """What ``ctx.domain`` is."""
        return WritableDomain(arguments, self._root, self.bounds)

    def _root(self) -> Draft:
        if self._draft is None:
            self._draft = Draft(self.state.data, (), {}, self.bounds.require_output)
        return self._draft

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Add to an exception where it comes from, unless the contract declares it."""
        try:
            yield
        except Exception as error:
            names = {kind.__name__ for kind in type(error).__mro__}
            declared = () if self._contract is None else self._contract.errors
            if not names.intersection(declared) and hasattr(error, "add_note"):  # Python 3.11
                error.add_note(
                    f"raised by process {self._name!r}, on version {self.state.version} of the "
                    "state; nothing of it was committed"
                )
            raise

    def end(self, committer: Committer, result: Any) -> Any:
        """Take its result; what names its version itself is committed now, and never again."""
        if isinstance(result, StateUpdate) and result.assert_version is not None:
            self.commit(committer, result)
            self._ended = True
        return result

    def commit(self, committer: Committer, result: Any) -> Any:
        """Commit what it wrote and returned; gives the result.

        Raises:
            ContextError: somebody else changed the same, or what it read for that.
            ContractViolationError: it wrote or returned what its contract does not name.
        """
        if self._ended:
            return result
        returned = commit_of(self._name, self._contract, result)
        written = {} if self._draft is None else self._draft.changes()
        for path in written:  # lists change in place, where nobody is asked
            self.bounds.require_output(parse_path(path))
        if not written and isinstance(result, StateUpdate):
            committer.apply(returned)
        elif written or returned:
            self._require_once(written, returned)
            expected = self.state.version if returned.expected is None else returned.expected
            committer.commit(
                expected,
                {**written, **returned.data},
                returned.heavy,
                read=[] if self._draft is None else map(join_path, self._draft._reads or ()),
                read_heavy=self.state.heavy.read_keys(),
            )
        return result

    def _require_once(self, written: Mapping[str, Any], returned: Commit) -> None:
        for path in written:
            for other in returned.data:
                if f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}."):
                    raise ContractViolationError(
                        f"process {self._name!r} has written {path!r} through ctx.domain, and "
                        f"returns a value for {other!r} as well. Do one of them: return None, or "
                        "do not write."
                    )


class WritableDomain(MutableMapping[str, Any]):
    """The call's arguments layered over ``state.data["domain"]``; writes are committed at the end.

    Args:
        arguments: the call's arguments; they win, and cannot be written.
        root: gives the draft of the whole data.
        bounds: what may be read.
    """

    __slots__ = ("_arguments", "_bounds", "_root")

    _arguments: Mapping[str, Any]
    _bounds: Bounds
    _root: Callable[[], Draft]

    def __init__(
        self, arguments: Mapping[str, Any], root: Callable[[], Draft], bounds: Bounds
    ) -> None:
        own = object.__setattr__  # ours sets items
        own(self, "_arguments", arguments)
        own(self, "_root", root)
        own(self, "_bounds", bounds)

    def _stored(self) -> Mapping[str, Any]:
        root = self._root()
        found = root._inner([DOMAIN], make=False)
        if found is None:
            root._note((DOMAIN,))
            return {}
        return found

    def __getitem__(self, name: str) -> Any:
        if name in self._arguments:
            return self._arguments[name]
        self._bounds.require_domain(name)
        try:
            return self._stored()[name]
        except KeyError:
            raise KeyError(f"ctx.domain: {no_such_name(name, self)}") from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle probe for these
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as missing:
            raise AttributeError(*missing.args) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._writable(name)[name] = value

    def __delitem__(self, name: str) -> None:
        del self._writable(name)[name]

    def _writable(self, name: str) -> Draft:
        if name in self._arguments:
            raise ContractViolationError(
                f"ctx.domain: {name!r} is an argument of this call, and hides what the state has "
                "under that name. Call the argument something else to write the state's."
            )
        self._bounds.require_output((DOMAIN, name))
        root = self._root()
        if DOMAIN in root._base and root._inner([DOMAIN], make=False) is None:
            raise ContractViolationError("ctx.domain: the state's 'domain' is not a dict")
        return root._at([DOMAIN])

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):  # reading it would give the method
            raise AttributeError(f"{name!r} is a method of dicts; write [{name!r}] = … instead")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError as missing:
            raise AttributeError(*missing.args) from None

    def __iter__(self) -> Iterator[str]:
        stored = [name for name in self._stored() if self._bounds.may_read_domain(name)]
        return iter({**dict.fromkeys(stored), **self._arguments})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Domain({dict(self)!r})"
