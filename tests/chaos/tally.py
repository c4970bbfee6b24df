"""What all bouts came to, and its tables."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random

from accounting import ENDS, Account
from killing import CELLS, Cell, Kill


class Tally:
    """Kills and accounts, added up.

    Attributes:
        account: of all hosts.
        hosts: how many there were.
    """

    def __init__(self) -> None:
        self.account = Account()
        self.hosts = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()  # guards all: bouts run side by side
        self._kills: Counter[Cell] = Counter()
        self._slowest = 0.0

    def add(self, kills: Sequence[Kill], account: Account, seconds_to_end: float) -> None:
        """Add one bout; seconds until every process of the host's session was gone."""
        with self._lock:
            self._kills.update(kill.cell for kill in kills)
            self.account.add(account)
            self.hosts += 1
            self._slowest = max(self._slowest, seconds_to_end)

    def emptiest(self, cells: Sequence[Cell], random: Random) -> Cell:
        """One of those that were hit least often."""
        with self._lock:
            least = min(self._kills[cell] for cell in cells)
            return random.choice([cell for cell in cells if self._kills[cell] == least])

    def short_of(self, minimum: int) -> list[Cell]:
        """The cells that were hit less often than that."""
        with self._lock:
            return [cell for cell in CELLS if self._kills[cell] < minimum]

    def table(self) -> str:
        """Both tables and the verdict, as Markdown."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield "| killed | while it was | times |"
        yield "|---|---|---|"
        for kind, phase in CELLS:
            name = phase.name.lower().replace("_", " ")
            yield f"| {kind} | {name} | {self._kills[kind, phase]} |"
        yield f"| all | | {sum(self._kills.values())} |"
        yield ""
        yield "| a task ended as | times |"
        yield "|---|---|"
        for how in ENDS:
            yield f"| {how} | {self.account.ends[how]} |"
        yield f"| all | {sum(self.account.ends.values())} |"
        yield ""
        yield (
            f"{self.hosts} hosts in {time.monotonic() - self._started:.0f} s: "
            f"{len(self.account.lost)} lost, {len(self.account.wrong)} wrong, "
            f"{len(self.account.left)} left. The last process of a host's session was gone at most "
            f"{self._slowest:.2f} s after the host."
        )
