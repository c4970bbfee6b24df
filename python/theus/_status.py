"""From the library's status codes to Python exceptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from . import _abi as abi
from . import errors
from .errors import Conflict, ContextError, EngineClosed, ForkedProcessError, HeapFull, TheusError

FORKED = (
    "theus does not work in a process forked from the one that uses it: the library's runtime does "
    "not survive fork(). Use it in the parent only, or start the child as a new program "
    "(subprocess, multiprocessing's 'spawn')."
)


class InvalidArgument(TheusError, ValueError):
    """The library refused an argument."""


class NotFound(TheusError, KeyError):
    """No such key or path in the state."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class NotPublished(NotFound):
    """The array exists, but it was allocated only and never published."""


def raise_for(status: int, message: str, detail: bytes) -> NoReturn:
    """Raise what `status` means.

    Args:
        status: any code but OK.
        message: the library's text.
        detail: its JSON, or nothing.
    """
    facts = parse_detail(detail)
    whole = facts.get("message")
    if isinstance(whole, str) and len(whole) > len(message):
        message = whole  # the struct has room for less than 500 bytes
    build = _BUILDERS.get(status)
    if build is not None:
        raise build(message, status, facts)
    kind = InvalidArgument if 0 < status < 100 else TheusError
    raise kind(message or f"theus failed with status {status}", code=status, detail=facts)


def parse_detail(detail: bytes) -> dict[str, Any]:
    """The JSON of an error's detail; empty when there is none."""
    if not detail:
        return {}
    try:
        facts = json.loads(detail)
    except ValueError:
        return {"text": detail.decode("utf-8", "replace")}
    return facts if isinstance(facts, dict) else {"value": facts}


def _conflict(message: str, status: int, facts: dict[str, Any]) -> BaseException:
    conflicts = [
        Conflict(str(c.get("path", "")), int(c.get("changed_at", 0)), bool(c.get("heavy", False)))
        for c in facts.get("conflicts") or ()
    ]
    return ContextError(
        message,
        expected=int(facts.get("expected", 0)),
        found=int(facts.get("current", 0)),
        conflicts=conflicts,
        code=status,
        detail=facts,
    )


def _heap_full(message: str, status: int, facts: dict[str, Any]) -> BaseException:
    backlog = facts.get("backlog") or {}
    return HeapFull(
        message,
        asked=int(facts.get("asked", 0)),
        in_use=int(facts.get("in_use", 0)),
        limit=int(facts.get("limit", 0)),
        source=str(facts.get("source", "")),
        holders=facts.get("holders") or (),
        held_by_tasks=int(backlog.get("bytes", 0)),
        code=status,
        detail=facts,
    )


def _stream_full(message: str, status: int, facts: dict[str, Any]) -> BaseException:
    return errors.StreamFull(
        f"{message}. Let go of old ones, keep more (keep=), or leave them to their readers "
        '(full="drop_oldest").',
        key=str(facts.get("key", "")),
        versions=facts.get("versions") or (),
        building=int(facts.get("building", 0)),
        code=status,
        detail=facts,
    )


def _crashed(message: str, status: int, facts: dict[str, Any]) -> BaseException:
    signal = int(facts.get("signal") or 0)
    code = facts.get("exit")
    exited = isinstance(code, int) and code >= 0 and not signal  # -1: nobody saw how it ended
    return errors.WorkerCrashed(
        message,
        pid=int(facts.get("pid") or 0),
        signal=signal,
        exit_code=code if exited else None,
        reason=str(facts.get("reason", "")),
        task=str(facts.get("task", "")),
        oom=bool(facts.get("oom", False)),
        peak_rss=int(facts.get("peak_rss") or 0) or None,
        code=status,
        detail=facts,
    )


def _timeout(message: str, status: int, facts: dict[str, Any]) -> BaseException:
    return errors.TaskTimeout(message, code=status, detail=facts)


def _forked(message: str, status: int, facts: dict[str, Any]) -> BaseException:
    return ForkedProcessError(message or FORKED, code=status, detail=facts)


def _plain(kind: type[TheusError]) -> Callable[[str, int, dict[str, Any]], BaseException]:
    return lambda message, status, facts: kind(message, code=status, detail=facts)


_BUILDERS: dict[int, Callable[[str, int, dict[str, Any]], BaseException]] = {
    abi.ENOTFOUND: _plain(NotFound),
    abi.EUNPUBLISHED: _plain(NotPublished),
    abi.ECONFLICT: _conflict,
    abi.ECLOSED: _plain(EngineClosed),
    abi.EFORKED: _forked,
    abi.EHEAP: _heap_full,
    abi.ETIMEDOUT: _stream_full,  # other waits look at the status themselves
    abi.TASK_CRASHED: _crashed,
    abi.TASK_TIMEOUT: _timeout,
}
