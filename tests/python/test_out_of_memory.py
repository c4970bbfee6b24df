"""A whole program in a memory cgroup, as in a container: what is short of memory says so."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import crash_places
from conftest import CgroupFactory
from memory_cgroup import MemoryCgroup
from programs import run

LIMIT = 256 << 20

HOST = """
import json, os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
sys.path.insert(0, sys.argv[2])
import crash_places
from theus import TheusEngine

def facts(error):
    names = ("oom", "signal", "peak_rss", "task", "reason")
    found = {name: getattr(error, name, None) for name in names}
    print(json.dumps({"type": type(error).__name__, "text": str(error), **found}))

with TheusEngine(workers=2, preload=sys.argv[3:]) as engine:
    facts(engine.submit(crash_places.run, "OOM kill", os.devnull, sys.argv[1]).exception(60))
    try:
        print(engine.run(pow, 2, 3))
    except Exception as error:
        facts(error)
"""


def run_in(group: MemoryCgroup, cwd: Path, *preload: str) -> list[Any]:
    """Run the host in a cgroup; gives what it prints."""
    asked = "\n".join(("OOM kill", os.devnull, str(group.directory), "1000"))
    arguments = ["-c", HOST, str(group.directory), str(Path(__file__).parent), *preload]
    for _ in range(3):
        killed = group.kills()
        ended = run(arguments, cwd=cwd, env={crash_places.ASKED: asked})
        if ended.code != -signal.SIGKILL or group.kills() - killed < 2:
            break
        # Until what its victim had is free the kernel may take the next one, which was the host.
    assert (ended.code, ended.err) == (0, ""), ended
    return [json.loads(line) for line in ended.out.splitlines()]


def test_the_kernel_ends_the_worker_and_the_error_names_the_limit(
    tmp_path: Path, make_cgroup: CgroupFactory
) -> None:
    group = make_cgroup(LIMIT)
    crash, result = run_in(group, tmp_path)
    assert result == 8, "the host and the other worker live"
    assert (crash["type"], crash["oom"], crash["signal"]) == ("WorkerCrashed", True, 9)
    assert crash["task"] == "run"
    assert crash["peak_rss"] > 1 << 20
    limit = (
        f"cgroup {group.version} {group.name} has reached its limit, {group.limit_file} = {LIMIT} "
    )
    assert f"was killed by the kernel because memory ran out: {limit}" in crash["text"]
    assert "run fewer at once (workers=)" in crash["text"]
    assert limit in crash["reason"]


def test_the_kernel_ends_the_zygote_and_the_error_names_the_limit(
    tmp_path: Path, make_cgroup: CgroupFactory
) -> None:
    group = make_cgroup(LIMIT)
    first, second = run_in(group, tmp_path, "crash_at_start")
    limit = (
        f"cgroup {group.version} {group.name} has reached its limit, {group.limit_file} = {LIMIT} "
    )
    for error in (first, second):
        assert error["type"] == "TheusError"
        assert (
            f"the zygote was killed by the kernel because memory ran out: {limit}" in error["text"]
        )
        assert "3 times in a row" in error["text"]
