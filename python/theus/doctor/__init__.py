"""``python -m theus doctor``: what theus needs of a machine, what is there, how to mend the rest.

::

    kernel, limits, memory, interpreter    look, each at its own subject, and give findings
    live                                   opens an engine in a process of its own, and watches
    report                                 text, JSON and exit status of findings

Nothing here needs the shared library: what keeps that from loading is what a doctor is asked for.
"""

from __future__ import annotations

from . import interpreter, kernel, limits, live, memory
from .findings import Finding
from .machine import Machine

__all__ = ["Finding", "examine"]


def examine(root: str = "/") -> list[Finding]:
    """Everything that the doctor finds, subject by subject.

    Args:
        root: where the files of the machine that is examined begin, for tests.
    """
    machine = Machine(root)
    return [
        *interpreter.findings(),
        *kernel.findings(),
        *limits.findings(machine),
        *memory.findings(machine),
        *live.findings(),
    ]
