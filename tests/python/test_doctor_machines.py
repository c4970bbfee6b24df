"""The doctor, of machines that are made of files: control groups and limits of all kinds."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from theus.doctor import kernel, limits, memory
from theus.doctor.findings import Finding
from theus.doctor.machine import Machine, size

MIB = 1 << 20


class Files:
    """A machine whose files are below a directory; healthy, until something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("/proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    8388608 kB\n")
        self.write("/proc/sys/vm/overcommit_memory", "0\n")
        self.write("/proc/sys/vm/max_map_count", "65530\n")
        self.write("/proc/self/cgroup", "0::/pod/box\n")
        self.mount("/sys/fs/cgroup", "cgroup2")

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mount(self, point: str, kind: str, options: str = "rw", shows: str = "/") -> None:
        self.write(
            "/proc/self/mountinfo",
            "22 1 0:1 / / rw - ext4 disk rw\n"
            f"31 22 0:28 {shows} {point} rw,relatime shared:4 - {kind} none {options}\n",
        )

    def group(self, path: str, **files: object) -> None:
        for name, text in files.items():
            self.write(f"/sys/fs/cgroup{path}/{name.replace('__', '.')}", f"{text}\n")

    def memory(self) -> dict[str, Finding]:
        return {found.name: found for found in memory.findings(Machine(str(self.root)))}

    def limits(self) -> dict[str, Finding]:
        return {found.name: found for found in limits.findings(Machine(str(self.root)))}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_without_control_groups_the_machine_decides(files: Files) -> None:
    found = files.memory()
    assert found["heap"].value == "6.4 GiB (80 % of what is left by the machine)"
    assert {f.status for f in found.values()} == {"ok"}


def test_the_tightest_group_decides_and_page_cache_does_not_count(files: Files) -> None:
    files.group("/pod", memory__max=1000 * MIB, memory__current=900 * MIB)
    files.write(
        "/sys/fs/cgroup/pod/memory.stat",
        f"anon 5\nactive_file {300 * MIB}\ninactive_file {200 * MIB}\n",
    )
    files.group("/pod/box", memory__max="max", memory__current=100 * MIB)
    found = files.memory()
    assert found["heap"].value == "480.0 MiB (80 % of what is left by control group v2 /pod)"
    assert found["control group v2 /pod"].value == (
        "limit 1000.0 MiB, used 400.0 MiB besides page cache, 600.0 MiB left"
    )
    assert "control group v2 /pod/box" not in found, "it has no limit"
    files.group("/pod/box", memory__max=200 * MIB)
    heap = files.memory()["heap"]
    assert heap.status == "degraded"
    assert "80.0 MiB" in heap.value
    assert "/pod/box (docker --memory" in heap.mend
    files.group("/pod/box", memory__max=100 * MIB)
    assert files.memory()["heap"].status == "missing"


def test_version_1_groups(files: Files) -> None:
    files.write("/proc/self/cgroup", "9:cpu:/\n4:memory,hugetlb:/docker/abc\n0::/\n")
    files.mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory")
    files.group(
        "/memory/docker/abc",
        memory__limit_in_bytes=9223372036854771712,
        memory__usage_in_bytes=50 * MIB,
    )
    stat = "/sys/fs/cgroup/memory/docker/abc/memory.stat"
    files.write(stat, f"hierarchical_memory_limit {400 * MIB}\ntotal_active_file {10 * MIB}\n")
    found = files.memory()["control group v1 /docker/abc"]
    assert found.value == "limit 400.0 MiB, used 40.0 MiB besides page cache, 360.0 MiB left"
    # A group that does not count its children is not about us.
    files.group(
        "/memory/docker",
        memory__limit_in_bytes=300 * MIB,
        memory__usage_in_bytes=290 * MIB,
        memory__use_hierarchy=0,
    )
    assert "control group v1 /docker" not in files.memory()
    files.group("/memory/docker", memory__use_hierarchy=1)
    assert files.memory()["heap"].status == "missing"


def test_a_container_that_sees_a_part_of_the_hierarchy_only(files: Files) -> None:
    files.write("/proc/self/cgroup", "0::/pod/box/deep\n")
    files.mount("/sys/fs/cgroup", "cgroup2", shows="/pod/box")
    files.group("/deep", memory__max=500 * MIB, memory__current=0)
    assert "left by control group v2 /pod/box/deep" in files.memory()["heap"].value
    files.mount(r"/sys/fs/c\040group", "cgroup2", shows="/elsewhere")
    files.write("/sys/fs/c group/memory.max", f"{400 * MIB}\n")
    files.write("/sys/fs/c group/memory.current", "0\n")
    assert "320.0 MiB" in files.memory()["heap"].value


def test_a_group_that_is_killed_whole(files: Files) -> None:
    files.group("/pod", memory__oom__group=1)
    found = files.memory()["kill of a whole group"]
    assert found.status == "degraded"
    assert found.mend.startswith("echo 0 > ")
    assert "/pod/memory.oom.group" in found.mend


def test_strict_overcommit_and_few_mappings(files: Files) -> None:
    files.write("/proc/sys/vm/overcommit_memory", "2\n")
    found = files.memory()["overcommit"]
    assert (found.status, found.mend) == ("degraded", "sysctl -w vm.overcommit_memory=0")
    assert files.limits()["mappings"].status == "ok"
    files.write("/proc/sys/vm/max_map_count", "4000\n")
    found = files.limits()["mappings"]
    assert (found.status, found.mend) == ("degraded", "sysctl -w vm.max_map_count=65530")
    assert "500 arrays of 1 MiB or more" in found.meaning


def test_no_proc_and_no_dev_shm(files: Files) -> None:
    assert files.memory()["/dev/shm"] == Finding(
        "memory",
        "/dev/shm",
        "ok",
        "absent",
        "its size (64 MB in most containers) does not matter: theus uses it only where "
        "memfd_create is refused",
    )
    (files.root / "proc/meminfo").unlink()
    heap = files.memory()["heap"]
    assert (heap.status, heap.mend) == ("missing", "mount /proc")


def test_pids_of_a_control_group(files: Files) -> None:
    files.group("/pod/box", pids__max="max", pids__current=3)
    assert files.limits()["processes and threads"].status == "ok"
    files.group("/pod", pids__max=40, pids__current=30)
    found = files.limits()["processes and threads"]
    assert found.status == "degraded"
    assert found.value.endswith("pids.max 40 of control group /pod leaves 10")
    assert "--pids-limit" in found.mend


def test_processors_of_a_control_group(files: Files) -> None:
    files.group("/pod", cpu__max="150000 100000")
    files.group("/pod/box", cpu__max="max 100000")
    assert "control group quota 1.5" in files.limits()["processors"].value
    files.write("/proc/self/cgroup", "2:cpu,cpuacct:/box\n")
    files.mount("/sys/fs/cgroup/cpu", "cgroup", "rw,cpu,cpuacct")
    files.group("/cpu/box", cpu__cfs_quota_us=400000, cpu__cfs_period_us=100000)
    assert "control group quota 4" in files.limits()["processors"].value
    files.group("/cpu/box", cpu__cfs_quota_us=-1)
    assert "quota" not in files.limits()["processors"].value


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_a_kernel_without_memory_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", refuse)
    found = {f.name: f for f in kernel.findings()}
    memfd = found["memfd_create"]
    assert (memfd.status, memfd.value) == ("degraded", "refused: Function not implemented")
    assert "/dev/shm" in memfd.meaning
    assert "seccomp" in memfd.mend
    assert found["seals of the size"].status == "degraded", "unnamed files have none"
    monkeypatch.setattr(kernel, "_try_tmpfile", refuse)
    memfd = {f.name: f for f in kernel.findings()}["memfd_create"]
    assert memfd.status == "missing"
    assert "mount a tmpfs on /dev/shm" in memfd.mend


def test_what_a_sandbox_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr(kernel.fcntl, "fcntl", refuse)
    monkeypatch.setattr(kernel.platform, "release", lambda: "4.19.0-generic")
    found = {f.name: f for f in kernel.findings()}
    statuses = {name: f.status for name, f in found.items() if f.status != "ok"}
    assert statuses == {
        "version": "degraded",
        "pidfd_open": "missing",
        "seals of the size": "missing",
        "FUTURE_WRITE seal": "degraded",
        "file leases": "degraded",
    }
    assert all(found[name].mend for name in statuses)


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (512, 2048, 3 * MIB, 5 << 30)] == [
        "512 bytes",
        "2.0 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]
