"""Whether every task ended exactly once and as it should, from the journal and the kills."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from killing import Kill
from kinds import KINDS

HOST_DIED = "host died"
ENDS = ("result", "exception", "crashed", "timeout", "cancelled", HOST_DIED)


@dataclass
class Account:
    """What came of the tasks of one host.

    Attributes:
        ends: how many tasks ended how.
        lost: tasks without an end, or with several, or that ran more often than they may.
        wrong: results, failures and arrays that are not what they should be.
        left: what was there after the end.
    """

    ends: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, other: Account) -> None:
        self.ends += other.ends
        self.lost += other.lost
        self.wrong += other.wrong
        self.left += other.left

    @property
    def good(self) -> bool:
        return not (self.lost or self.wrong or self.left)


def account_for(
    facts: Sequence[dict[str, Any]], kills: Sequence[Kill], *, host_died: bool
) -> Account:
    """Settle the accounts of one host."""
    account = Account()
    orders = {fact["task"]: fact for fact in facts if fact["what"] == "order"}
    called_off = _called_off(facts)
    ends: dict[int, list[dict[str, Any]]] = {task: [] for task in orders}
    begins: dict[int, list[int]] = {task: [] for task in orders}
    for fact in facts:
        if fact["what"] == "end":
            ends[fact["task"]].append(fact)
        elif fact["what"] == "begin":
            begins[fact["task"]].append(fact["pid"])
        elif fact["what"] in ("wrong", "left"):
            getattr(account, fact["what"]).append(fact["text"])
    for task, order in orders.items():
        found = ends[task]
        if len(found) > 1:
            account.lost.append(f"task {order} ended {len(found)} times: {found}")
        how = found[0]["how"] if found else HOST_DIED
        if how == HOST_DIED and not host_died:
            account.lost.append(f"task {order} never ended; it began in {begins[task]}")
        account.ends[how] += 1
        _check_runs(account, order, how, begins[task])
        if found:
            _check_end(account, order, found[0], called_off=task in called_off)
    _check_crashes(account, orders, ends, begins, kills)
    _check_counter(account, facts, host_died=host_died)
    return account


def _called_off(facts: Sequence[dict[str, Any]]) -> set[int]:
    """The tasks that ended after their client had cancelled them, or while their engine closed."""
    cancelled: set[int] = set()
    found: set[int] = set()
    closing = False
    for fact in facts:
        if fact["what"] in ("open", "close"):
            closing = fact["what"] == "close"
        elif fact["what"] == "cancel":
            cancelled.add(fact["task"])
        elif fact["what"] == "end" and (closing or fact["task"] in cancelled):
            found.add(fact["task"])
    return found


def _check_runs(account: Account, order: dict[str, Any], how: str, begins: list[int]) -> None:
    if len(begins) > 1 + order["retries"]:
        account.lost.append(f"task {order} ran {len(begins)} times, in {begins}")
    if len(set(begins)) != len(begins):
        account.lost.append(f"task {order} ran twice in one worker, in {begins}")
    if how in ("result", "exception") and not begins:
        account.wrong.append(f"task {order} ended with {how} and never ran")


def _check_end(
    account: Account, order: dict[str, Any], end: dict[str, Any], *, called_off: bool
) -> None:
    kind, how = KINDS[order["kind"]], end["how"]
    if how == "result":
        right = not kind.always and kind.right(order["task"], end["facts"])
    elif how == "exception":
        right = end["type"] == kind.fails_as
        if kind.always:
            right = right and end["text"] == str(order["task"])
    elif how == "timeout":
        right = kind.timeout is not None
    elif how == "cancelled":
        right = called_off
    else:
        right = how == "crashed"  # _check_crashes says more
    if not right:
        account.wrong.append(f"task {order} ended wrongly: {end}")


def _check_crashes(
    account: Account,
    orders: dict[int, dict[str, Any]],
    ends: dict[int, list[dict[str, Any]]],
    begins: dict[int, list[int]],
    kills: Sequence[Kill],
) -> None:
    """A kill costs one task one run at most, and only what was killed costs any.

    The items of one batch of a map are one task of the library; one of them ends as crashed.
    """
    deadly = {pid for kill in kills for pid in kill.workers}
    victims: dict[int, list[int]] = {}
    for task, order in orders.items():
        runs = list(begins[task])
        cut_off = runs[:-1]  # it began again after each
        for end in ends[task]:
            if end["how"] != "crashed":
                continue
            if end["pid"] not in runs:
                runs.append(end["pid"])  # killed before the function began
            cut_off = runs
            if runs[-1] != end["pid"] or len(runs) > 1 + order["retries"]:
                account.wrong.append(
                    f"task {order} ended as crashed with worker {end['pid']}; "
                    f"it began in {begins[task]}"
                )
        for pid in cut_off:
            victims.setdefault(pid, []).append(task)
            if pid not in deadly:
                account.wrong.append(
                    f"task {order} was cut off in worker {pid}, which was not killed while it ran "
                    f"a task; it began in {begins[task]}, and ended so: {ends[task]}"
                )
    for pid, tasks in victims.items():
        if len(tasks) > 1:
            account.wrong.append(f"tasks {tasks} were cut off in the one worker {pid}")


def _check_counter(account: Account, facts: Sequence[dict[str, Any]], *, host_died: bool) -> None:
    """Each addition that returned counts once; one that was cut off or is under way may count.

    The counter of each engine begins at 0. An addition that was noted before the host looked was
    made before that, and one whose task was ordered after the look was not.
    """
    looks = 0
    for engine in _engines(facts):
        added = [place for place, fact in enumerate(engine) if fact["what"] == "added"]
        tasks = _adding_tasks(engine)
        looked = looks = 0
        for place, fact in enumerate(engine):
            if fact["what"] == "look":
                looked = place
            elif fact["what"] == "counter":
                looks += 1
                least = bisect(added, looked)
                perhaps = bisect(added, place) - least + fact["adders"]
                for task in tasks:
                    if task.how == "result" and task.end < looked:
                        least += 1
                    elif task.order < place and task.how in _MAY_HAVE_ADDED:
                        perhaps += 1
                if not least <= fact["value"] <= least + perhaps:
                    account.wrong.append(
                        f"the counter is {fact['value']} after {least} additions that returned and "
                        f"{perhaps} that were under way or cut off"
                    )
    if not (looks or host_died):
        account.wrong.append("the host never looked at the counter of its last engine")


_MAY_HAVE_ADDED = ("result", "cancelled", "timeout", HOST_DIED)


class _AddingTask(NamedTuple):
    """One task that adds to the counter, and where in the journal it was ordered and ended."""

    order: int
    end: int
    how: str


def _adding_tasks(facts: Sequence[dict[str, Any]]) -> list[_AddingTask]:
    ends = {
        fact["task"]: (at, fact["how"]) for at, fact in enumerate(facts) if fact["what"] == "end"
    }
    never = len(facts), HOST_DIED
    return [
        _AddingTask(at, *ends.get(fact["task"], never))
        for at, fact in enumerate(facts)
        if fact["what"] == "order" and fact["kind"] == "adding"
    ]


def _engines(facts: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The facts about each engine: the clients of one have stopped when the next is opened."""
    of_one: list[dict[str, Any]] = []
    for fact in facts:
        if fact["what"] == "open" and of_one:
            yield of_one
            of_one = []
        of_one.append(fact)
    yield of_one
