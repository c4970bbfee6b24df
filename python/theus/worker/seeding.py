"""New random streams for a forked worker.

Workers forked from one zygote have the same memory, the state of random generators included, and
would draw the same numbers. So the global generators are seeded anew in each, from the engine's
seed and the worker's id, which is never used twice: a worker that replaces a dead one continues
with other numbers. Nothing from the kernel is mixed in: where the engine's seed was not chosen by
the user it came from the kernel already, and where it was, a pool of one worker stays repeatable.

Results that must not depend on the workers use ``ctx.rng``, which has nothing to do with this.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

_NUMPY = "numpy.random"


def reseed(seed: int, worker: int) -> None:
    """Seed `random`, `numpy.random` and, if it is loaded, torch.

    numpy.random is seeded when a task imports it, if nothing has so far: a worker without it
    starts 15 ms earlier.
    """
    random.seed(f"{seed} {worker}")
    if _NUMPY in sys.modules:
        _seed_numpy(seed, worker)
    else:
        sys.meta_path.insert(0, _AfterImport(_NUMPY, lambda: _seed_numpy(seed, worker)))
    torch = sys.modules.get("torch")
    if torch is not None:
        # Versions differ in what they do for accelerators in a forked process; it must not end it.
        with contextlib.suppress(Exception):
            torch.manual_seed(random.Random(f"{seed} {worker} torch").getrandbits(63))


def _seed_numpy(seed: int, worker: int) -> None:
    numpy_random = sys.modules.get(_NUMPY)
    if numpy_random is not None:
        numpy_random.seed(numpy_random.SeedSequence([seed, worker]).generate_state(4))


class _AfterImport:
    """A finder that has something done once a module is loaded, which it leaves to the others."""

    def __init__(self, module: str, then: Callable[[], None]) -> None:
        self._module = module
        self._then = then

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if find is None or finder is self else find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._loaded)
                return spec  # type: ignore[no-any-return]
        return None

    def _loaded(self) -> None:
        # Not when it is found: who asks where a module is may not import it.
        self._then()
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)


class _Loader:
    """Another loader, which is put back when it has loaded the module, and `then` is called."""

    def __init__(self, loader: Any, then: Callable[[], None]) -> None:
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then()
