"""The tree of a condition, as it was written: nothing in it is known to exist yet."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a condition, which begins at ``column``. Two are equal where they say the same."""

    column: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A constant as it was written."""

    literal: str


@dataclass(frozen=True, slots=True)
class Truth(Node):
    """``True`` or ``False``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A signal of the whole model, or all layers of one."""

    name: str


@dataclass(frozen=True, slots=True)
class OfLayer(Node):
    """A signal of one layer."""

    name: str
    layer: str
    layer_column: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function of its arguments."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negative(Node):
    """``-operand``."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """Two numbers joined by a sign."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """Operands with a sign between each two of them."""

    operands: tuple[Node, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Joined(Node):
    """Conditions joined by ``and`` or by ``or``."""

    word: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """``not operand``."""

    operand: Node
