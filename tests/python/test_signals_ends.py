"""SIGTERM and its like: the program ends as it would without an engine, and nothing is left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from programs import Ended, started

OPEN = """
import asyncio, os, signal, sys, time
from theus import TheusEngine
engine = TheusEngine(workers=2)
engine.heavy.put("x", [1.0, 2.0])

def sleep():
    print("running", flush=True)
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM])
def test_the_default_action(tmp_path: Path, number: signal.Signals) -> None:
    with started(["-c", OPEN + "engine.run(sleep)"], cwd=tmp_path) as program:
        assert program.line() == "running"
        program.process.send_signal(number)
        assert program.end() == Ended(-number, "", "")


HANDLERS = {
    "exits": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n",
    "is the default of servers": (
        "def stop(*_):\n    raise KeyboardInterrupt\nsignal.signal(signal.SIGTERM, stop)\n"
    ),
    "closes": "signal.signal(signal.SIGTERM, lambda *_: (engine.close(), sys.exit(3)))\n",
}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(
    "wait", ["engine.run(sleep)", "engine.submit(sleep).result()", "list(engine.map(sleep, [()]))"]
)
def test_a_handler_that_ends_the_program(tmp_path: Path, handler: str, wait: str) -> None:
    wait = wait.replace("map(sleep, [()])", "map(lambda _: sleep(), [()])")
    text = (
        f"{OPEN}{HANDLERS[handler]}\ntry:\n    {wait}\nexcept KeyboardInterrupt:\n    sys.exit(3)"
    )
    with started(["-c", text], cwd=tmp_path) as program:
        assert program.line() == "running"
        program.process.terminate()
        assert program.end() == Ended(3, "", "")


def test_a_server_on_asyncio_that_shuts_down_in_order(tmp_path: Path) -> None:
    """Told by SIGTERM, it takes no more, cancels what runs and closes."""
    text = f"""{OPEN}
async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: print("reloaded", flush=True))
    async with TheusEngine(workers=1) as inner:
        requests = [asyncio.ensure_future(inner.execute(sleep)) for _ in range(3)]
        requests.append(asyncio.ensure_future(engine.execute(pow, 2, 3)))
        print("ready", flush=True)
        await stop.wait()
        for request in requests:
            request.cancel()
        ends = await asyncio.gather(*requests, return_exceptions=True)
        print([type(end).__name__ for end in ends], await engine.execute(pow, 2, 4), flush=True)
    print("closed", flush=True)

asyncio.run(main())
"""
    with started(["-c", text], cwd=tmp_path) as program:
        assert {program.line(), program.line()} == {"ready", "running"}
        program.process.send_signal(signal.SIGUSR1)
        assert program.line() == "reloaded"
        program.process.terminate()
        ends = program.line()
        assert ends.startswith("['CancelledError', 'CancelledError', 'CancelledError', ")
        assert ends.endswith(" 16")
        assert program.end() == Ended(0, "closed\n", "")
