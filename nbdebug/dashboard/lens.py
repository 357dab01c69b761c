"""What people look at: the layer, the kind of histogram, the quantity over time, the place in the module tree.

It belongs to the drawing thread, like the legend, and is the same for all views of a debugger; only which tab is open
is each view's own. ``version`` grows with each choice, so that what was asked for is drawn without delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nbdebug.dashboard import grouping
from nbdebug.records.layers import LayerValues
from nbdebug.records.signals import Signal
from nbdebug.records.view import Focus, View

KINDS: Final = (Signal.ACTIVATIONS, Signal.GRADIENTS, Signal.WEIGHTS, Signal.BIASES, Signal.CHANGES, Signal.DATA)
KIND_WORDS: Final = {
    Signal.ACTIVATIONS: "activations",
    Signal.GRADIENTS: "gradients",
    Signal.WEIGHTS: "weights",
    Signal.BIASES: "biases",
    Signal.CHANGES: "changes",
    Signal.DATA: "data",
}
QUANTITIES: Final = {
    Signal.UPDATE_RATIO: "update : weight",
    Signal.WEIGHT_NORM: "weight norm",
    Signal.GRADIENT_NORM: "gradient norm",
    Signal.UNITS_DEAD: "dead units",
    Signal.SATURATED: "saturated",
}
CURVES: Final[tuple[Signal, ...]] = (
    Signal.UPDATE_RATIO,
    Signal.GRADIENT_NORM,
    Signal.WEIGHT_NORM,
    Signal.ACTIVATION_STD,
    Signal.UNITS_DEAD,
    Signal.SATURATED,
)
DATA: Final = (Signal.DATA_MEAN, Signal.DATA_STD, Signal.DATA_MIN, Signal.DATA_MAX, Signal.DATA_NON_FINITE)
LAYERS_TAB: Final = "layers"
LONGEST_PATH = 64

Flags = NDArray[np.bool_]


class Lens:
    """Choices, and what follows from them. Public methods are called on the drawing thread."""

    def __init__(self) -> None:
        self.version = 0
        self.layer = ""
        self.histogram = Signal.ACTIVATIONS
        self.quantity = Signal.UPDATE_RATIO
        self._path: tuple[str, ...] = ()
        self._tabs: dict[str, str] = {}
        self._told = ""
        self._seen: LayerValues | None = None
        self._names: tuple[tuple[str, ...], bytes, tuple[str, ...]] = ((), b"", ())
        self._rows: tuple[tuple[object, ...], grouping.Rows] = ((), grouping.Rows())

    def choose(self, message: Mapping[str, Any]) -> None:
        """Take over what a browser's message names of ``layer``, ``histogram``, ``quantity``, ``path``.

        Raises:
            ValueError: what is named makes no sense; nothing of the message was taken over.
        """
        layer, path = message.get("layer", self.layer), message.get("path", self._path)
        histogram, quantity = (
            Signal(str(message.get("histogram", self.histogram))),
            Signal(str(message.get("quantity", self.quantity))),
        )
        if histogram not in KINDS or quantity not in QUANTITIES:
            raise ValueError(f"{histogram} is no kind of histogram, or {quantity} no quantity of layers")
        if not isinstance(layer, str) or not isinstance(path, list | tuple) or len(path) > LONGEST_PATH:
            raise ValueError(f"layer {layer!r:.80} is no text, or path {path!r:.80} no list of texts")
        self.layer, self.histogram, self.quantity = layer, histogram, quantity
        self._path = tuple(map(str, path))
        self.version += 1

    def open_tab(self, view: str, tab: str) -> None:
        """A view shows this tab; empty once it is gone."""
        before = self.shows(LAYERS_TAB)
        if tab:
            self._tabs[view] = tab
        else:
            self._tabs.pop(view, None)
        self.version += self.shows(LAYERS_TAB) != before

    def shows(self, tab: str) -> bool:
        """Whether any view has this tab open; every tab, before any view said so."""
        return not self._tabs or tab in self._tabs.values()

    def focus(self) -> Focus:
        """What to pull: the story is for the tab of layers only."""
        layer = (self.layer or self._told) if self.shows(LAYERS_TAB) else ""
        return Focus(layer, self.histogram, CURVES if layer else (), (self.quantity,))

    def tell_of(self, view: View) -> str:
        """The layer whose story is told: the chosen one, else one that stays until the model changes."""
        names = self.names(view)
        if self._told not in names:
            self._told = _first_to_tell_of(view, names)
        return self.layer or self._told

    def names(self, view: View) -> tuple[str, ...]:
        """All layers, in order, without what goes into the model and comes out."""
        latest = view.layers.latest
        if latest is None:
            return ()
        if latest is self._seen:
            return self._names[2]
        self._seen, data = latest, is_data(latest)
        key = data.tobytes()
        if self._names[0] is not latest.layers or self._names[1] != key:
            names = tuple(name for name, flag in zip(latest.layers, data, strict=True) if not flag)
            kept = self._names[2]
            self._names = (latest.layers, key, kept if kept == names else names)
        return self._names[2]

    def rows(self, view: View) -> grouping.Rows:
        """The rows at the present place in the tree; the same object while nothing changed."""
        names = self.names(view)
        key = (names, self._path)
        if self._rows[0] != key:
            made = grouping.place(names, self._path)
            self._rows = (key, made)
        return self._rows[1]

    def state(self, view: View) -> dict[str, Any]:
        """What is chosen, and what can be, for the browser."""
        kinds = [kind for kind in KINDS if any(found.signal is kind for found, _ in view.layers.histograms)]
        measured = view.layers.latest.signals if view.layers.latest else ()
        quantities = [quantity for quantity in QUANTITIES if quantity in measured]
        return {
            "layer": self.layer,
            "told": self.tell_of(view),
            "histogram": str(self.kind(view)),
            "histograms": [[str(kind), KIND_WORDS[kind]] for kind in kinds],
            "quantity": str(self.quantity),
            "quantities": [[str(quantity), QUANTITIES[quantity]] for quantity in quantities],
        }

    def kind(self, view: View) -> Signal:
        """The kind of histogram to show: the chosen one, else the first that there is."""
        there = {found.signal for found, _ in view.layers.histograms}
        first = next((kind for kind in KINDS if kind in there), self.histogram)
        return self.histogram if self.histogram in there else first


def is_data(latest: LayerValues) -> Flags:
    """Which names are no layers but what goes into the model or comes out; ``(layers,)``."""
    of_data = np.array([signal in DATA for signal in latest.signals], dtype=np.bool_)
    return np.asarray(latest.present[of_data].any(axis=0) & ~latest.present[~of_data].any(axis=0))


def scope(rows: grouping.Rows, names: tuple[str, ...]) -> dict[str, Any]:
    """The rows and the way to them, for the browser: ``of`` gives each layer's row, -1 for those elsewhere."""
    return {
        "crumbs": list(rows.crumbs),
        "path": list(rows.path),
        "grouped": rows.is_grouped,
        "rows": [[row.key, row.label, len(row.layers) if row.is_group else 0] for row in rows.rows],
        "of": [rows.row_of.get(name, -1) for name in names],
    }


def _first_to_tell_of(view: View, names: tuple[str, ...]) -> str:
    """The first layer with weights, as these have most to tell."""
    latest = view.layers.latest
    if latest is None or not names:
        return ""
    _, present = latest.of(Signal.UPDATE_RATIO)
    weighted = {name for name, there in zip(latest.layers, present, strict=True) if there}
    return next((name for name in names if name in weighted), names[0])
