"""The live check, in a process of its own, so that no failure of it ends the doctor."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from .findings import Finding

# Preloading may take long on a slow disk; after this the check counts as hanging.
PATIENCE = 120.0
STEPS = ("load", "open", "alloc", "publish", "execute", "zero copy", "close", "nothing left")

_PROGRAM = "from theus.doctor.live_steps import main; main()"


def findings(program: str = _PROGRAM, patience: float = PATIENCE) -> list[Finding]:
    """Run the steps and say how each went; those after one that failed are left out.

    Args:
        program: what the process runs, for tests.
        patience: seconds after which it counts as hanging.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=patience)
        end = _end_of(process.returncode)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        end = f"it did not go on for {patience:g} s and was ended"
    found = [Finding("live", **json.loads(line)) for line in out.splitlines()]
    if end and not any(finding.status == "missing" for finding in found):
        found.append(_broken_off(STEPS[len(found)] if len(found) < len(STEPS) else "end", end, err))
    return found


def _end_of(code: int) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it exited with status {code}"


def _broken_off(step: str, end: str, err: str) -> Finding:
    said = " ".join(err.strip().splitlines()[-3:]) or "nothing"
    return Finding(
        "live",
        step,
        "missing",
        f"the check broke off: {end}",
        f"what it printed last: {said[-500:]}",
        "mend what is named above, if anything is; else report this, with the output of "
        "`theus doctor --json`",
    )
