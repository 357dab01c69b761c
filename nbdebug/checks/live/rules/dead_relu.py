"""Units of a ReLU are silent on all samples for long, and the weights before them get exactly no gradient.

Half of a wide layer may die and the rest learn well: a warning is for nearly all of it, or a loss that stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import listed, named, places, quantiles, tracked
from nbdebug.checks.live.window import Track, Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, InitScheme, Reinitialize, SetKnobs, SwapActivations
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.records.frames import Floats
from nbdebug.records.signals import Signal

DEAD, MOST, STILL, FALLEN = "dead_units", "dead_units_most", "dead_without_gradient", "dead_loss_fallen"
LOOKS = 3
CONVERGED = 0.05  # of where the loss began


def judge(window: Window, say: Say) -> None:
    """Dead outputs of activations, or dead inputs of the next layer, beside the zeros in the gradient before."""
    gradients = tracked(window, Signal.GRADIENT_ZERO, LOOKS)
    zero = quantiles(gradients.low[-LOOKS:], 0.0, axis=0)
    worst = 0.0
    layers: tuple[str, ...] = ()
    shares: list[float] = []
    for signal in (Signal.UNITS_DEAD, Signal.INPUT_UNITS_DEAD):
        found = _dead(window, signal)
        if found is None:
            continue
        share = quantiles(found.low[-LOOKS:], 0.0, axis=0)
        before = _before(window, found.layers, gradients.layers, zero)
        share, before = np.nan_to_num(share), np.nan_to_num(before)
        worst = max(worst, float(np.minimum(share, before).max(initial=0.0)))
        chosen = (share > say.limit(DEAD)) & (before > say.limit(STILL) * share)
        layers += named(found.layers, chosen)
        shares += share[chosen].tolist()
    say.measure("share of a layer's units that are dead and get no gradient, the most", worst, DEAD)
    if layers:
        _tell(window, layers, shares, say)


def _dead(window: Window, signal: Signal) -> Track | None:
    try:
        found = tracked(window, signal, LOOKS)
    except Skip:
        return None
    return found if found.layers and len(found) >= LOOKS else None


def _before(window: Window, layers: tuple[str, ...], owners: tuple[str, ...], values: Floats) -> Floats:
    """For each layer, the value of the last owner before it in the order of the model; NaN where there is none."""
    if not owners:
        return np.full(len(layers), np.nan)
    at, wanted = places(owners, window.facts.layers), places(layers, window.facts.layers)
    sort: NDArray[np.int64] = np.argsort(at, kind="stable")
    before = np.searchsorted(at[sort], wanted, side="left") - 1
    there = np.maximum(before, 0)
    return np.where((before >= 0) & (at[sort][there] >= 0), values[sort][there], np.nan)


def _tell(window: Window, layers: tuple[str, ...], shares: list[float], say: Say) -> None:
    seen = course(window)
    most = say.measure("the same, for a loss that falls", max(shares), MOST)
    still = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False)
    matters = (still and not seen.has_learnt) or (most and not seen.fallen > 1 - CONVERGED)
    swapped = tuple(each for each in layers if window.facts.kinds.get(each) == "ReLU")
    rates = window.curve("lr").values
    remedies = [Remedy("Let negative values through: LeakyReLU.", command=SwapActivations("LeakyReLU", swapped))]
    if len(rates) and rates[-1] > 0:
        lower = float(f"{rates[-1] / 10:.2g}")
        remedies.append(Remedy(f"Set the learning rate to {lower:g}.", command=SetKnobs(Changes(lr=lower))))
    remedies.append(
        Remedy("Draw weights anew, as He et al. for ReLU.", command=Reinitialize(InitScheme.KAIMING_NORMAL, 0))
    )
    say.find(
        Cause.DEAD_RELU,
        Severity.WARNING if matters else Severity.INFO,
        f"{max(shares):.0%} of the units are dead" + (f", in {len(layers)} layers" if len(layers) > 1 else ""),
        f"{listed(layers)}: up to {max(shares):.0%} of the units were zero on every sample of the last looks, and the "
        "weights in front of them got a gradient of exactly zero: they will not come back by themselves.",
        confidence=0.8,
        layers=layers,
        pictures=(Picture(PictureKind.BARS, "dead units", np.array([shares]), ("share",), layers),),
        remedies=tuple(remedies),
    )


CHECK = LiveCheck(
    "dead_relu",
    "units of ReLU layers are alive",
    judge,
    (Cause.DEAD_RELU,),
    curves=("loss/train", "lr"),
    signals=(Signal.UNITS_DEAD, Signal.INPUT_UNITS_DEAD, Signal.GRADIENT_ZERO),
    parameters=(
        Parameter(DEAD, 0.4, "share of a layer's units that may be dead", 0.0, 1.0),
        Parameter(MOST, 0.7, "share of a layer's units that may be dead although the loss falls", 0.0, 1.0),
        Parameter(FALLEN, 0.1, "share of the loss that must be gone where units are dead", -1.0, 1.0),
        Parameter(STILL, 0.8, "share of the dead units whose weights must be without gradient", 0.0, 1.0),
    ),
    source="Lu et al. 2020, Dying ReLU and initialization; TheDeepChecker judges by unit",
)
