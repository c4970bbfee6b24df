"""ctx.log in a worker: a logger whose records reach the host."""

from __future__ import annotations

import logging
from typing import Any

from . import frames, wire
from .link import Link
from .signals import uninterrupted

_LONGEST = 8 << 10


class TaskLogger(logging.Logger):
    """The logger of one function's tasks.

    It does not belong to the worker's own logging hierarchy: what user code configures there, or
    logs there, stays there.

    Args:
        name: as it will be called in the host: the function's module and name.
        link: the worker's connection.

    Attributes:
        task: number of the task that runs, or of the last one of this function.
    """

    def __init__(self, name: str, link: Link) -> None:
        super().__init__(name, logging.DEBUG)
        self.propagate = False
        self.task = 0
        self.addHandler(_ToHost(self, link))

    @uninterrupted  # logging takes a lock in it
    def isEnabledFor(self, level: int) -> bool:
        return super().isEnabledFor(level)


class _ToHost(logging.Handler):
    def __init__(self, logger: TaskLogger, link: Link) -> None:
        super().__init__()
        self._logger = logger
        self._link = link

    @uninterrupted  # logging takes a lock in it
    def handle(self, record: logging.LogRecord) -> Any:
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)  # with the traceback of exc_info
        except Exception:
            self.handleError(record)
            return
        if len(text) > _LONGEST:
            text = text[:_LONGEST] + " …"
        fields = wire.u32(record.levelno) + wire.text(record.name) + wire.text(text)
        self._link.send(frames.LOG, self._logger.task, fields)
