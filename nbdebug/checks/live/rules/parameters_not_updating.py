"""Layers get gradients, but their weights stay the same to the last bit: no update reaches them."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.layers import listed, named, places, tracked
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Freeze
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.signals import Signal

SAMPLES = "still_samples"


def judge(window: Window, say: Say) -> None:
    """At how many looks a layer had a gradient, and its weights did not change."""
    changes = tracked(window, Signal.UPDATE_NORM, int(say.limit(SAMPLES)))
    gradients = tracked(window, Signal.GRADIENT_NORM, int(say.limit(SAMPLES)))
    rates = window.curve("lr")
    if not len(rates) or not np.any(rates.values > 0):
        raise Skip("the learning rate is zero, or not known")
    common, ours, theirs = np.intersect1d(changes.steps, gradients.steps, return_indices=True)
    columns = places(changes.layers, gradients.layers)
    both = np.flatnonzero(columns >= 0)
    if not len(common) or not len(both):
        raise Skip("gradients and changes were not measured at the same steps")
    at_rate = np.interp(common, rates.steps, rates.values) > 0
    moved, pushed = changes.high[ours][:, both], gradients.low[theirs][:, columns[both]]
    still = (moved == 0) & (pushed > 0) & at_rate[:, None]
    measured = np.isfinite(moved) & at_rate[:, None]
    often = still.sum(0)
    stuck = (often > say.limit(SAMPLES) - 0.5) & (often == measured.sum(0))
    say.measure("looks at which a layer with a gradient did not change, the most", float(often.max()), SAMPLES)
    chosen = np.zeros(len(changes.layers), dtype=np.bool_)
    chosen[both[stuck]] = True
    layers = tuple(layer for layer in named(changes.layers, chosen) if layer not in window.facts.frozen)
    if layers:
        _tell(layers, int(often[stuck].min()), say)


def _tell(layers: tuple[str, ...], looks: int, say: Say) -> None:
    say.find(
        Cause.PARAMETERS_NOT_UPDATING,
        Severity.WARNING,
        f"{len(layers)} layer{'s get gradients but do' if len(layers) > 1 else ' gets gradients but does'} not change",
        f"{listed(layers)}: at all {looks} looks there was a gradient and a learning rate, and not one bit of the "
        "weights was another after the update. They are not in the optimizer, its step is left out, their group's rate "
        "is zero, or the change is too small for their number format.",
        confidence=0.85,
        layers=layers,
        remedies=(
            Remedy("See that the optimizer was made from this model's parameters, after the last layer was exchanged."),
            Remedy("Let them learn.", command=Freeze(False, layers)),
        ),
    )


CHECK = LiveCheck(
    "parameters_not_updating",
    "layers with a gradient change",
    judge,
    (Cause.PARAMETERS_NOT_UPDATING,),
    curves=("lr",),
    signals=(Signal.UPDATE_NORM, Signal.GRADIENT_NORM),
    parameters=(Parameter(SAMPLES, 3.0, "looks at which a layer with a gradient may not have changed", 2.0),),
    source="torchtest: parameters that should train change",
)
