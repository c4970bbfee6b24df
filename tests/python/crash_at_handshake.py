"""To be preloaded: commits a fault in each worker, between its fork and its first word.

Every worker seeds its random numbers then.
"""

import random
from typing import Any

from crash_places import commit_as_asked

seed = random.seed


def commit_and_seed(*arguments: Any) -> None:
    commit_as_asked()
    seed(*arguments)


random.seed = commit_and_seed  # type: ignore[assignment]
