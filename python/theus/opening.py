"""Opening an engine of the library.

It starts worker processes in the background, which takes a tenth of a second. So it needs little
of this package, and an engine imports the rest meanwhile.
"""

from __future__ import annotations

import os
import sys

from . import exiting as exiting  # before the program registers hooks of its own
from . import settings
from ._core import Handle, core
from .settings import Settings

__all__ = ["open_engine"]


def open_engine(options: Settings) -> Handle:
    """An open engine, to be closed by the caller: dropping the handle leaves its processes.

    Raises:
        ImportError: theus cannot run here. TheusError: a limit of the machine is in the way.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    engine = core().open(
        workers=options.workers,
        heap_bytes=options.heap_bytes,
        seed=options.seed,
        name=options.name,
        python=settings.interpreter(),
        worker_main=os.path.join(here, "worker", "zygote.py"),
        cwd=settings.working_directory(),
        sys_path=settings.search_path(),
        preload=_preload(options),
        env=settings.environment(),
        lazy=not options.processes,
    )
    return Handle(engine)


def _preload(options: Settings) -> list[str]:
    """What workers import before they are forked. Where this program uses numpy.random, its tasks
    probably do: it is imported once then, and not by each worker."""
    used = ["numpy.random"] if "numpy.random" in sys.modules else []
    return [*options.preload, *used]
