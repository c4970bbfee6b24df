"""Machines without anything: environments in which only Python can be found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

# What a program may inherit of the real environment: ways to the package registries, nothing of
# the machine's compilers, caches or Python.
_KEPT = ("PIP_", "SSL_", "REQUESTS_", "GOPROXY", "GOSUMDB", "GONOSUMDB", "LANG", "LC_", "TMPDIR")
_KEPT_ANY_CASE = ("http_proxy", "https_proxy", "no_proxy")
_LONGEST_STEP = 600.0  # seconds; a build from nothing takes about one minute


@dataclass
class BareMachine:
    """A PATH with nothing on it and an empty HOME, and virtual environments in there."""

    directory: Path
    environment: dict[str, str]
    made: int = field(default=0)

    def run(
        self, *command: str | Path, cwd: Path, ok: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command there; it has to succeed unless ``ok`` is False."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST_STEP,
            check=False,
        )
        if ok and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def new_python(self) -> Path:
        """Makes a virtual environment with nothing in it but pip; returns its interpreter."""
        self.made += 1
        place = self.directory / f"venv{self.made}"
        self.run(sys.executable, "-m", "venv", place, cwd=self.directory)
        return place / "bin" / "python"

    def new_directory(self, name: str) -> Path:
        """Makes an empty directory to work in."""
        self.made += 1
        place = self.directory / f"{name}{self.made}"
        place.mkdir()
        return place


@pytest.fixture(scope="session")
def bare_machine(tmp_path_factory: pytest.TempPathFactory) -> BareMachine:
    directory = tmp_path_factory.mktemp("bare")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_KEPT) or name.lower() in _KEPT_ANY_CASE
    }
    for variable, name in (("PATH", "bin"), ("HOME", "home")):
        (directory / name).mkdir()
        environment[variable] = str(directory / name)
    # The tools' own archives, 150 MB, are downloaded once: what is empty is the machine, not the
    # shelf beside it.
    environment["PIP_CACHE_DIR"] = _pip_cache() or str(directory / "pip")
    for compiler in ("go", "cc", "gcc", "clang", "c++", "zig"):
        assert shutil.which(compiler, path=environment["PATH"]) is None
    return BareMachine(directory, environment)


def _pip_cache() -> str | None:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() if asked.returncode == 0 else None


@pytest.fixture(scope="session")
def new_checkout(bare_machine: BareMachine):  # type: ignore[no-untyped-def]
    """Returns a function that makes one more copy of the project's own files."""

    def copy() -> Path:
        place = bare_machine.new_directory("checkout")
        for name in _own_files():
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place / name)
        return place

    return copy


def _own_files() -> list[str]:
    """Returns the files that belong to the project, not those that it builds."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return listed.stdout.split("\0")[:-1]
    built = {"build", "dist", "__pycache__", "libtheus.so", "libtheus.h"}
    return [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*")
        if not built.intersection(path.relative_to(ROOT).parts)
        and not path.relative_to(ROOT).parts[0].startswith((".venv", ".git/", ".mypy", ".ruff"))
    ]
