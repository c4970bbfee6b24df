"""Builds every tests/c/test_*.c and test_*.cpp against the installed theus, and runs them.

They are compiled with the header and linked with the library that the wheel put into the Python
which runs this, as a user's program would be. ``$CC`` and ``$CXX`` name the compilers. A program
passes by exiting with 0, without a word on standard error, and with nobody left in its session; it
finds the Python for its workers in ``$THEUS_PYTHON``.
``$THEUS_LIBRARY`` names another build of the library.

With ``--sanitize`` the programs, not the library, are compiled with AddressSanitizer and
UndefinedBehaviorSanitizer, and leak checking is on: what the library writes to a caller's memory
through libc is seen, and so is what a program forgets to give back to libc.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
_LONGEST_RUN = 120.0  # seconds
_LONGEST_END = 30.0  # seconds, of the processes that a program started, after its own

_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def main(arguments: list[str]) -> int:
    sanitize = arguments == ["--sanitize"]
    if arguments and not sanitize:
        print(__doc__, file=sys.stderr)
        return 2
    root = Path(__file__).resolve().parent.parent
    sources = sorted([*root.glob("tests/c/test_*.c"), *root.glob("tests/c/test_*.cpp")])
    if not sources:
        print("no test_*.c or test_*.cpp in tests/c: nothing was tested")
        return 1
    output = root / "build" / ("c-sanitized" if sanitize else "c")
    output.mkdir(parents=True, exist_ok=True)
    flags = _SANITIZERS if sanitize else []
    if sanitize and not _links_sanitizers(output):
        return 1
    failed = [source.name for source in sources if not _passes(source, output, flags)]
    print(f"{len(sources) - len(failed)} passed, {len(failed)} failed", *failed)
    return 1 if failed else 0


def _links_sanitizers(output: Path) -> bool:
    """Whether the compiler can do it; says so if not."""
    source = output / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    compiler = shlex.split(os.environ["CC"])
    command = [*compiler, *_SANITIZERS, str(source), "-o", str(output / "empty")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{compiler[0]} cannot link AddressSanitizer (libasan, libubsan): {done.stderr}")
    return done.returncode == 0


def _passes(source: Path, output: Path, flags: list[str]) -> bool:
    program = output / source.name.replace(".", "_")
    if subprocess.run([*_compile(source, program), *flags], check=False).returncode:
        print(f"FAILED {source.name}: does not compile")
        return False
    started = time.monotonic()
    environment = os.environ | {
        "THEUS_PYTHON": sys.executable,
        # Go's handlers are chained to; the sanitizer's own would be called first for nothing.
        "ASAN_OPTIONS": "detect_leaks=1:handle_segv=0:handle_sigbus=0:handle_sigfpe=0",
    }
    # A file and no pipe: a process that is left would keep a pipe open.
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        # A session of its own, by which its workers are found.
        running = subprocess.Popen(
            [str(program)], env=environment, stderr=errors, start_new_session=True
        )
        try:
            status = running.wait(_LONGEST_RUN)
            wrong = [f"exit status {status}"] if status else []
        except subprocess.TimeoutExpired:
            wrong = [f"still running after {_LONGEST_RUN:.0f} s"]
            running.kill()
            running.wait()
        wrong += _end_session(running.pid)
        errors.seek(0)
        said = errors.read()
    if said:
        wrong.append("it wrote to standard error")
        print(said, end="" if said.endswith("\n") else "\n")
    word = f"FAILED ({'; '.join(wrong)})" if wrong else "ok"
    print(f"{word} {source.name} {time.monotonic() - started:.2f}s", flush=True)
    return not wrong


def _end_session(leader: int) -> list[str]:
    """Wait for the processes of a session to end; kills those that do not, and names them."""
    deadline = time.monotonic() + _LONGEST_END
    while left := _in_session(leader):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return [f"left process {pid}: {command}" for pid, command in left.items()]
        time.sleep(0.01)  # poll; what is awaited sends no signal
    return []


def _in_session(leader: int) -> dict[int, str]:
    """The living processes of a session, whoever their parent is, with their commands."""
    found = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            state, _, _, session = (directory / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(directory.name)] = command.decode(errors="replace").strip()
        except OSError:  # it has ended
            continue
    return found


def _compile(source: Path, program: Path) -> list[str]:
    package = _installed_package()
    library = Path(os.environ.get("THEUS_LIBRARY", package / "libtheus.so"))
    language = ["c++", "-std=c++17"] if source.suffix == ".cpp" else ["c", "-std=c11"]
    compiler = shlex.split(os.environ["CXX" if source.suffix == ".cpp" else "CC"])
    return [
        *compiler,
        *["-x", *language, *_WARNINGS, "-g", "-pthread"],
        *["-D_GNU_SOURCE", "-I", str(package / "include"), str(source), "-x", "none"],
        *["-o", str(program), str(library), f"-Wl,-rpath,{library.parent}", "-lm"],
        # ziglang links against glibc 2.17; a wheel built by gcc may need the newer one of here.
        "-Wl,--allow-shlib-undefined",
    ]


def _installed_package() -> Path:
    spec = importlib.util.find_spec("theus")
    if spec is None or spec.origin is None or "site-packages" not in spec.origin:
        raise SystemExit(f"theus is not installed in {sys.executable}; run `make test-c`")
    return Path(spec.origin).parent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
