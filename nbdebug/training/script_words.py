"""Small pieces of Python text: names, numbers, lists, comments. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable

WIDTH = 100


def parameter_text(layer: str, name: str) -> str:
    """A parameter, as an expression."""
    plain = all(part.isidentifier() for part in name.split("."))
    return f"modules[{quoted(layer)}].{name}" if plain else f"modules[{quoted(layer)}].get_parameter({quoted(name)})"


def quoted(text: str) -> str:
    """Text as a Python literal."""
    return json.dumps(text, ensure_ascii=False)


def number(value: float) -> str:
    """A number as a Python literal, with all its digits."""
    return repr(float(value))


def wrapped(head: str, items: Iterable[str], tail: str) -> list[str]:
    """A list on one line where it fits, else an item a line."""
    parts = list(items)
    line = head + ", ".join(parts) + tail
    return [line] if len(line) <= WIDTH - 8 else [head, *(f"    {part}," for part in parts), tail]


def one_line(text: str) -> str:
    """Text that can stand in a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
