"""One run of a process in this process: what it reads and writes, and the commit of both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .bounds import Bounds
from .commits import Committer, own_versions
from .context import DOMAIN
from .contracts import ProcessContract
from .drafts import AttributeDict, Draft, MissingName
from .errors import ContextError, ContractViolationError
from .outputs import Commit, commit_of
from .paths import join_path, outermost, parse_path
from .structures import StateUpdate

if TYPE_CHECKING:
    from .state import State

__all__ = ["HostRun", "WritableDomain"]

_ABSENT = object()


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
        self._own: list[int] = []  # versions that were committed by what it called

    def domain(self, arguments: Mapping[str, Any]) -> WritableDomain:
        """What ``ctx.domain`` is."""
        return WritableDomain(arguments, self._root, self.bounds)

    def _root(self) -> Draft:
        if self._draft is None:
            self._draft = Draft(self.state.data, (), {}, self)
        return self._draft

    # -- what may be read and written, for the draft ----------------------------------------------

    def may_read(self, path: tuple[str, ...]) -> bool:
        """Whether a path is among the inputs, or on the way to one."""
        return self.bounds.may_read(path)

    def require_read(self, path: tuple[str, ...]) -> None:
        """Raise if a path must not be read."""
        self.bounds.require_read(path)

    def may_write(self, path: tuple[str, ...]) -> bool:
        """Whether something at or below a path is among the outputs."""
        return self.bounds.may_write(path)

    def may_replace(self, path: tuple[str, ...]) -> bool:
        """Whether a path as a whole is."""
        return self.bounds.may_replace(path)

    def require_write(self, path: tuple[str, ...]) -> None:
        """Raise if a path must not be changed, or not any more."""
        if self._ended:
            raise RuntimeError(f"process {self._name!r} has ended; its ctx.domain takes no writes")
        self.bounds.require_write(path)

    # -- running and committing ----------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While its code runs: exceptions get a note of where they come from, unless the contract
        declares them, and what is committed meanwhile counts as its own."""
        token = own_versions.set(self._own)
        try:
            yield
        except Exception as error:
            names = {kind.__name__ for kind in type(error).__mro__}
            declared = () if self._contract is None else self._contract.errors
            if not names.intersection(declared):
                _note(
                    error,
                    f"raised by process {self._name!r}, on version {self.state.version} of the "
                    "state; nothing that it returns or writes to ctx.domain was committed",
                )
            raise
        finally:
            own_versions.reset(token)

    def end(self, committer: Committer, result: Any) -> Any:
        """Take its result; what names its version itself is committed now, and never again."""
        if isinstance(result, StateUpdate) and result.assert_version is not None:
            self.commit(committer, result)
        return result

    def commit(self, committer: Committer, result: Any) -> Any:
        """Commit what it wrote and returned; gives the result.

        If it has used ``ctx.domain``, that stands on what was read there and of arrays. Else it is
        applied to whatever is current, as what a worker returns.

        Raises:
            ContextError: somebody else changed the same, or what it read for that.
            ContractViolationError: it wrote or returned what its contract does not name.
        """
        if self._ended:
            return result
        returned = commit_of(self._name, self._contract, result)
        written = {} if self._draft is None else self._draft.changes()
        reads = [] if self._draft is None else outermost(self._draft._reads or ())
        for path in written:  # lists change in place, where nobody is asked
            self.bounds.require_write(parse_path(path))
        self._require_once(written, returned)
        if not written and not reads:
            committer.apply(returned)
        elif written or returned:
            expected = self.state.version if returned.expected is None else returned.expected
            committer.commit(
                expected,
                {**written, **returned.data},
                returned.heavy,
                read=map(join_path, reads),
                read_heavy=self.state.heavy.read_keys(),
            )
        self._ended = True
        return result

    def has_lost_to_itself(self, lost: ContextError) -> bool:
        """Whether nobody but itself has changed what it read: it would lose again."""
        if not lost.conflicts or any(c.changed_at not in self._own for c in lost.conflicts):
            return False
        _note(
            lost,
            f"process {self._name!r} has changed this itself while it ran, by a commit of its own "
            "or of a process that it called. Read what it needs before, or write it by ctx.domain "
            "alone.",
        )
        return True

    def _require_once(self, written: Mapping[str, Any], returned: Commit) -> None:
        for path in written:
            for other in returned.data:
                if f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}."):
                    raise ContractViolationError(
                        f"process {self._name!r} has written {path!r} through ctx.domain, and "
                        f"returns a value for {other!r} as well. Do one of them: return None, or "
                        "do not write."
                    )


def _note(error: BaseException, text: str) -> None:
    notes = getattr(error, "__notes__", ())
    if text in notes:
        return
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:  # Python 3.10 prints no notes, but who asks for them finds them
        error.__notes__ = [*notes, text]


class WritableDomain(AttributeDict):
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
            root._note(DOMAIN)
            return {}
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """The argument or value, or `default` where there is none."""
        if name in self._arguments:
            return self._arguments[name]
        self._bounds.require_read((DOMAIN, name))
        return self._stored().get(name, default)

    def __contains__(self, name: object) -> bool:
        if name in self._arguments:
            return True
        if not isinstance(name, str):
            return False
        self._bounds.require_read((DOMAIN, name))
        return name in self._stored()

    def __getitem__(self, name: str) -> Any:
        found = self.get(name, _ABSENT)
        if found is _ABSENT:
            raise MissingName(name, self._names(), "ctx.domain: ")
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle probe for these
            raise AttributeError(name)
        found = self.get(name, _ABSENT)
        if found is _ABSENT:
            raise AttributeError(str(MissingName(name, self._names(), "ctx.domain: ")))
        return found

    def __setitem__(self, name: str, value: Any) -> None:
        self._require_own(name)
        root = self._root()
        if DOMAIN in root._base and root._inner([DOMAIN], make=False) is None:
            raise ContractViolationError("ctx.domain: the state's 'domain' is not a dict")
        root._at([DOMAIN])[name] = value

    def __delitem__(self, name: str) -> None:
        self._require_own(name)
        if name not in self:
            raise MissingName(name, self._names(), "ctx.domain: ")
        del self._root()._at([DOMAIN])[name]

    def _require_own(self, name: str) -> None:
        if name in self._arguments:
            raise ContractViolationError(
                f"ctx.domain: {name!r} is an argument of this call, and hides what the state has "
                "under that name. Call the argument something else to write the state's."
            )
        self._root()._ask(DOMAIN, name)

    def _names(self) -> list[str]:
        """What there is, for messages; nothing is noted as read."""
        root = self._root()
        found = root._inner([DOMAIN], make=False)
        stored = [] if found is None else found._keys()
        return [*self._arguments, *(n for n in stored if self._bounds.may_read((DOMAIN, n)))]

    def __iter__(self) -> Iterator[str]:
        stored = [name for name in self._stored() if self._bounds.may_read((DOMAIN, name))]
        return iter({**dict.fromkeys(stored), **self._arguments})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Domain({dict(self)!r})"
