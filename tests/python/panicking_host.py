"""A host whose library panics, on purpose: each function of ``theus.h`` in turn.

Run by test_panics.py in a process of its own, with the path of a library that was built for panic
injection and what to do: "each" prints one JSON object per function, as soon as it is known, so
that it shows which function took the process down, if one did; "running" panics while a task runs.
The last line tells what is left.

Arguments are made from the types in the header, so a function that is added there needs nothing
here.
"""

from __future__ import annotations

import ctypes as c
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import processes
from polling import until
from theus import _abi as abi

HEADER = Path(__file__).resolve().parents[2] / "include" / "theus.h"
# Comments first: they hold examples of code.
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_FUNCTION = re.compile(r"^int32_t (theus_\w+)\(([^()]*)\);", re.MULTILINE)
_ROOM = 1 << 16
_FLOAT64 = abi.DTYPE_CODES["<f8"]


def functions() -> dict[str, list[str]]:
    """The declared functions that return a status, with the text of each parameter.

    The three that return no status give constants. Two of them never enter Go; theus_version
    does, since the linker gives the version to Go, for a return that cannot panic.
    """
    text = _COMMENT.sub(" ", HEADER.read_text())
    return {
        name: [" ".join(parameter.split()) for parameter in parameters.split(",")]
        for name, parameters in _FUNCTION.findall(text)
    }


class Host:
    """One engine, with a live handle of each kind, made when it is needed."""

    def __init__(self, library: c.CDLL) -> None:
        self.library = library
        self.kept: list[Any] = []  # what C was given pointers to
        self.handles: dict[str, int] = {}
        self.engine = self._open()

    def _open(self) -> int:
        import theus

        worker_main = Path(theus.__file__).parent / "worker" / "zygote.py"
        options = abi.fresh(
            abi.Options,
            flags=abi.OPEN_LAZY,
            workers=1,
            python=sys.executable.encode(),
            worker_main=str(worker_main).encode(),
            sys_path=self._strings([p.encode() for p in sys.path]),
            preload=self._strings([]),
        )
        return self._out("theus_open", c.byref(options))

    def _strings(self, items: list[bytes]) -> Any:
        array = (c.c_char_p * (len(items) + 1))(*items, None)
        self.kept.append(array)
        return c.cast(array, c.POINTER(c.c_char_p))

    def _out(self, name: str, *arguments: Any) -> int:
        """Call a function that must succeed and gives a handle."""
        out, error = c.c_uint64(), abi.fresh(abi.Error)
        status = getattr(self.library, name)(*arguments, c.byref(out), c.byref(error))
        if status:
            raise SystemExit(f"{name}: status {status}: {error.message.decode()}")
        return out.value

    def handle(self, kind: str) -> int:
        """A live handle, of a type that the header names."""
        if kind == "engine":
            return self.engine
        if kind not in self.handles:
            self.handles[kind] = getattr(self, "_" + kind)()
        return self.handles[kind]

    def _buf(self) -> int:
        shape = (c.c_int64 * 1)(1000)
        key, dims = c.c_char_p(b"key"), c.c_int32(1)
        return self._out(
            "theus_alloc",
            c.c_uint64(self.engine),
            key,
            c.c_int32(_FLOAT64),
            dims,
            shape,
            c.c_uint32(0),
        )

    def _snap(self) -> int:
        out, error = c.c_uint64(), abi.fresh(abi.Error)
        engine = c.c_uint64(self.engine)
        if self.library.theus_snapshot(engine, c.byref(out), None, c.byref(error)):
            raise SystemExit(error.message.decode())
        return out.value

    def _stream(self) -> int:
        return self._series("theus_stream_open", flags=True)

    def _window(self) -> int:
        return self._series("theus_window_open")

    def _series(self, name: str, flags: bool = False) -> int:
        shape = (c.c_int64 * 1)(10)
        layout = (c.c_char_p(b"<f8"), c.c_uint64(8), c.c_int32(1), shape)
        last = (c.c_uint64(2), *([c.c_uint32(0)] if flags else []))
        return self._out(name, c.c_uint64(self.engine), c.c_char_p(b"key"), *layout, *last)

    def _task(self, target: bytes = b"os:getpid") -> int:
        call = abi.fresh(abi.Call, target=target)
        return self._out("theus_execute", c.c_uint64(self.engine), c.byref(call))

    def _blob(self) -> int:
        return self._out("theus_stats", c.c_uint64(self.engine))

    def _queue(self) -> int:
        return self._out("theus_queue_open", c.c_uint64(self.engine), c.c_uint32(0))

    def call(self, name: str, parameters: list[str]) -> tuple[int, str]:
        """Call a function with arguments of the right types: its status and error text."""
        error = abi.fresh(abi.Error)
        arguments = [self._argument(parameter, error) for parameter in parameters]
        status = getattr(self.library, name)(*arguments)
        return status, error.message.decode()

    def _argument(self, parameter: str, error: abi.Error) -> Any:
        kind, name = parameter.rsplit(" ", 1)
        if name.startswith("*"):
            return self._pointer(kind, error)
        if kind.startswith("theus_"):
            return c.c_uint64(self.handle(kind.removeprefix("theus_")))
        if name == "handle":
            return c.c_uint64(self.handle("snap"))
        value = _FLOAT64 if name == "dtype" else 0
        return {"uint64_t": c.c_uint64, "int64_t": c.c_int64}.get(kind, c.c_int32)(value)

    def _pointer(self, kind: str, error: abi.Error) -> Any:
        if kind == "theus_error":
            return c.byref(error)
        if kind == "const char":
            return c.c_char_p(b"key")
        room = c.create_string_buffer(_ROOM)
        if "struct" in kind or kind.startswith(("theus_", "const theus_")):
            # Large enough for any of them; all say how large they are at the start.
            c.cast(room, c.POINTER(c.c_uint32))[0] = _ROOM
        self.kept.append(room)
        return room

    def stats(self) -> Any:
        """What theus_stats says."""
        blob = c.c_uint64(self._out("theus_stats", c.c_uint64(self.engine)))
        pointer, length = c.c_void_p(), c.c_uint64()
        self.library.theus_blob_data(blob, c.byref(pointer), c.byref(length))
        facts = json.loads(c.string_at(pointer.value or 0, length.value))
        self.library.theus_release(blob)
        return facts

    def close(self) -> dict[str, int]:
        """Close and release everything; gives the status of each call."""
        done = {}
        error = abi.fresh(abi.Error)
        engine = c.c_uint64(self.engine)
        done["theus_close"] = self.library.theus_close(engine, c.c_int64(0), c.byref(error))
        for kind, handle in self.handles.items():
            done["release " + kind] = self.library.theus_release(c.c_uint64(handle))
        done["release engine"] = self.library.theus_release(engine)
        return done


def panic_in(library: c.CDLL, name: str, parameters: list[str], later: dict[str, list[str]]) -> Any:
    """Let one function panic, and tell what it and the later calls gave."""
    host = Host(library)
    for parameter in parameters:  # made before, so that nothing else happens in between
        host._argument(parameter, abi.fresh(abi.Error))
    owned = any(re.match(r"theus_(?!blob)\w+ \w|uint64_t handle", p) for p in parameters)
    library.theus_test_panic(c.c_char_p(name.encode()))
    status, text = host.call(name, parameters)
    library.theus_test_panic(None)
    after = {other: host.call(other, types) for other, types in later.items()} if owned else {}
    return {"name": name, "status": status, "text": text, "after": after, "end": host.close()}


def panic_while_running(library: c.CDLL) -> Any:
    """Let a call panic while a worker runs a task that would never end."""
    host = Host(library)
    host.handles["task"] = host._task(b"signal:pause")
    until(lambda: host.stats()["tasks"]["running"] == 1, "the task to run")
    workers = processes.descendants(os.getpid())
    library.theus_test_panic(c.c_char_p(b"theus_snapshot"))
    host.call("theus_snapshot", functions()["theus_snapshot"])
    library.theus_test_panic(None)
    task = c.c_uint64(host.handles["task"])
    error, value = abi.fresh(abi.Error), abi.fresh(abi.Value)
    waited = library.theus_wait(task, c.c_int64(30_000), c.byref(error))
    ended = library.theus_result(task, c.byref(value), c.byref(error))
    text = error.message.decode()
    return {
        "workers": workers,
        "waited": waited,
        "ended": ended,
        "text": text,
        "end": host.close(),
    }


def open_what_stays(library: c.CDLL) -> None:
    """Start processes once: the Go runtime opens two descriptors then, and keeps them."""
    host = Host(library)
    task = host.handle("task")
    assert library.theus_wait(c.c_uint64(task), c.c_int64(60_000), None) == abi.OK
    host.close()


def left_behind(descriptors: set[str]) -> dict[str, Any]:
    """What is there that was not there at first."""
    return {
        "children": processes.descendants(os.getpid()),
        "maps": [r.name for r in processes.regions() if r.is_shared_memory],
        "descriptors": sorted(processes.descriptors() - descriptors),
    }


def main(path: str, what: str) -> None:
    """Print a line of JSON for each function, or one for a running task; then what is left."""
    library = c.CDLL(path)
    library.theus_test_panic.restype = None
    open_what_stays(library)
    descriptors = processes.descriptors()
    declared = functions()
    later = {
        name: types
        for name, types in declared.items()
        if types[0] == "theus_engine engine" and name != "theus_close"
    }
    if what == "running":
        print(json.dumps(panic_while_running(library)), flush=True)
    else:
        for name, types in declared.items():
            print(json.dumps(panic_in(library, name, types, later)), flush=True)
    print(json.dumps(left_behind(descriptors)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
