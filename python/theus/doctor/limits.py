"""Limits of this process and of the control groups around it."""

from __future__ import annotations

import math
import os
import resource

from .. import _preflight as preflight
from .findings import Finding
from .machine import Machine, size

# What an engine itself opens: library, zygote, epoll, and three descriptors for each worker. Every
# array of 1 MiB or more takes one more; smaller ones share.
_BASIC_DESCRIPTORS = 24
_PER_WORKER = 3
_COMFORTABLE_ARRAYS = 64
_USUAL_MAPPINGS = 65530
_SHELL = "in the shell that starts the program, or LimitNOFILE= of a systemd unit"


def findings(machine: Machine) -> list[Finding]:
    """Look at each limit that theus can run into, and at some that it cannot."""
    return [
        _descriptors(),
        _threads(machine),
        _address_space(),
        _file_size(),
        _mappings(machine),
        _core(),
        _locked_memory(),
        _cpus(machine),
    ]


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = len(os.sched_getaffinity(0))
    arrays = soft - _BASIC_DESCRIPTORS - _PER_WORKER * workers - len(os.listdir("/proc/self/fd"))
    value = _limit(soft)
    more = f"ulimit -n {4096 if hard < 0 else min(hard, 4096)} ({_SHELL})"
    if hard >= 0 and hard <= soft:
        more = f"as root, or with docker --ulimit nofile=4096: ulimit -n 4096 ({_SHELL})"
    if arrays < 0:
        text = f"not enough for {workers} workers; an engine may fail to start"
        return Finding("limits", "open files", "degraded", value, text, more)
    if arrays < _COMFORTABLE_ARRAYS:
        text = f"enough for about {arrays} arrays at a time, not counting those below 1 MiB"
        return Finding("limits", "open files", "degraded", value, text, more)
    return Finding("limits", "open files", "ok", value, "loading theus does not change it")


def _threads(machine: Machine) -> Finding:
    started = preflight._threads_left(preflight.THREADS)
    limit = preflight._limit(resource.RLIMIT_NPROC)
    room, where = _room_for_processes(machine)
    value = f"ulimit -u {limit}" + ("" if room is None else f", {where} leaves {room}")
    more = "ulimit -u unlimited, docker --pids-limit, pids.max of the control group; or end others"
    if started < preflight.THREADS:
        text = (
            f"the library needs {preflight.THREADS} threads, and {started} could be started: an "
            "engine refuses to open"
        )
        return Finding("limits", "processes and threads", "missing", value, text, more)
    wanted = preflight.THREADS + 4 * len(os.sched_getaffinity(0))
    if room is not None and room < wanted:
        text = f"an engine with all its workers wants about {wanted}; it may fail to start"
        return Finding("limits", "processes and threads", "degraded", value, text, more)
    return Finding("limits", "processes and threads", "ok", value)


def _room_for_processes(machine: Machine) -> tuple[int | None, str]:
    """How many more the tightest control group allows, and its name; None: there is no limit."""
    least: int | None = None
    where = ""
    for group in machine.groups("pids"):
        limit, now = group.number("pids.max"), group.number("pids.current")
        if limit is not None and (least is None or limit - (now or 0) < least):
            least = limit - (now or 0)
            where = f"pids.max {limit} of control group {group.name}"
    return least, where


def _address_space() -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft == resource.RLIM_INFINITY:
        return Finding("limits", "address space", "ok", "unlimited")
    value, more = f"ulimit -v: {size(soft)}", "ulimit -v unlimited, before the program starts"
    if not preflight._address_space_left(preflight.ADDRESS_SPACE):
        text = (
            f"the library needs {size(preflight.ADDRESS_SPACE)} more (reserved, not used): an "
            "engine refuses to open"
        )
        return Finding("limits", "address space", "missing", value, text, more)
    text = "every array takes address space in the program and in each worker; large ones may fail"
    return Finding("limits", "address space", "degraded", value, text, more)


def _file_size() -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if soft == resource.RLIM_INFINITY:
        return Finding("limits", "file size", "ok", "unlimited")
    text = "shared memory counts as a file for the kernel: no array can be larger than this"
    return Finding("limits", "file size", "degraded", size(soft), text, "ulimit -f unlimited")


def _mappings(machine: Machine) -> Finding:
    limit = machine.number("/proc/sys/vm/max_map_count")
    if limit is None:
        text = "the kernel does not say; theus takes its default, 65530, for granted"
        return Finding("limits", "mappings", "ok", "unknown", text)
    value = f"vm.max_map_count {limit}"
    if limit < _USUAL_MAPPINGS:
        text = f"theus takes a quarter of it at most: about {limit // 8} arrays of 1 MiB or more"
        more = f"sysctl -w vm.max_map_count={_USUAL_MAPPINGS}"
        return Finding("limits", "mappings", "degraded", value, text, more)
    return Finding("limits", "mappings", "ok", value)


def _core() -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_CORE)[0]
    value = "no dumps" if soft == 0 else "unlimited" if soft < 0 else size(soft)
    return Finding("limits", "core dumps", "ok", value, "shared arrays are left out of them")


def _locked_memory() -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    value = "unlimited" if soft < 0 else size(soft)
    return Finding("limits", "locked memory", "ok", value, "theus locks none")


def _cpus(machine: Machine) -> Finding:
    allowed, online = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    quota = _quota(machine)
    value = f"{allowed} of {online}"
    if quota is not None:
        value += f", control group quota {quota:.2g}"
    # As the library counts: a quota is rounded up, and is never taken for less than two.
    count = allowed if quota is None else min(allowed, max(2, math.ceil(quota)))
    workers = "worker" if count == 1 else "workers"
    text = f"an engine starts {count} {workers} unless it is told workers="
    return Finding("limits", "processors", "ok", value, text)


def _quota(machine: Machine) -> float | None:
    """How many CPUs' worth of time the tightest control group gives; None: no limit."""
    quotas = []
    for group in machine.groups("cpu"):
        words = (group.text("cpu.max") or "").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            quotas.append(int(words[0]) / int(words[1]))
        quota, period = group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us")
        if quota is not None and period:
            quotas.append(quota / period)
    return min(quotas) if quotas else None


def _limit(soft: int) -> str:
    return "unlimited" if soft < 0 else str(soft)
