"""The count of shared pages, by which every test is judged, while other programs fill and free."""

from __future__ import annotations

import pytest

import shared_pages

OURS = 7 << 20
STEP = 64 << 20


class Machine:
    """A machine on which another program allocates or frees `step` bytes in every look at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.foreign, self.step = 100 * STEP, step
        monkeypatch.setattr(shared_pages, "_machine", lambda: OURS + self.foreign)
        monkeypatch.setattr(shared_pages, "_foreign", self.look)

    def look(self) -> int:
        self.foreign += self.step
        return self.foreign


@pytest.mark.parametrize("step", [STEP, 0, -STEP], ids=["filling", "calm", "freeing"])
def test_what_is_compared_with_is_no_less_than_there_is(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    Machine(monkeypatch, step)
    assert shared_pages.most_unaccounted_bytes() >= OURS


@pytest.mark.parametrize("step", [STEP, 0], ids=["filling", "calm"])
def test_a_program_that_fills_memory_does_not_look_like_a_leak(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    Machine(monkeypatch, step)
    assert shared_pages.unaccounted_bytes() <= OURS


def test_a_calm_machine_is_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, 0)
    assert shared_pages.most_unaccounted_bytes() == OURS
    assert shared_pages.unaccounted_bytes() == OURS
