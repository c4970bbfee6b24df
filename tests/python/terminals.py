"""Programs on a terminal of their own, for what a person does at the keyboard."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from polling import until
from processes import doings, in_session
from programs import PATIENCE, environment

CTRL_C, CTRL_Z = b"\x03", b"\x1a"
_SILENCE = 5.0  # seconds after which a person presses once more
# The terminal becomes the controlling one of the session, then the program takes this one's place.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A program on a terminal; see `on_terminal`."""

    def __init__(self, process: subprocess.Popen[bytes], keyboard: int) -> None:
        self.process = process
        self._keyboard = keyboard
        self._screen = b""  # what was not looked at yet
        self._ended = False

    def press(self, keys: bytes) -> float:
        """Press keys; gives the moment, on the clock of `time.monotonic`."""
        now = time.monotonic()
        os.write(self._keyboard, keys)
        return now

    def line_with(self, word: str) -> str:
        """The next line in which a word stands; those before it are passed over.

        Raises:
            AssertionError: the program ended, or printed nothing for long, before it came.
        """
        passed = []
        while True:
            line = self._line()
            if word in line:
                return line
            assert line or not self._ended, f"no {word!r} among {passed}"
            passed.append(line)

    def shows(self, text: str) -> None:
        """Wait until a text is on the screen, a prompt say; what stands before it is passed over.

        Raises:
            AssertionError: the program ended, or printed nothing for long, before it came.
        """
        while text.encode() not in self._screen:
            assert not self._ended, f"no {text!r} in {self._screen!r}"
            self._read()
        _, _, self._screen = self._screen.partition(text.encode())

    def rest(self, again: bytes = b"") -> str:
        """All that it still prints until it ends.

        Args:
            again: keys to press whenever it has printed nothing for some seconds.
        """
        while not self._ended:
            self._read(again)
        rest, self._screen = self._screen.decode(), b""
        return rest.replace("\r\n", "\n")

    def end(self) -> int:
        """Wait for its end, and for that of everything that it started; gives its exit code."""
        code = self.process.wait(PATIENCE)
        leader = self.process.pid
        until(lambda: not in_session(leader), f"the processes {in_session(leader)} to be gone")
        return code

    def _line(self) -> str:
        while b"\n" not in self._screen and not self._ended:
            self._read()
        line, _, self._screen = self._screen.partition(b"\n")
        return line.decode().rstrip("\r")

    def _read(self, again: bytes = b"") -> None:
        ready = self._awaited(_SILENCE if again else PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not ready and again and time.monotonic() < deadline:
            self.press(again)
            ready = self._awaited(_SILENCE)
        assert ready, (
            f"the program printed nothing for {PATIENCE} s after {self._screen[-2000:]!r}; "
            f"there are\n{doings(in_session(self.process.pid))}"
        )
        try:
            some = os.read(self._keyboard, 1 << 16)
        except OSError:  # EIO: nobody has the other side open any more
            some = b""
        self._screen += some
        self._ended = not some

    def _awaited(self, seconds: float) -> bool:
        return bool(select.select([self._keyboard], [], [], seconds)[0])


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """A command on a terminal; killed with all its session when the block is left early."""
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, *command],
        cwd=cwd,
        env=environment({"TERM": "dumb", **(env or {})}),
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
    )
    os.close(screen)
    try:
        with process:
            try:
                yield Terminal(process, keyboard)
            finally:
                for pid in in_session(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    finally:
        os.close(keyboard)
