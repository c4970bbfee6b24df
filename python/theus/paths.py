"""Paths of the state's data: ``a.b`` is a→b."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["is_name", "join_path", "outermost", "parse_path", "require_c_text"]


def parse_path(text: str) -> tuple[str, ...]:
    r"""The components of a dotted path: ``a.b`` is a→b, ``a\.b`` one name with a dot in it.

    Raises:
        ValueError: it is empty, has an empty component, or ends in the middle of an escape.
    """
    components: list[str] = []
    name: list[str] = []
    letters = iter(text)
    for letter in letters:
        if letter == "\\":
            escaped = next(letters, "")
            if escaped not in (".", "\\"):
                raise ValueError(f"path {text!r}: a backslash stands only before '.' or '\\'")
            name.append(escaped)
        elif letter == ".":
            components.append("".join(name))
            name = []
        else:
            name.append(letter)
    components.append("".join(name))
    if "" in components:
        raise ValueError(f"path {text!r} has an empty component")
    require_c_text(text, "path")
    return tuple(components)


def join_path(components: Sequence[str]) -> str:
    """The inverse of `parse_path`."""
    return ".".join(c.replace("\\", "\\\\").replace(".", "\\.") for c in components)


def outermost(paths: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those of the paths that do not lie below another of them."""
    every = set(paths)
    return [p for p in every if not any(p[:n] in every for n in range(len(p)))]


def is_name(key: str) -> bool:
    """Whether something can be under this key: it is not empty, and a C string can hold it."""
    try:
        key.encode()
    except (AttributeError, UnicodeEncodeError):
        return False
    return bool(key) and "\0" not in key


def require_c_text(text: str, what: str) -> None:
    """Refuse what cannot be a C string.

    Args:
        text: a path or a part of one.
        what: what to call it in the message.

    Raises:
        ValueError: it holds a NUL, or is not valid Unicode.
    """
    if "\0" in text:
        raise ValueError(f"{what} {text!r} has a NUL character, which C strings cannot hold")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {text!r} is not valid Unicode text") from None
