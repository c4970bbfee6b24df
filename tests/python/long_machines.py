"""State machines that run as many examples as they are told, the same for the same seed."""

from __future__ import annotations

import hypothesis


def long_settings(examples: int, steps: int) -> hypothesis.settings:
    """No deadline, no memory of earlier runs: a machine that is busy must not make it fail."""
    return hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        print_blob=True,
    )
