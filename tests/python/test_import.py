"""Importing theus is cheap and has no effects."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_importing_loads_neither_numpy_nor_asyncio_nor_the_library() -> None:
    heavy = "numpy asyncio concurrent.futures multiprocessing cloudpickle ctypes inspect"
    code = (
        "import sys, theus; from theus import process\n"
        "from theus.contracts import process\n"
        f"print([m for m in {heavy.split()} if m in sys.modules])\n"
        "print('libtheus' in open('/proc/self/maps').read())"
    )
    assert run(code).splitlines() == ["[]", "False"]


def test_the_library_is_loaded_with_the_first_engine_only() -> None:
    code = (
        "import theus; from theus import TheusEngine\n"
        "print('libtheus' in open('/proc/self/maps').read())\n"
        "engine = TheusEngine(workers=1)\n"
        "print('libtheus' in open('/proc/self/maps').read())"
    )
    assert run(code).splitlines() == ["False", "True"]


def test_every_public_name_is_there() -> None:
    code = (
        "import theus\n"
        "assert theus.__version__.count('.') == 2\n"
        "[getattr(theus, name) for name in theus.__all__]\n"
        "from theus.structures import ContextError, ShmArray, StateUpdate\n"
        "from theus.context import BaseDomainContext, BaseGlobalContext, BaseSystemContext\n"
        "from theus.context import ShmArray as Other\n"
        "from theus.engine import ContractViolationError, TheusEngine\n"
        "from theus.contracts import ProcessContract, SemanticType\n"
        "from theus.contracts import ContractViolationError as Same\n"
        "print(ShmArray is Other is theus.ShmArray, ContractViolationError is Same)"
    )
    assert run(code) == "True True"


def test_other_systems_are_refused_with_a_reason() -> None:
    template = (
        "import sys, os\n"
        "{change}\n"
        "try:\n    import theus\n"
        "except ImportError as error:\n    print(error)"
    )
    assert "WSL2" in run(template.format(change="sys.platform = 'win32'"))
    assert "Linux" in run(template.format(change="sys.platform = 'darwin'"))
    assert "musl" in run(template.format(change="os.confstr = lambda name: ''"))
