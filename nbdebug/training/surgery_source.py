"""What the source of a model's forward tells: functions called for activations, types and attributes relied upon. Pure.

Read are ``forward`` and the methods that it calls on ``self``. Source that can't be found tells nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

INPLACE = ("relu", "leaky_relu", "rrelu", "elu", "selu", "celu", "silu", "tanh", "sigmoid", "hardtanh", "threshold")
FUNCTIONS = frozenset(
    (
        *("gelu", "prelu", "softplus", "relu6", "hardswish", "hardsigmoid", "mish", "logsigmoid", "softsign"),
        *("tanhshrink", "softshrink", "hardshrink", *INPLACE, *(f"{name}_" for name in INPLACE)),
    )
)
CALLED = ("forward", "__call__")
ASKING = ("isinstance", "issubclass", "type")


@dataclass(frozen=True)
class Reading:
    """``functions`` as written, such as ``F.relu``; ``names`` of types that are asked for; (child, attribute) read."""

    functions: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    attributes: frozenset[tuple[str, str]] = frozenset()


@dataclass
class Sources:
    """Readings by class, each made once."""

    known: dict[type, Reading] = field(default_factory=dict)

    def of(self, module: nn.Module) -> Reading:
        """What the forward of this module's class tells; nothing for torch's own."""
        kind = type(module)
        if kind not in self.known:
            own = not kind.__module__.startswith("torch.")
            self.known[kind] = _read(list(_methods(kind))) if own else Reading()
        return self.known[kind]

    def objection(self, parents: list[nn.Module], keys: set[str], types: set[str]) -> str | None:
        """Why a child under one of these keys can't become one of another type: its type or attributes are read."""
        for parent in parents:
            reading, who = self.of(parent), type(parent).__name__
            asked = sorted(reading.names & types)
            if asked:
                return f"the forward of {who} asks for the type {asked[0]}"
            read = sorted(attribute for key, attribute in reading.attributes if key in keys)
            if read:
                return f"the forward of {who} reads its attribute {read[0]!r}"
        return None


def _methods(kind: type) -> Iterator[ast.AST]:
    """The trees of ``forward`` and of what it calls on ``self``."""
    waiting, seen = ["forward"], {"forward"}
    while waiting:
        tree = _tree(getattr(kind, waiting.pop(0), None))
        if tree is not None:
            yield tree
            called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and _on_self(node.func)}  # type: ignore[attr-defined]
            waiting += sorted(name for name in called - seen if inspect.isfunction(getattr(kind, name, None)))
            seen |= called


def _tree(function: object) -> ast.AST | None:
    if not inspect.isfunction(function) or function.__module__.startswith("torch."):
        return None
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return None


def _on_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _read(trees: list[ast.AST]) -> Reading:
    nodes = [node for tree in trees for node in ast.walk(tree)]
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    functions = dict.fromkeys(ast.unparse(f) for f in called if _last(f) in FUNCTIONS and not _on_self(f))
    asking = [node for node in nodes if _asks(node)]
    names = {name for node in asking for part in ast.walk(node) for name in (_last(part), _text(part)) if name}
    attributes = {
        (key, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr not in CALLED and (key := _child(node.value)) is not None
    }
    return Reading(tuple(functions), frozenset(names), frozenset(attributes))


def _asks(node: ast.AST) -> bool:
    """Whether it asks for a type: ``isinstance(x, T)``, or a comparison of ``type(x)`` or of a class's name."""
    if isinstance(node, ast.Call):
        return _last(node.func) in ASKING[:2]
    if isinstance(node, ast.Compare):
        parts = [part for part in ast.walk(node) if isinstance(part, (ast.Call, ast.Attribute))]
        return any(_last(p.func) == "type" if isinstance(p, ast.Call) else p.attr == "__class__" for p in parts)
    return isinstance(node, ast.Match)


def _last(node: ast.AST) -> str | None:
    """The name itself of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _child(node: ast.AST) -> str | None:
    """The key of a child that is reached so: ``self.act``, ``self.net[1]``, ``self.blocks["act"]``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return None
