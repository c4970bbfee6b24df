"""Importing theus is cheap and has no effects."""

from __future__ import annotations

from pathlib import Path

from programs import printed_by


def test_importing_loads_neither_numpy_nor_asyncio_nor_the_library(tmp_path: Path) -> None:
    heavy = "numpy asyncio concurrent.futures multiprocessing cloudpickle ctypes inspect"
    code = (
        "import sys, theus; from theus import process\n"
        "from theus.contracts import process\n"
        f"print([m for m in {heavy.split()} if m in sys.modules])\n"
        "print('libtheus' in open('/proc/self/maps').read())"
    )
    assert printed_by(code, tmp_path).splitlines() == ["[]", "False"]


def test_the_library_is_loaded_with_the_first_engine_only(tmp_path: Path) -> None:
    code = (
        "import theus; from theus import TheusEngine\n"
        "print('libtheus' in open('/proc/self/maps').read())\n"
        "engine = TheusEngine(workers=1)\n"
        "print('libtheus' in open('/proc/self/maps').read())"
    )
    assert printed_by(code, tmp_path).splitlines() == ["False", "True"]


def test_every_public_name_is_there(tmp_path: Path) -> None:
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
    assert printed_by(code, tmp_path) == "True True"


def test_other_systems_are_refused_with_a_reason(tmp_path: Path) -> None:
    template = (
        "import sys, os\n"
        "{change}\n"
        "try:\n    import theus\n"
        "except ImportError as error:\n    print(error)"
    )
    assert "WSL2" in printed_by(template.format(change="sys.platform = 'win32'"), tmp_path)
    assert "Linux" in printed_by(template.format(change="sys.platform = 'darwin'"), tmp_path)
    assert "musl" in printed_by(template.format(change="os.confstr = lambda name: ''"), tmp_path)
