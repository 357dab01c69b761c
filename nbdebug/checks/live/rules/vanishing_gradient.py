"""The gradient, beside the weights, shrinks by powers of ten from the last layers to the first, which then stand still.

A scale that all layers share is no sign: it depends on the batch and the loss. Normalising optimizers hide it.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import listed, medians, places, tracked
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import EditNorms, InitScheme, Reinitialize, SwapActivations
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.records.signals import Signal

DECAY, UPDATE, FALLEN = "vanishing_over_depth", "vanishing_early_update", "vanishing_loss_fallen"
FEWEST_LAYERS, LOOKS = 4, 2
BOUNDED = ("Tanh", "Sigmoid", "Softsign", "Hardtanh", "Hardsigmoid")


def judge(window: Window, say: Say) -> None:
    """The first quarter of the layers beside the last quarter, over the latest looks; and its updates."""
    found = tracked(window, Signal.GRADIENT_RATIO, LOOKS)
    ratios = medians(found.high[-5:], axis=0)
    known = np.isfinite(ratios)
    if known.sum() < FEWEST_LAYERS:
        raise Skip("too few layers to speak of depth")
    seen = course(window, 20)
    order = np.flatnonzero(known)
    quarter = max(len(order) // 4, 1)
    first, last = (float(np.median(ratios[each])) for each in (order[:quarter], order[-quarter:]))
    decay = say.measure(
        "gradient of the first layers, of the last ones'", first / last if last else 1.0, DECAY, above=False
    )
    updates = tracked(window, Signal.UPDATE_RATIO, LOOKS)
    chosen = np.isin(places(updates.layers, found.layers), order[:quarter])
    moved = medians(updates.high[-5:][:, chosen].reshape(1, -1))[0] if chosen.any() else np.nan
    slow = say.measure("update of the first layers, of their weights", moved, UPDATE, above=False)
    if not (decay and slow) or seen.has_learnt:
        return
    still = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False)
    layers = tuple(found.layers[place] for place in order[:quarter].tolist())
    say.find(
        Cause.VANISHING_GRADIENT,
        Severity.WARNING if still else Severity.INFO,
        "The gradient vanishes on its way to the first layers",
        f"Beside its weights, the gradient of {listed(layers)} is {first / last:.1g} of that of the last layers, and "
        f"updates change {moved:.1g} of the weights there: these layers stay as they were drawn.",
        confidence=0.85,
        layers=layers,
        pictures=(
            Picture(
                PictureKind.BARS, "gradient beside weights", ratios[order][None], ("ratio",),
                tuple(found.layers[place] for place in order.tolist()),
            ),
        ),
        remedies=_remedies(window),
    )  # fmt: skip


def _remedies(window: Window) -> tuple[Remedy, ...]:
    bounded = tuple(layer for layer, kind in window.facts.kinds.items() if kind in BOUNDED)
    swap = (Remedy("Use ReLU in place of bounded activations.", command=SwapActivations("ReLU", bounded)),)
    return (
        *(swap if bounded else ()),
        Remedy("Put batch norms between the layers.", command=EditNorms(True)),
        Remedy("Draw weights anew, as He et al.", command=Reinitialize(InitScheme.KAIMING_NORMAL, 0)),
        Remedy("Add residual connections, or use fewer layers; in recurrent networks, an LSTM or GRU."),
    )


CHECK = LiveCheck(
    "vanishing_gradient",
    "the gradient reaches the first layers",
    judge,
    (Cause.VANISHING_GRADIENT,),
    signals=(Signal.GRADIENT_RATIO, Signal.UPDATE_RATIO),
    parameters=(
        Parameter(DECAY, 1e-4, "gradient beside weights in the first layers, of the last ones'"),
        Parameter(UPDATE, 1e-6, "update of the first layers, of their weights"),
        Parameter(FALLEN, 0.1, "share of the loss that must be gone where gradients vanish", -1.0, 1.0),
    ),
    source="Bengio, Simard, Frasconi 1994; Glorot, Bengio 2010",
    steps=20,
)
