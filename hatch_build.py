"""Puts the compiled library and the header into the wheel, and names the wheel's platform.

Hatchling calls this hook for wheels and editable installs, not for source archives.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
import compilers
import elf
import library

# What the manylinux rules let a wheel expect of every machine, as far as we need it.
_EVERYWHERE = {"libc.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libresolv.so.2"}


class TheusBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """See https://hatch.pypa.io/latest/plugins/build-hook/custom/."""

    def dependencies(self) -> list[str]:
        """Returns what pip must fetch before the build: compilers that the machine lacks."""
        try:
            return compilers.requirements(Path(self.root))
        except compilers.ToolMissing as missing:
            self.app.abort(str(missing))
            raise

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the library, before the wheel is packed."""
        root = Path(self.root)
        # Not below the checkout: `pip install .` leaves nothing behind there.
        self._scratch = tempfile.TemporaryDirectory(prefix="theus-wheel-")
        built = Path(self._scratch.name, "libtheus.so")
        try:
            library.build(
                root, built, version=self.metadata.version, cache=Path(self._scratch.name)
            )
        except (compilers.ToolMissing, library.BuildFailed) as problem:
            self.app.abort(str(problem))
        if version == "editable":
            _install_in_tree(root, built)
        else:
            build_data["force_include"][str(built)] = "theus/libtheus.so"
            build_data["force_include"][str(root / "include/theus.h")] = "theus/include/theus.h"
            build_data["force_include"][str(root / "docs/agents.md")] = "theus/agents.md"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(built)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the scratch directory."""
        self._scratch.cleanup()


def platform_tag(built: Path) -> str:
    """Returns the platform part of the wheel's tag: manylinux only if the library bears it out."""
    facts = elf.read(built)
    machine = platform.machine()
    floor = tuple(map(int, compilers.GLIBC_FLOOR.split(".")))
    loader = {f"ld-linux-{machine.replace('_', '-')}.so.2", f"ld-linux-{machine}.so.1"}
    if facts.glibc <= floor and set(facts.needed) <= _EVERYWHERE | loader:
        return f"manylinux_{'_'.join(map(str, floor))}_{machine}"
    return f"linux_{machine}"


def _install_in_tree(root: Path, built: Path) -> None:
    """An editable install reads the package from the checkout, so the library must lie there."""
    package = root / "python" / "theus"
    (package / "include").mkdir(exist_ok=True)
    shutil.copy2(root / "include" / "theus.h", package / "include" / "theus.h")
    # Moved into place: a process that has the old library mapped keeps its old file.
    shutil.copy2(built, package / "libtheus.so.new")
    (package / "libtheus.so.new").replace(package / "libtheus.so")
