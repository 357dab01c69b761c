"""Layers leave the scale that they had: activations, weights that grow or shrink, large updates. Symptoms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import listed, medians, named, tracked
from nbdebug.checks.live.remedies import slower
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, EditNorms, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.signals import Signal

DRIFT, GROWTH, SHRUNK, LARGE, TINY = (
    "activation_drift", "weight_growth", "weight_shrinkage", "update_large", "update_tiny",
)  # fmt: skip
LOOKS = 3
SETTLED = 100  # steps
UNIT = (1e-2, 30.0)  # deviations of activations that nobody need look at, however they came about


def judge(window: Window, say: Say) -> None:
    """Each layer beside its own first look, where the network has learnt nothing yet."""
    if course(window, 20).has_learnt:
        return
    made = 0
    for part in (_activations, _weights, _updates):
        made += _tried(part, window, say)
    if not made:
        raise Skip("layers were looked at too seldom")


def _tried(part: Callable[[Window, Say], None], window: Window, say: Say) -> bool:
    try:
        part(window, say)
    except Skip:
        return False
    return True


def _activations(window: Window, say: Say) -> None:
    found = tracked(window, Signal.ACTIVATION_STD, LOOKS)
    first, now = found.high[0], medians(found.high[-LOOKS:], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        drift = np.abs(np.log(now / first))
    drift = np.where(np.isfinite(drift) & ((now < UNIT[0]) | (now > UNIT[1])), drift, 0.0)
    worst = float(np.exp(drift.max(initial=0.0)))
    if say.measure("change of an activation's scale since the first look, times", worst, DRIFT):
        layers = named(found.layers, drift > np.log(say.limit(DRIFT)))
        _tell(
            Cause.ACTIVATION_SCALE, "Activations leave their scale", layers, say,
            f"{listed(layers)}: the deviation of what comes out changed by up to {worst:.3g} times.",
            (Remedy("Put batch norms behind them.", command=EditNorms(True, layers)), *slower(window)),
        )  # fmt: skip


def _weights(window: Window, say: Say) -> None:
    found = tracked(window, Signal.WEIGHT_GROWTH, LOOKS)
    growth = medians(found.high)
    now, before = float(growth[-1]), float(growth[len(growth) // 2])
    if say.measure("weights of the layers, of their first size", now, GROWTH) and now > 1.1 * before:
        _tell(
            Cause.WEIGHT_GROWTH, "Weights grow and grow", named(found.layers, found.high[-1] > say.limit(GROWTH)), say,
            f"They are {now:.3g} times as large as at the first look, and still growing.", slower(window),
        )  # fmt: skip
    if say.measure("the same, for shrinking", now, SHRUNK, above=False) and now < 0.9 * before:
        lower = SetKnobs(Changes(options={"weight_decay": 0.0}))
        _tell(
            Cause.WEIGHT_COLLAPSE, "Weights shrink towards zero",
            named(found.layers, found.high[-1] < say.limit(SHRUNK)), say,
            f"They are down to {now:.2g} of their size at the first look.",
            (Remedy("Set weight decay to 0.", command=lower),) if window.facts.options.get("weight_decay") else (),
        )  # fmt: skip


def _updates(window: Window, say: Say) -> None:
    if window.step - window.since_change < SETTLED:
        raise Skip("first updates may well be large, or small in a warm-up")
    found = tracked(window, Signal.UPDATE_RATIO, LOOKS)
    ratios = medians(found.high[-LOOKS:])
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) < LOOKS:
        raise Skip("too few updates were measured")
    large = say.measure("least of the latest updates, of the weights", float(ratios.min()), LARGE)
    tiny = say.measure("largest of the latest updates, of the weights", float(ratios.max()), TINY, above=False)
    if large or (tiny and ratios.max() > 0):
        _tell(
            Cause.UPDATE_RATIO, f"Updates are {'large' if large else 'tiny'} beside the weights", (), say,
            f"In the latest looks they changed about {np.median(ratios):.2g} of the weights; a thousandth is usual.",
            slower(window) if large else (),
        )  # fmt: skip


def _tell(cause: Cause, title: str, layers: tuple[str, ...], say: Say, why: str, remedies: tuple[Remedy, ...]) -> None:
    say.find(cause, Severity.INFO, title, why, confidence=0.6, layers=layers, remedies=remedies)


CHECK = LiveCheck(
    "layer_scales",
    "layers keep their scale",
    judge,
    (Cause.ACTIVATION_SCALE, Cause.WEIGHT_GROWTH, Cause.WEIGHT_COLLAPSE, Cause.UPDATE_RATIO),
    curves=("loss/train", "lr"),
    signals=(Signal.ACTIVATION_STD, Signal.WEIGHT_GROWTH, Signal.UPDATE_RATIO),
    parameters=(
        Parameter(DRIFT, 100.0, "times that an activation's scale may change", 1.0),
        Parameter(GROWTH, 10.0, "times that weights may grow", 1.0),
        Parameter(SHRUNK, 0.1, "share of their size that weights may shrink to", 0.0, 1.0),
        Parameter(LARGE, 10**-1.5, "update, of the weights, that is large"),
        Parameter(TINY, 1e-6, "update, of the weights, that is tiny"),
    ),
    source="TheDeepChecker (windows of growth); DL4J, visualisation: updates to weights about 1e-3",
    steps=20,
)
