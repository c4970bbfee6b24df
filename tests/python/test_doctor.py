"""theus doctor: what it says of this machine, and of one whose limits are in the way."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import CgroupFactory
from programs import Ended, needs_numpy_in_a_removed_directory, run_text, started
from sandbox import MADV_WIPEONFORK, NUMBERS, Refused, refusing
from test_sandboxes import NEEDED, SPARED
from theus.doctor import live, report
from theus.doctor.findings import Finding

MIB = 1 << 20
STATUSES = {"ok", "degraded", "missing"}
FIELDS = {"subject", "name", "status", "value", "meaning", "mend"}


class Report(NamedTuple):
    """What a doctor printed, by subject and name, and how it ended."""

    code: int
    verdict: str
    found: dict[tuple[str, str], dict[str, str]]

    def of(self, subject: str, name: str) -> dict[str, str]:
        return self.found[subject, name]


def doctor(
    cwd: Path,
    prologue: str = "",
    env: dict[str, str] | None = None,
    sandbox: Sequence[Refused] = (),
) -> Report:
    """Run the doctor, in a program that first does something to itself."""
    text = textwrap.dedent(prologue) + (
        "\nimport sys\nfrom theus.__main__ import main\nsys.exit(main(['doctor', '--json']))\n"
    )
    ended = run_text(text, cwd=cwd, env=env, prefix=refusing(*sandbox) if sandbox else [])
    assert ended.err == ""
    return read(ended)


def read(ended: Ended) -> Report:
    printed = json.loads(ended.out)
    assert set(printed) == {"theus", "verdict", "findings"}
    found = {}
    for finding in printed["findings"]:
        assert set(finding) == FIELDS
        assert finding["status"] in STATUSES
        assert all(isinstance(text, str) for text in finding.values())
        assert finding["name"]
        assert finding["value"]
        if finding["status"] != "ok":
            assert finding["meaning"], f"what does it mean? {finding}"
            assert finding["mend"], f"how is it mended? {finding}"
        key = finding["subject"], finding["name"]
        assert key not in found
        found[key] = finding
    return Report(ended.code, printed["verdict"], found)


def limited(resource: str, value: int) -> str:
    """A prologue that lowers a limit of the program."""
    return f"import resource\nresource.setrlimit(resource.{resource}, ({value}, {value}))\n"


def test_this_machine_is_well(tmp_path: Path) -> None:
    """No false alarm: theus runs here, as the other tests show, so nothing may be missing."""
    found = doctor(tmp_path)
    assert found.code == 0
    assert found.verdict in ("ok", "degraded")
    assert [name for subject, name in found.found if subject == "live"] == list(live.STEPS)
    assert all(f["status"] == "ok" for f in found.found.values() if f["subject"] == "live")
    assert "0 kB of its own" in found.of("live", "zero copy")["value"]
    assert {subject for subject, _ in found.found} == {
        "python",
        "kernel",
        "limits",
        "memory",
        "live",
    }


def test_as_text(tmp_path: Path) -> None:
    text = "import sys\nfrom theus.__main__ import main\nsys.exit(main(['doctor']))"
    ended = run_text(text, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    for word in ("Kernel and sandbox", "memfd_create", "An engine, tried", "nothing left"):
        assert word in ended.out
    assert ended.out.splitlines()[-1].startswith(("All is well", "theus works here"))
    assert all(len(line) <= 160 for line in ended.out.splitlines())


# As workers need some as well, how many are few depends on the processors that the program may use.
FEW_OPEN_FILES = limited("RLIMIT_NOFILE", 64) + (
    "import os\nos.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
)


def test_few_open_files(tmp_path: Path) -> None:
    found = doctor(tmp_path, FEW_OPEN_FILES)
    files = found.of("limits", "open files")
    assert (files["status"], files["value"]) == ("degraded", "64")
    assert "arrays at a time" in files["meaning"]
    assert "ulimit -n" in files["mend"]
    assert found.verdict == "degraded"
    assert found.code == 0


def test_strict_makes_less_than_well_an_exit_status(tmp_path: Path) -> None:
    text = FEW_OPEN_FILES + (
        "import sys\nfrom theus.__main__ import main\nsys.exit(main(['doctor', '--strict']))"
    )
    ended = run_text(text, cwd=tmp_path)
    assert ended.code == 1
    assert "theus works here; see the lines that say degraded." in ended.out
    assert "To mend it: " in ended.out


def test_little_address_space(tmp_path: Path) -> None:
    found = doctor(tmp_path, limited("RLIMIT_AS", 8 << 30))
    space = found.of("limits", "address space")
    assert (space["status"], found.code) == ("degraded", 0)
    assert "ulimit -v unlimited" in space["mend"]

    found = doctor(tmp_path, limited("RLIMIT_AS", 700 * MIB))
    assert found.of("limits", "address space")["status"] == "missing"
    load = found.of("live", "load")
    assert load["status"] == "missing"
    assert "RLIMIT_AS" in load["meaning"]
    assert (found.verdict, found.code) == ("unusable", 2)


def test_small_files(tmp_path: Path) -> None:
    found = doctor(tmp_path, limited("RLIMIT_FSIZE", 64 * MIB))
    files = found.of("limits", "file size")
    assert (files["status"], files["value"], files["mend"]) == (
        "degraded",
        "64.0 MiB",
        "ulimit -f unlimited",
    )
    assert found.code == 0
    found = doctor(tmp_path, limited("RLIMIT_FSIZE", 1 * MIB))
    assert found.of("live", "alloc")["status"] == "missing"
    assert "ulimit -f unlimited" in found.of("live", "alloc")["meaning"]
    assert found.code == 2


def test_few_threads(tmp_path: Path) -> None:
    # Root is exempt from the limit, so another user is needed to feel it; that one may not be
    # allowed to read the interpreter's files, so all that is needed is imported before.
    text = """
    import os, resource, threading
    from theus.doctor import limits
    from theus.doctor.machine import Machine
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))
    for found in limits.findings(Machine()):
        if found.name == "processes and threads":
            print(found.status, found.mend)
    """
    ended = run_text(text, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("missing ulimit -u unlimited")


def test_a_library_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    found = doctor(tmp_path, env={"THEUS_LIBRARY": "/nowhere/libtheus.so"})
    assert found.of("python", "library")["status"] == "missing"
    assert "pip install" in found.of("python", "library")["mend"]
    assert found.of("live", "load")["value"] == "ImportError"
    assert "cannot load /nowhere/libtheus.so" in found.of("live", "load")["meaning"]
    assert found.code == 2
    broken = tmp_path / "libtheus.so"
    broken.write_text("this is no library")
    found = doctor(tmp_path, env={"THEUS_LIBRARY": str(broken)})
    assert "cannot load" in found.of("live", "load")["meaning"]
    assert found.code == 2


def test_dev_shm_does_not_matter(tmp_path: Path) -> None:
    """A /dev/shm that nobody can write to: everything works, and nobody is alarmed."""
    if os.getuid() != 0:
        pytest.skip("only root may mount something over /dev/shm, in a namespace of its own")
    command = 'mount -t tmpfs -o ro,size=4k none /dev/shm && exec "$@"'
    arguments = ["unshare", "--mount", "sh", "-c", command, "sh", sys.executable]
    done = subprocess.run(
        [*arguments, "-m", "theus", "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = read(Ended(done.returncode, done.stdout, done.stderr))
    assert found.code == 0
    assert found.of("kernel", "memfd_create")["status"] == "ok"
    assert found.of("memory", "/dev/shm")["status"] == "ok"
    assert found.of("live", "zero copy")["status"] == "ok"


needs_numbers = pytest.mark.skipif(
    platform.machine() not in NUMBERS, reason="the numbers of its system calls are not known here"
)


@needs_numbers
@pytest.mark.parametrize("what", SPARED)
def test_nothing_is_called_missing_that_theus_does_without(tmp_path: Path, what: str) -> None:
    found = doctor(tmp_path, sandbox=[SPARED[what]])
    assert [key for key, f in found.found.items() if f["status"] == "missing"] == []
    assert found.code == 0


@needs_numbers
@pytest.mark.parametrize(
    ("what", "name"),
    [("pidfd_open", "pidfd_open"), ("seals", "seals of the size"), ("fallocate", "fallocate")],
)
def test_what_theus_needs_is_called_missing(tmp_path: Path, what: str, name: str) -> None:
    refused, _ = NEEDED[what]
    found = doctor(tmp_path, sandbox=[refused])
    assert found.of("kernel", name)["status"] == "missing"
    assert "sandbox" in found.of("kernel", name)["mend"]
    tried = [f["status"] for (subject, _), f in found.found.items() if subject == "live"]
    assert "missing" in tried, "an engine comes to the same"
    assert found.code == 2


@needs_numbers
def test_without_memory_files_nothing_is_sealed_and_theus_works(tmp_path: Path) -> None:
    memfd = Refused("memfd_create", errno.ENOSYS)
    found = doctor(tmp_path, sandbox=[memfd, NEEDED["seals"][0]])
    assert found.of("kernel", "seals of the size")["status"] == "degraded"
    assert found.code == 0


@needs_numbers
def test_where_no_page_is_wiped_forks_are_still_told(tmp_path: Path) -> None:
    """As test_forks_raw.py shows; only who bypasses the C library is not."""
    found = doctor(tmp_path, sandbox=[Refused("madvise", errno.EINVAL, 2, MADV_WIPEONFORK)])
    wipe = found.of("kernel", "WIPEONFORK")
    assert wipe["status"] == "degraded"
    assert wipe["meaning"].startswith("children of fork() get an error")
    assert "bare clone() hangs" in wipe["meaning"]
    assert found.code == 0


@needs_numpy_in_a_removed_directory
def test_no_home_and_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    prologue = f"import os\nos.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})\n"
    found = doctor(tmp_path, prologue + "os.environ.pop('HOME', None)\n")
    assert found.of("memory", "files")["value"] == "no home directory, working directory removed"
    assert found.code == 0


def test_a_tight_control_group(tmp_path: Path, make_cgroup: CgroupFactory) -> None:
    group = make_cgroup(200 * MIB)
    join = f"open({str(group.directory / 'cgroup.procs')!r}, 'w').write('0')\n"
    found = doctor(tmp_path, join)
    heap = found.of("memory", "heap")
    assert heap["status"] == "degraded"
    assert group.name in heap["value"]
    assert "docker --memory" in heap["mend"]
    limits = [f["value"] for (_, name), f in found.found.items() if group.name in name]
    assert len(limits) == 1
    assert limits[0].startswith("limit 200.0 MiB, used ")
    # The library comes to the same: 80 % of what its process finds left.
    own = found.of("live", "open")["value"].split(", ")[2].split()
    assert own[1:3] == ["MiB", "of"]
    assert 20 < float(own[0]) < 160
    assert found.code == 0


def test_a_check_that_dies_or_hangs_is_told() -> None:
    (step,) = live.findings("import os, sys; sys.stderr.write('last words\\n'); os.abort()")
    assert (step.name, step.status) == ("load", "missing")
    assert "SIGABRT" in step.value
    assert "last words" in step.meaning
    (step,) = live.findings("import signal; signal.pause()", patience=0.5)
    assert "did not go on for 0.5 s" in step.value
    first = json.dumps({"name": "load", "status": "ok", "value": "1 ms"})
    steps = live.findings(f"print('{first}', flush=True); raise SystemExit(3)")
    assert [(s.name, s.status) for s in steps] == [("load", "ok"), ("open", "missing")]
    assert "status 3" in steps[1].value


def finding(status: Any) -> Finding:
    return Finding("limits", "open files", status, "64", "enough for few", "ulimit -n 4096")


@pytest.mark.parametrize(
    ("statuses", "verdict", "code", "strict"),
    [
        ([], "ok", 0, 0),
        (["ok", "ok"], "ok", 0, 0),
        (["ok", "degraded"], "degraded", 0, 1),
        (["degraded", "missing", "ok"], "unusable", 2, 2),
    ],
)
def test_verdicts_and_exit_statuses(
    statuses: list[str], verdict: str, code: int, strict: int
) -> None:
    findings = [finding(status) for status in statuses]
    assert report.verdict(findings) == verdict
    assert report.exit_status(findings, strict=False) == code
    assert report.exit_status(findings, strict=True) == strict


def test_the_text_of_a_report() -> None:
    findings = [
        Finding("kernel", "version", "ok", "Linux 6.1"),
        finding("degraded"),
        Finding("live", "load", "missing", "ImportError", "it is not there", "install it"),
    ]
    assert report.as_text(findings) == textwrap.dedent(
        """\
        Kernel and sandbox
          ok        version     Linux 6.1
        Limits
          degraded  open files  64
                    enough for few
                    To mend it: ulimit -n 4096
        An engine, tried
          missing   load        ImportError
                    it is not there
                    To mend it: install it

        theus does not work here; see the lines that say missing."""
    )


def test_the_doctor_leaves_its_own_process_as_it_was(tmp_path: Path) -> None:
    """Looking changes nothing: no library, no numpy, no descriptor, no limit."""
    text = """
import os, resource, sys
from theus.doctor import interpreter, kernel, limits, memory
from theus.doctor.machine import Machine
machine = Machine()
def look():
    interpreter.findings(), kernel.findings(), limits.findings(machine), memory.findings(machine)
look()
before = sorted(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
look()
assert before == (sorted(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE))
maps = open("/proc/self/maps").read()
print("libtheus" in maps, "memfd" in maps, "numpy" in sys.modules)
"""
    with started(["-c", text], cwd=tmp_path) as program:
        assert program.end() == Ended(0, "False False False\n", "")
