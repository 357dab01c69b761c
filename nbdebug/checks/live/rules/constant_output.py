"""The network puts out one and the same number, whatever goes in, look after look."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import InitScheme, Reinitialize
from nbdebug.records.findings import Cause, Remedy, Severity

RANGE = "output_range"
LOOKS = 2
AFTER = 10  # steps: an output layer may well begin at zero


def judge(window: Window, say: Say) -> None:
    """The range of all that it puts out in a batch, the least and the greatest value being exact."""
    lows = [key for key in window.curves if key.startswith("data_min/") and key.endswith("output")]
    if not lows:
        raise Skip("outputs were not measured")
    seen = course(window)
    for key in lows:
        low = window.curves[key].since(window.since_change + AFTER).last(LOOKS)
        high = window.curve(key.replace("data_min/", "data_max/")).since(window.since_change + AFTER).last(LOOKS)
        if len(low) < LOOKS or len(low) != len(high) or not (np.isfinite(low) & np.isfinite(high)).all():
            continue
        size = np.maximum(np.maximum(np.abs(low), np.abs(high)), np.finfo(np.float32).tiny)
        span = float(np.max((high - low) / size))
        if say.measure("range of the outputs, of their size", span, RANGE, above=False) and not seen.has_learnt:
            _tell(float(high[-1]), say)
            return


def _tell(value: float, say: Say) -> None:
    say.find(
        Cause.CONSTANT_OUTPUT,
        Severity.WARNING,
        "The output is constant",
        f"Whatever goes in, {value:.4g} comes out, of every unit for every sample. What would tell samples apart "
        "was lost on the way: dead or saturated units, weights of zero, inputs that never arrive.",
        confidence=0.8,
        remedies=(
            Remedy("Draw weights anew, as He et al.", command=Reinitialize(InitScheme.KAIMING_NORMAL, 0)),
            Remedy("Follow one sample through the model, layer by layer."),
        ),
    )


CHECK = LiveCheck(
    "constant_output",
    "outputs differ from sample to sample",
    judge,
    (Cause.CONSTANT_OUTPUT,),
    curves=("loss/train", "data_min/*", "data_max/*"),
    parameters=(Parameter(RANGE, 1e-6, "range of the outputs, of their size, that is as good as none"),),
    source="Karpathy, A recipe for training neural networks: look at the predictions",
    steps=20,
)
