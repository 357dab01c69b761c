"""Nearly every step is clipped, and hard: the threshold sets the length of all updates, not only of the odd ones."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, Clip, ClipMode, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity

SHARE, TIMES = "clipped_share", "clipped_times"
FEWEST = 10
RECENT = 50


def judge(window: Window, say: Say) -> None:
    """The norms before clipping, since the last change, beside the threshold in force."""
    if window.facts.clips_by != "norm":
        raise Skip("nothing is clipped by its norm")
    norms = window.curve("grad_norm").since(window.since_change).last(RECENT)
    norms = norms[np.isfinite(norms)]
    if len(norms) < FEWEST:
        raise Skip("too few norms were measured")
    threshold = window.facts.clip
    often = say.measure("share of the latest steps that were clipped", float(np.mean(norms > threshold)), SHARE)
    hard = say.measure("median norm, of the threshold", float(np.median(norms)) / threshold, TIMES)
    if not (often and hard):
        return
    better = float(f"{np.quantile(norms, 0.9):.2g}")
    say.find(
        Cause.GRADIENT_CLIP_TOO_LOW,
        Severity.WARNING,
        "Gradients are clipped far too low",
        f"All but a few of the latest {len(norms)} steps were clipped, and the median norm, {np.median(norms):.3g}, is "
        f"{np.median(norms) / threshold:.0f} times the threshold of {threshold:.3g}. Clipping is for rare large "
        "gradients: like this it makes every update as short as the threshold says, whatever the gradient is.",
        confidence=0.85,
        remedies=(
            Remedy(
                f"Clip at the 90th percentile of the norm, {better:g}.",
                command=SetKnobs(Changes(clip=Clip(ClipMode.NORM, better))),
            ),
            Remedy("Switch clipping off.", command=SetKnobs(Changes(clip=Clip(ClipMode.OFF)))),
        ),
    )


CHECK = LiveCheck(
    "gradient_clip_too_low",
    "clipping is for rare large gradients",
    judge,
    (Cause.GRADIENT_CLIP_TOO_LOW,),
    curves=("grad_norm",),
    parameters=(
        Parameter(SHARE, 0.95, "share of steps that may be clipped", 0.0, 1.0),
        Parameter(TIMES, 10.0, "how many times the threshold the median norm may be", 1.0),
    ),
    source="Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural networks, section 3.2",
    steps=20,
)
