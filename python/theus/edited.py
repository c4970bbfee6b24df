"""Arrays under construction that a with-block publishes."""

from __future__ import annotations

from typing import Any

from .arrays import ShmArray, memory_of

__all__ = ["EditedArray"]


class EditedArray(ShmArray):
    """What `Heavy.edit` and `Stream.next` give: an array that a with-block publishes."""

    __slots__ = ()

    def __enter__(self) -> EditedArray:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            self.publish()
            return
        memory = memory_of(self)
        if memory is not None:
            memory.origin.publish = None

    def __getitem__(self, index: Any) -> Any:
        return self.view(ShmArray)[index]
