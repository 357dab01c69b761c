"""The gradient scaler goes down and down, or leaves out one update after the other: half precision overflows."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, Clip, ClipMode, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity

SCALE, SKIPPED = "loss_scale_left", "updates_skipped"
RECENT = 100
SETTLING = 20  # steps in which a scaler may look for its scale


def judge(window: Window, say: Say) -> None:
    """The scale now, and the share of the latest updates that were left out."""
    scales = window.curve("loss_scale").since(window.since_change)
    if not len(scales):
        raise Skip("there is no gradient scaler")
    flags = window.curve("skipped_updates").since(window.since_change + SETTLING).last(RECENT)
    share = float(np.mean(flags > 0)) if len(flags) else 0.0
    low = say.measure("scale of the loss", float(scales.values[-1]), SCALE, above=False)
    often = say.measure("share of the latest updates left out", share, SKIPPED)
    if low or often:
        say.find(
            Cause.HALF_PRECISION_OVERFLOW,
            Severity.WARNING,
            "Half precision overflows",
            f"The gradient scaler is down to {scales.values[-1]:.3g} from {np.nanmax(scales.values):.3g}, and left out "
            f"{share:.0%} of the latest {len(flags)} updates, because gradients were not finite in float16.",
            confidence=0.9,
            remedies=(
                Remedy("Use bfloat16, which has the range of float32.", code="torch.autocast(device, torch.bfloat16)"),
                Remedy("Clip gradients.", command=SetKnobs(Changes(clip=Clip(ClipMode.NORM, 1.0)))),
                Remedy("Do sums, squares and softmax in float32, and raise eps to 1e-4."),
            ),
        )


CHECK = LiveCheck(
    "half_precision_scale",
    "the gradient scaler keeps its scale",
    judge,
    (Cause.HALF_PRECISION_OVERFLOW,),
    curves=("loss_scale", "skipped_updates"),
    parameters=(
        Parameter(SCALE, 1.0, "scale of the loss, below which gradients overflow without any scale"),
        Parameter(SKIPPED, 0.3, "share of updates that a scaler may leave out", 0.0, 1.0),
    ),
    source="PyTorch, torch.amp: gradient scaling; Micikevicius et al. 2018, Mixed precision training",
    steps=40,
)
