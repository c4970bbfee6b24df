"""Removes each guard of guards.py in turn and expects its test to fail.

``remove_guards.py [--list] [NAME...]``: without names, all of them. The work is done on a copy of
the sources under build/mutants; Python tests run an installed wheel, built from the copy. Ends with
a table and with status 1 if a test passed without its guard, or failed with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from guards import MUTANTS, Cut, GoTest, Mutant, PythonTest

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
PYTHON = WORK / "venv" / "bin" / "python"
INJECTED = WORK / "libtheus-injected.so"
PATIENCE = 600  # of one test, which without its guard may hang


class Ended(NamedTuple):
    """How a test ended: "passed", "failed" (by its own judgement), or "broken" (it never ran)."""

    verdict: str
    output: str


class GuardMoved(Exception):
    """The table no longer fits the sources."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of mutants; all when none is given")
    parser.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.names or m.name in options.names]
    unknown = set(options.names) - {m.name for m in MUTANTS}
    if unknown:
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}; see --list")
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name}: {mutant.protects} ({mutant.test.place})")
        return 0
    copy_sources()
    make_environment()
    whole = {mutant.test: run(mutant.test) for mutant in chosen}
    rows = [(mutant, whole[mutant.test], without_guard(mutant)) for mutant in chosen]
    return report(rows)


def copy_sources() -> None:
    """A fresh copy of all files that git knows, as they are in the checkout."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)


def make_environment() -> None:
    """An interpreter that finds this one's packages, and before them the theus of the copy."""
    if not PYTHON.exists():
        venv.create(WORK / "venv", symlinks=True)
    (site,) = (WORK / "venv").glob("lib/python*/site-packages")
    (ours,) = (path for path in sys.path if path.endswith("site-packages"))
    (site / "packages_of_the_project.pth").write_text(f"{ours}\n")


def without_guard(mutant: Mutant) -> Ended:
    """Run a mutant's test on sources that lack its guard, then put the guard back."""
    files = {cut.file: (TREE / cut.file).read_text() for cut in mutant.cuts}
    try:
        for cut in mutant.cuts:
            path = TREE / cut.file
            path.write_text(cut_out(path.read_text(), cut))
        for _ in range(mutant.tries):
            ended = run(mutant.test)
            if ended.verdict != "passed":
                break
        return ended
    finally:
        for name, text in files.items():
            (TREE / name).write_text(text)


def cut_out(text: str, cut: Cut) -> str:
    """A file's text without the guard.

    Raises:
        GuardMoved: the guard does not stand there exactly once.
    """
    count = text.count(cut.guard)
    if count != 1:
        raise GuardMoved(
            f"{cut.file} has this {count} times instead of once; mend tests/mutants/guards.py:\n"
            f"{cut.guard}"
        )
    return text.replace(cut.guard, cut.without)


def run(test: GoTest | PythonTest) -> Ended:
    return run_go(test) if isinstance(test, GoTest) else run_python(test)


def run_go(test: GoTest) -> Ended:
    built = command(["go", "vet", test.package])
    if built.returncode:
        return Ended("broken", built.stdout)
    done = command(["go", "test", "-count=1", "-v", "-run", f"^{test.name}$", test.package])
    ran = f"=== RUN   {test.name}\n" in done.stdout
    return Ended(verdict(done.returncode, ran, failure=1), done.stdout)


def run_python(test: PythonTest) -> Ended:
    shutil.rmtree(WORK / "wheel", ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(WORK / "wheel")]
    install = [*pip, "--python", str(PYTHON), "install", "--no-deps", "--force-reinstall"]
    steps = [[*wheel, "."]]
    if test.injected:
        steps.append([sys.executable, "tools/library.py", str(INJECTED), "panicinject"])
    for step in steps:
        built = command(step)
        if built.returncode:
            return Ended("broken", built.stdout)
    installed = command([*install, *map(str, (WORK / "wheel").glob("*.whl"))])
    if installed.returncode:
        return Ended("broken", installed.stdout)
    done = command(
        [str(PYTHON), "-m", "pytest", "-x", "-q", f"tests/python/{test.file}", "-k", test.name],
        {"THEUS_INJECT_LIBRARY": str(INJECTED)} if test.injected else {},
    )
    # pytest: 1 when tests failed; 2 to 5 when none could run.
    return Ended(verdict(done.returncode, done.returncode in (0, 1), failure=1), done.stdout)


def verdict(code: int, ran: bool, failure: int) -> str:
    if not ran:
        return "broken"
    if code == 0:
        return "passed"
    # A test that is killed, or that hangs until `command` gives up, has noticed as well.
    return "failed" if code == failure or code < 0 else "broken"


def command(
    arguments: Sequence[str], extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": ""} | (extra or {})
    process = subprocess.Popen(
        arguments,
        cwd=TREE,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output)


def report(rows: Sequence[tuple[Mutant, Ended, Ended]]) -> int:
    wrong = [row for row in rows if (row[1].verdict, row[2].verdict) != ("passed", "failed")]
    for mutant, whole, cut in wrong:
        for name, ended in (("with", whole), ("without", cut)):
            print(f"---- {mutant.name}: its test {name} the guard {ended.verdict}\n{ended.output}")
    print("| guard | test | with it | without it |\n|---|---|---|---|")
    for mutant, whole, cut in rows:
        print(f"| {mutant.name} | {mutant.test.place} | {whole.verdict} | {cut.verdict} |")
    print(f"{len(rows) - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
