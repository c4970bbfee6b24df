"""The state in plain Python, to compare the real one with: slowly, in a dict of leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from theus import DELETE, REPLACE

Path = tuple[str, ...]
Touched = tuple[bool, Path]  # whether it is a heavy key, and the path or (key,)


class Reference:
    """One version of the state, and what every earlier commit has touched.

    Attributes:
        version: its number.
        leaves: values by path; a dict in the tree is what leads to leaves, or the value ``{}``.
        heavy: contents of arrays, by key.
        touched: what each commit touched, with its version.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.leaves: dict[Path, Any] = {}
        self.heavy: dict[str, list[float]] = {}
        self.touched: list[tuple[int, Touched]] = []

    def tree(self) -> dict[str, Any]:
        """The data as nested dicts."""
        root: dict[str, Any] = {}
        for path, value in self.leaves.items():
            node = root
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = copy.deepcopy(value)
        return root

    def find(self, path: Path) -> Any:
        """What is at a path; None: nothing."""
        node: Any = self.tree()
        for name in path:
            if not isinstance(node, dict) or name not in node:
                return None
            node = node[name]
        return node

    def operations(self, data: dict[str, Any]) -> list[tuple[Path, Any]]:
        """The leaves that `data` sets, or DELETE, in their order."""
        return [
            operation
            for text, value in data.items()
            for operation in self._flat(split(text), value, merges=True)
        ]

    def _flat(self, path: Path, value: Any, merges: bool) -> Iterator[tuple[Path, Any]]:
        if isinstance(value, REPLACE):
            yield path, DELETE
            yield from self._flat(path, value.value, merges=False)
        elif not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            yield path, value
        elif value:
            for name, item in value.items():
                yield from self._flat((*path, name), item, merges)
        elif not merges or not isinstance(self.find(path), dict):
            yield path, {}

    def conflicts(self, expected: int, touches: list[Touched]) -> list[Touched]:
        """Those of what is to be touched that have changed since `expected`."""
        return [
            one
            for one in touches
            if any(
                version > expected and one[0] == other[0] and related(one[1], other[1])
                for version, other in self.touched
            )
        ]

    def commit(self, operations: list[tuple[Path, Any]], heavy: dict[str, Any]) -> None:
        """Make the next version."""
        self.version += 1
        for path, value in operations:
            for leaf in list(self.leaves):
                below = leaf[: len(path)] == path
                above = value is not DELETE and path[: len(leaf)] == leaf
                if below or above:
                    del self.leaves[leaf]
            if value is not DELETE:
                self.leaves[path] = copy.deepcopy(value)
            self.touched.append((self.version, (False, path)))
        for key, content in heavy.items():
            self.heavy.pop(key, None)
            if content is not DELETE:
                self.heavy[key] = content
            self.touched.append((self.version, (True, (key,))))


def split(text: str) -> Path:
    r"""``a.b\.c`` is a → b.c."""
    return tuple(name.replace("\1", ".") for name in text.replace("\\.", "\1").split("."))


def join(path: Path) -> str:
    return ".".join(name.replace(".", "\\.") for name in path)


def related(one: Path, other: Path) -> bool:
    """Whether one is the other, above it or below it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
