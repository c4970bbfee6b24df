"""Native code that ends a worker: the error says where Python was."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
from theus import LargeArgumentWarning, TheusEngine, WorkerCrashed


def fault_in_native_code() -> None:
    ctypes.memset(0, 1, 1)


def call_what_faults(_: int = 0) -> None:
    fault_in_native_code()


class TestWhereItFaulted:
    @staticmethod
    def message_of(engine: TheusEngine, task: Callable[..., Any]) -> str:
        with pytest.raises(WorkerCrashed) as caught:
            engine.run(task)
        return str(caught.value)

    def test_the_message_says_where_python_was(self, engine: TheusEngine) -> None:
        message = self.message_of(engine, call_what_faults)
        here = re.escape(__file__)
        assert re.search(
            r" Python was in fault_in_native_code "
            rf"\({here}:\d+\), called from call_what_faults \({here}:\d+\)$",
            message,
        ), message

    def test_an_abort(self, engine: TheusEngine) -> None:
        def abort() -> None:
            os.abort()

        message = self.message_of(engine, abort)
        assert re.search(r"SIGABRT while it ran \S+\. Python was in \S*abort \(", message), message

    def test_a_childs_fault_is_not_the_workers(self, engine: TheusEngine) -> None:
        def fork_and_fault() -> None:
            child = os.fork()
            if child == 0:
                call_what_faults()
            os.waitpid(child, 0)
            os.kill(os.getpid(), signal.SIGSEGV)  # where it is sent is where it was

        message = self.message_of(engine, fork_and_fault)
        assert "Python was in fork_and_fault (" in message
        assert "call_what_faults" not in message

    def test_a_handler_of_the_tasks_own_is_left_alone(
        self, engine: TheusEngine, tmp_path: Path
    ) -> None:
        def enable_and_fault(path: str) -> None:
            with open(path, "w") as report:
                faulthandler.enable(report)
                fault_in_native_code()

        with pytest.raises(WorkerCrashed, match=r"or ran out of stack$"):
            engine.run(enable_and_fault, str(tmp_path / "report"))
        assert "fault_in_native_code" in (tmp_path / "report").read_text()


kept: list[Any] = []  # in a worker


def keep_some_of_each(ctx: Any, argument: Any) -> int:
    kept.extend((ctx.heavy["x"], ctx.heavy.cow("x"), argument))
    kept.append(ctx.heavy.alloc("y", 1 << 18))
    return os.getpid()


def test_core_files_of_workers_hold_no_shared_memory(engine: TheusEngine) -> None:
    """They would take seconds to write, and as much of the disk as there are workers."""
    engine.heavy.put("x", np.ones(1 << 18))
    with pytest.warns(LargeArgumentWarning):
        pid = engine.run(keep_some_of_each, np.ones(1 << 18))
    shared = [r for r in processes.regions(pid) if r.is_shared_memory]
    large = [r for r in shared if r.end - r.start >= 1 << 21]
    assert len(large) == 4, large
    for region in large:
        assert "dd" in region.flags, region
    assert len(shared) == 5, "and the page that it shares with the host"
