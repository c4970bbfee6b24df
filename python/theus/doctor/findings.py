"""What a doctor says about one thing."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "degraded", "missing"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        subject: "python", "kernel", "limits", "memory" or "live".
        name: of the thing, unique in its subject.
        status: "ok"; "degraded": theus works, but less well, or only up to some size; "missing":
            theus does not work.
        value: what was found.
        meaning: what that means for whoever uses theus; "" where the value says it all.
        mend: a command or a setting; "" when all is well.
    """

    subject: str
    name: str
    status: Status
    value: str
    meaning: str = ""
    mend: str = ""
