"""What a process' return value does to the state, by its contract or by a StateUpdate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .contracts import ProcessContract
from .errors import ContractViolationError
from .structures import StateUpdate

__all__ = ["Commit", "commit_of", "may_commit"]

HEAVY = "heavy."


class Commit:
    """What is to be committed: values by path, arrays by key, and against which version.

    Attributes:
        data: values by dotted path.
        heavy: arrays by key.
        expected: the version that it stands on; None: whatever is current.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        heavy: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> None:
        self.data: dict[str, Any] = dict(data or {})
        self.heavy: dict[str, Any] = dict(heavy or {})
        self.expected = expected

    def __bool__(self) -> bool:
        return bool(self.data or self.heavy or self.expected is not None)

    def put(self, path: str, value: Any) -> None:
        if path.startswith(HEAVY):
            self.heavy[path[len(HEAVY) :]] = value
        else:
            self.data[path] = value


def may_commit(contract: ProcessContract | None, result: Any) -> bool:
    """Whether a result may commit anything: `commit_of` says what, and mostly nothing does."""
    return isinstance(result, StateUpdate) or (contract is not None and bool(contract.outputs))


def commit_of(name: str, contract: ProcessContract | None, result: Any) -> Commit:
    """What the result of process `name` commits; an empty Commit is false.

    Raises:
        ContractViolationError: the result does not fit `outputs`.
    """
    if isinstance(result, StateUpdate):
        return _of_update(result)
    commit = Commit()
    if contract is None or not contract.outputs or result is None:
        return commit
    outputs = contract.outputs
    if len(outputs) == 1:
        commit.put(outputs[0], result)
    elif isinstance(result, Mapping):
        _by_path(commit, name, outputs, result)
    elif isinstance(result, (tuple, list)):
        _by_position(commit, name, outputs, result)
    else:
        raise ContractViolationError(
            f"process {name!r} declares {len(outputs)} outputs {list(outputs)} but returned one "
            f"{type(result).__name__}. Return a tuple in that order, or a dict by path; None in a "
            "place skips it."
        )
    return commit


def _of_update(update: StateUpdate) -> Commit:
    commit = Commit(update.data, update.heavy, update.assert_version)
    if update.key is not None:
        commit.put(update.key, update.val)
    return commit


def _by_position(commit: Commit, name: str, outputs: Sequence[str], result: Sequence[Any]) -> None:
    if len(result) != len(outputs):
        raise ContractViolationError(
            f"process {name!r} declares {len(outputs)} outputs {list(outputs)} but returned "
            f"{len(result)} values. Return one for each, None to skip it."
        )
    for path, value in zip(outputs, result, strict=True):
        if value is not None:
            commit.put(path, value)


def _by_path(commit: Commit, name: str, outputs: Sequence[str], result: Mapping[Any, Any]) -> None:
    leaves = [path.rpartition(".")[2] for path in outputs]
    used: set[Any] = set()
    for path, leaf in zip(outputs, leaves, strict=True):
        key = path if path in result else leaf
        if key not in result:
            continue
        if key == leaf and path not in result and leaves.count(leaf) > 1:
            raise ContractViolationError(
                f"process {name!r} returned {leaf!r}, which is the last part of several of its "
                f"outputs {list(outputs)}. Use the full path as the key."
            )
        used.add(key)
        if result[key] is not None:
            commit.put(path, result[key])
    extra = [key for key in result if key not in used]
    if extra:
        raise ContractViolationError(
            f"process {name!r} returned {extra[0]!r}, which is not among its outputs "
            f"{list(outputs)}. Declare it, or return only what is declared."
        )
