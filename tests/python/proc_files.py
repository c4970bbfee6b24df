"""Reading /proc while processes end and close what they have: what is gone reads as nothing."""

from __future__ import annotations

import os
from pathlib import Path


def listed(directory: str) -> list[str]:
    """The names in a directory; none if its process has ended or is another user's."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def text(path: str) -> str:
    """What a file says; empty if its process has ended or is another user's."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def contents(path: str) -> bytes:
    """The same, as bytes."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def target(link: str) -> str:
    """Where a link leads; empty for a descriptor that was closed meanwhile."""
    try:
        return os.readlink(link)
    except OSError:
        return ""
