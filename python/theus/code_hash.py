"""Whether two processes have the same code of a function: a digest to compare."""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable
from typing import Any

try:  # not by hashlib, which would load OpenSSL as well, in every host and zygote: 4 ms
    from _blake2 import blake2b
except ImportError:  # a Python that was built without
    from hashlib import blake2b

__all__ = ["PLAIN", "code_hash"]

# Of values that say all of themselves by type and repr.
PLAIN = (int, float, complex, str, bytes, bool, type(None))


def code_hash(fn: Any) -> str:
    """A digest of what a function does: its code, constants and defaults, not its globals.

    Args:
        fn: a Python function; anything else has no code to compare and gives ``""``.

    Returns:
        Hexadecimal. Equal in any process of the same Python version for the same source.
    """
    if not isinstance(fn, types.FunctionType):
        return ""
    digest = blake2b(digest_size=32)
    _hash_code(digest.update, fn.__code__)
    for value in (fn.__defaults__, fn.__kwdefaults__):
        digest.update(_token(value))
    return digest.hexdigest()


def _hash_code(update: Callable[[bytes], None], code: types.CodeType) -> None:
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    update(repr((code.co_name, shape)).encode())
    update(code.co_code)
    update(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode())
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            _hash_code(update, const)
        else:
            update(_token(const))


def _token(value: Any) -> bytes:
    """Bytes that are equal for equal values, in every process."""
    if isinstance(value, frozenset):  # its order depends on the process
        return b"frozenset" + b",".join(sorted(_token(item) for item in value))
    if isinstance(value, tuple):
        return b"(" + b",".join(_token(item) for item in value) + b")"
    if isinstance(value, dict):
        return b"{" + b",".join(_token(pair) for pair in value.items()) + b"}"
    if value is Ellipsis or type(value) in PLAIN:
        return repr((type(value).__name__, value)).encode("utf-8", "backslashreplace")
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:
        from .stateless import type_name

        return type_name(value).encode()
