"""The names that a condition may use, and what to write instead of those that there are not. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nbdebug.breakpoints.errors import ConditionError, listed, nearest, printable, refusal
from nbdebug.breakpoints.moment import ALL_LAYERS, FUNCTIONS, Reading
from nbdebug.breakpoints.tree import Call, Name, OfLayer

WORDS = frozenset({"and", "or", "not", "True", "False", "inf", "nan"})


@dataclass(frozen=True, slots=True)
class Known:
    """What the condition ``text`` may read: ``names`` alone, ``layer_names`` of one of the ``layers``."""

    text: str
    names: Collection[str]
    layers: Collection[str]
    layer_names: Collection[str]

    def reading(self, node: Name | OfLayer) -> Reading:
        """What ``node`` reads; :class:`ConditionError` where there is no such thing."""
        if isinstance(node, Name):
            if node.name not in self.names:
                raise self._no_name(node)
            return Reading(node.name)
        if node.name not in self.layer_names:
            raise self._no_layer_name(node)
        if node.layer not in self.layers or node.layer in ("", ALL_LAYERS):
            raise self._no_layer(node)
        return Reading(node.name, node.layer)

    def no_function(self, node: Call) -> ConditionError:
        """The error for a call of what is no function."""
        if node.function in self.names or node.function in self.layer_names:
            problem, advice = f"{node.function} is a signal, not a function", f"Write {node.function}."
            return refusal(self.text, node.column, problem, advice)
        advice = _meant(nearest(node.function, FUNCTIONS)) or f"There are: {', '.join(sorted(FUNCTIONS))}."
        return refusal(self.text, node.column, f"there is no function {node.function}", advice)

    def _no_name(self, node: Name) -> ConditionError:
        problem, advice = f"there is no signal {node.name}", self._alike(node.name)
        if node.name in self.layer_names:
            problem, advice = f"{node.name} is a signal of each layer", f"Write {self._of_layers(node.name)}."
        elif node.name in FUNCTIONS:
            problem, advice = f"{node.name} is a function", f"Write what it is of: {node.name}(loss)."
        return refusal(self.text, node.column, problem, advice)

    def _no_layer_name(self, node: OfLayer) -> ConditionError:
        problem, advice = f"there is no signal {node.name} of a layer", self._alike(node.name)
        if node.name in self.names:
            problem, advice = f"{node.name} is a signal of the whole model", f"Write {node.name} alone."
        return refusal(self.text, node.column, problem, advice)

    def _no_layer(self, node: OfLayer) -> ConditionError:
        advice = _meant(nearest(node.layer, self.layers)) or f"There are: {listed(self.layers)}."
        if node.layer in ("", ALL_LAYERS):
            advice = f"Over all layers write max({node.name})."
        return refusal(self.text, node.layer_column, f'there is no layer "{printable(node.layer)}"', advice)

    def _alike(self, name: str) -> str:
        close = nearest(name, {*self.names, *self.layer_names, *FUNCTIONS, *WORDS})
        if not close:
            return f"There are: {listed(self.names)}; of each layer: {listed(self.layer_names)}."
        is_of_layers = close[0] in self.layer_names and close[0] not in self.names
        return _meant(close) + (f" Write {self._of_layers(close[0])}." if is_of_layers else "")

    def _of_layers(self, name: str) -> str:
        layer = next(iter(self.layers), "fc1")
        return f'{name}["{printable(layer)}"] for one layer, max({name}) over all'


def _meant(names: list[str]) -> str:
    return f"Did you mean {' or '.join(printable(name) for name in names)}?" if names else ""
