"""What a refused allocation means to a task."""

from __future__ import annotations

import json
from typing import NoReturn

from ..errors import HeapFull


def raise_refusal(text: str) -> NoReturn:
    """Raise what the host's answer says: HeapFull, or OSError for other limits."""
    facts = json.loads(text)
    message = str(facts.get("message", text))
    full = facts.get("full")
    if not isinstance(full, dict):
        raise OSError(f"no shared memory for the task: {message}")
    numbers = {name.lower().replace("_", ""): value for name, value in full.items()}
    raise HeapFull(
        message,
        asked=int(numbers.get("asked", 0)),
        in_use=int(numbers.get("inuse", 0)),
        limit=int(numbers.get("limit", 0)),
        source=str(numbers.get("source", "")),
        holders=numbers.get("holders") or (),
    )
