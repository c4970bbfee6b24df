"""Which expressions are numpy arrays, and how large, as far as a file alone tells."""

from __future__ import annotations

import ast
import math

from .module import Module

__all__ = ["LARGE", "array_bytes", "is_array"]

LARGE = 1 << 20  # from here on the library warns of arguments, too

_BY_SHAPE = {"zeros", "ones", "empty", "full"}
_LIKE = {"zeros_like", "ones_like", "empty_like", "full_like", "copy", "ascontiguousarray"}
_FROM_DATA = {"array", "asarray"}
_OTHER = {
    *("linspace", "logspace", "geomspace", "eye", "identity", "tri", "fromiter", "frombuffer"),
    *("load", "loadtxt", "genfromtxt", "fromfile", "memmap", "stack", "concatenate", "vstack"),
    *("hstack", "tile", "outer", "meshgrid", "arange"),
}
_DRAWN_BY_SHAPE = {"rand", "randn"}
_DRAWN_BY_SIZE = {"random": 0, "random_sample": 0, "standard_normal": 0, "bytes": -1}
_DRAWN_BY_THIRD = {"normal": 2, "uniform": 2, "integers": 2, "randint": 2, "choice": 1}
_SAME = {"reshape", "astype", "copy", "ravel", "flatten", "transpose", "clip", "round"}
_GENERATORS = {"numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.Generator"}
_ITEM = {"float32": 4, "int32": 4, "uint32": 4, "float16": 2, "int16": 2, "uint16": 2}
_ITEM |= {"int8": 1, "uint8": 1, "bool": 1, "bool_": 1, "complex128": 16}


def is_array(module: Module, expression: ast.AST) -> bool:
    """Whether an expression surely is a numpy array that is made in this file."""
    origins = module.origins(expression)
    return bool(origins) and all(_makes_array(module, origin) for origin in origins)


def array_bytes(module: Module, expression: ast.AST) -> int | None:
    """How large an array is; None when that is written nowhere."""
    sizes = [_size(module, origin) for origin in module.origins(expression)]
    known = [size for size in sizes if size is not None]
    return max(known) if known and len(known) == len(sizes) else None


def _numpy(module: Module, node: ast.AST) -> str:
    """``zeros`` for ``numpy.zeros(…)``, ``random.rand`` for a draw from any generator."""
    if not isinstance(node, ast.Call):
        return ""
    name = module.called(node)
    if name.startswith("numpy."):
        return name.removeprefix("numpy.")
    if isinstance(node.func, ast.Attribute):
        base = module.origins(node.func.value)
        if len(base) == 1 and module.called(base[0]) in _GENERATORS:
            return f"random.{node.func.attr}"
    return ""


def _makes_array(module: Module, node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return is_array(module, node.left) or is_array(module, node.right)
    name = _numpy(module, node)
    if not isinstance(node, ast.Call):
        return False
    if name.startswith("random."):
        return _draw(module, node, name.removeprefix("random.")) is not None
    if name in _FROM_DATA:
        return bool(node.args) and not isinstance(module.constant(node.args[0]), (int, float))
    if name:
        return name in _BY_SHAPE or name in _LIKE or name in _OTHER
    func = node.func
    return isinstance(func, ast.Attribute) and func.attr in _SAME and is_array(module, func.value)


def _draw(module: Module, node: ast.Call, name: str) -> list[ast.expr] | None:
    """The shape of what is drawn, as expressions; None: a single number."""
    if name in _DRAWN_BY_SHAPE:
        return node.args or None
    place = {**_DRAWN_BY_SIZE, **_DRAWN_BY_THIRD}.get(name)
    if place is None or place < 0:
        return None
    size = next((k.value for k in node.keywords if k.arg == "size"), None)
    if size is None and len(node.args) > place:
        size = node.args[place]
    return None if size is None else [size]


def _size(module: Module, node: ast.AST) -> int | None:
    if isinstance(node, ast.BinOp):
        sides = [array_bytes(module, s) for s in (node.left, node.right) if is_array(module, s)]
        known = [side for side in sides if side is not None]
        return max(known) if known and len(known) == len(sides) else None
    if not isinstance(node, ast.Call):
        return None
    name = _numpy(module, node)
    if name.startswith("random."):
        shape = _draw(module, node, name.removeprefix("random."))
        return None if shape is None else _product(module, shape, 8)
    item = _item_size(module, node)
    if name in _BY_SHAPE or name in ("eye", "identity"):
        shape = node.args[:1] or [k.value for k in node.keywords if k.arg == "shape"]
        count = _product(module, shape, item) if shape else None
        return count * count // item if count and name in ("eye", "identity") else count
    if name == "arange" and 1 <= len(node.args) <= 2:
        bounds = [module.constant(argument) for argument in node.args]
        numbers = [bound for bound in bounds if isinstance(bound, (int, float))]
        if len(numbers) == len(bounds):
            first, last = ([0, *numbers])[-2:]
            return max(0, math.ceil(last - first)) * item
        return _product(module, node.args, item) if len(node.args) == 1 else None
    if name in ("linspace", "logspace", "geomspace"):
        return 50 * item if len(node.args) == 2 else _product(module, node.args[2:3], item)
    if name in _FROM_DATA and node.args:
        return _count(module.origins(node.args[0])[0], item)
    if name in _LIKE and node.args:
        return array_bytes(module, node.args[0])
    func = node.func
    if isinstance(func, ast.Attribute) and func.attr in _SAME:
        return array_bytes(module, func.value)
    return None


def _item_size(module: Module, node: ast.Call) -> int:
    dtype = next((k.value for k in node.keywords if k.arg == "dtype"), None)
    if dtype is None:
        return 8
    name = module.qualified(dtype).rpartition(".")[2] or str(module.constant(dtype))
    return _ITEM.get(name, 8)


def _product(module: Module, shape: list[ast.expr], item: int) -> int | None:
    total = item
    for part in shape:
        value = _number(module, part)
        if value is None:
            return None
        total *= value
    return total


def _number(module: Module, part: ast.expr) -> int | None:
    """The product of the numbers in a shape."""
    origins = module.origins(part)
    origin = origins[0] if len(origins) == 1 else None
    if isinstance(origin, (ast.Tuple, ast.List)):
        return _product(module, origin.elts, 1)
    if isinstance(origin, ast.BinOp):
        left, right = _number(module, origin.left), _number(module, origin.right)
        if left is None or right is None:
            return None
        if isinstance(origin.op, ast.Mult):
            return left * right
        if isinstance(origin.op, ast.LShift) and right < 64:
            return left << right
        if isinstance(origin.op, ast.Pow) and right < 20:
            return int(left**right)
        return None
    value = module.constant(part)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) else None


def _count(node: ast.AST, item: int) -> int | None:
    """The bytes of an array made of a display of numbers."""
    if not isinstance(node, (ast.List, ast.Tuple)):
        return None
    total = 0
    for element in node.elts:
        if isinstance(element, (ast.List, ast.Tuple)):
            inner = _count(element, item)
            if inner is None:
                return None
            total += inner
        elif isinstance(element, ast.Starred):
            return None
        else:
            total += item
    return total
