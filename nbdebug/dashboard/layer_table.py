"""The table of layers: its columns, and what stands in them. Numbers travel as float64 and are written in the browser.

Pure; drawing thread. Arrays of the pseudo-trace named after a column: ``values``, and ``present``, which is 1 where
something was measured; the latter seldom changes, and so is seldom sent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nbdebug.dashboard.figures.panel import Array, Drawing, Floats, Json, cover
from nbdebug.dashboard.lens import LAYERS_TAB, Lens, is_data
from nbdebug.records.layers import GradientState, LayerValues
from nbdebug.records.signals import Signal
from nbdebug.records.view import View


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``form`` says how its numbers are written. Beyond ``low`` or ``high`` a number is off."""

    name: str
    group: str
    head: str
    about: str
    form: str = "number"
    low: float | None = None
    high: float | None = None


MEMORY: Final = (
    Signal.MEMORY_PARAMETERS,
    Signal.MEMORY_GRADIENTS,
    Signal.MEMORY_OPTIMIZER,
    Signal.MEMORY_ACTIVATIONS,
)
COLUMNS: Final = (
    Column(Signal.GRADIENT_MEAN, "gradient", "mean", "mean |g|, after backward, before clipping"),
    Column(Signal.GRADIENT_MAX, "gradient", "max", "largest |g|; 0 means that nothing is learnt", low=0.0),
    Column(Signal.GRADIENT_RATIO, "gradient", "|g| / |w|", "norm of the gradient over norm of the weights"),
    Column(Signal.UPDATE_RATIO, "update", ": weight", "norm of the update over that of the weights, healthy at 1e-3",
           low=1e-5, high=1e-2),
    Column(Signal.WEIGHT_NORM, "weights", "norm", "norm of the weights"),
    Column(Signal.WEIGHT_GROWTH, "weights", "growth", "norm over the norm at the first look", "times", 0.2, 5.0),
    Column(Signal.BIAS_MAX, "weights", "|bias|", "largest |bias|"),
    Column(Signal.ACTIVATION_MEAN, "activations", "mean", "mean of what the layer puts out (of data: of its values)"),
    Column(Signal.ACTIVATION_STD, "activations", "σ", "standard deviation of what the layer puts out", low=0.0),
    Column(Signal.UNITS_SILENT, "activations", "silent", "units at exactly 0 for the whole batch", "percent"),
    Column(Signal.UNITS_DEAD, "activations", "dead", "units silent in all of the last samples", "percent", high=0.5),
    Column(Signal.SATURATED, "activations", "satur.", "inputs beyond the bend of the activation function", "percent",
           high=0.5),
    Column("memory", "memory", "MB", "parameters, gradients, optimizer state and activations", "megabytes"),
)  # fmt: skip
STATES: Final = {GradientState.MISSING: "none", GradientState.FROZEN: "frozen"}
NO_CALL = "activations"


class LayerTablePanel:
    """All layers, and what they cannot be seen for."""

    name = "layers"
    title = "Layers"
    tab = LAYERS_TAB
    period_s = 0.5

    def __init__(self, lens: Lens | None = None) -> None:
        self._lens = lens or Lens()

    def inputs(self, view: View) -> tuple[object, ...]:
        """The latest numbers, and what can't be seen."""
        return (view.layers.latest, view.layers.unseen)

    def draw(self, view: View) -> Drawing:
        """One array a column."""
        latest = view.layers.latest
        if latest is None or not latest.layers:
            return cover("layers, from the first step on")
        data = is_data(latest)
        arrays: dict[tuple[str, str], Array] = {}
        for column in columns(latest):
            values, present = of(latest, column.name, data)
            arrays[column.name, "values"] = values
            arrays[column.name, "present"] = present.astype(np.float64)
        state, there = latest.of(Signal.GRADIENT_STATE)
        arrays["state", "values"] = np.where(there, state, -1.0)
        return Drawing(
            readout="",
            structure=(latest.layers, latest.signals, data.tobytes(), view.layers.unseen),
            arrays=arrays,
        )

    def skeleton(self, view: View) -> Json:
        """Names in the order of the model, columns, and by layer why something can't be seen."""
        latest = view.layers.latest
        assert latest is not None
        return {
            "names": list(latest.layers),
            "data": np.flatnonzero(is_data(latest)).tolist(),
            "columns": [asdict(column) for column in columns(latest)],
            "states": {str(int(state)): word for state, word in STATES.items()},
            "unseen": unseen(view),
        }


def columns(latest: LayerValues) -> list[Column]:
    """Those of which anything was measured."""
    there = set(latest.signals)
    return [each for each in COLUMNS if each.name in there or (each.name == "memory" and there & set(MEMORY))]


def of(latest: LayerValues, column: str, data: NDArray[np.bool_]) -> tuple[Floats, Array]:
    """A column's values and presence by layer; what goes in and comes out has its mean and deviation there."""
    if column == "memory":
        parts = [latest.of(signal) for signal in MEMORY]
        present = np.logical_or.reduce([there for _, there in parts])
        return np.add.reduce([np.where(there, values, 0.0) for values, there in parts]), present
    values, present = latest.of(Signal(column))
    instead = {Signal.ACTIVATION_MEAN: Signal.DATA_MEAN, Signal.ACTIVATION_STD: Signal.DATA_STD}.get(Signal(column))
    if instead and data.any():
        other, there = latest.of(instead)
        values, present = np.where(data, other, values), np.where(data, there, present)
    return values, present


def unseen(view: View) -> list[Json]:
    """What can't be seen: layer, what of it, why; the model as a whole has an empty name."""
    return [[each.layer, each.what, each.why] for each in view.layers.unseen]
