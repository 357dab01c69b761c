"""Nearly every step is clipped, and hard: the threshold sets the length of all updates, not only of the odd ones.

What a step of the user's clips is seen clipped: then all norms are the same number, and the loss stays where it was.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, Clip, ClipMode, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.frames import Floats

SHARE, TIMES, SPREAD, FALLEN = "clipped_share", "clipped_times", "clipped_spread", "clipped_loss_fallen"
NORMALISING = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Adafactor", "Lion", "Rprop")
FEWEST = 10
RECENT = 50
ROUNDED = 1e-5  # of a norm: how far two that are clipped alike may be apart by rounding


def judge(window: Window, say: Say) -> None:
    """The norms before clipping, since the last change, beside the threshold in force."""
    norms = window.curve("grad_norm").since(window.since_change).last(RECENT)
    norms = norms[np.isfinite(norms)]
    if len(norms) < FEWEST:
        raise Skip("too few norms were measured")
    if window.facts.clips_by != "norm" or not _by_knob(norms, window.facts.clip, say):
        _by_hand(window, norms, say)


def _by_knob(norms: Floats, threshold: float, say: Say) -> bool:
    """Whether it is our own clipping that does it, which is then told."""
    often = say.measure("share of the latest steps that were clipped", float(np.mean(norms > threshold)), SHARE)
    hard = say.measure("median norm, of the threshold", float(np.median(norms)) / threshold, TIMES)
    if not (often and hard):
        return False
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
    return True


def _by_hand(window: Window, norms: Floats, say: Say) -> None:
    if any(kind in each for each in window.facts.optimizers for kind in NORMALISING):
        raise Skip("this optimizer makes up for a gradient that is the same length in each step")
    usual = float(np.median(norms))
    if usual <= 0:
        raise Skip("there is no gradient")
    low, high = np.quantile(norms, [0.05, 0.95])
    spread = float((high - low) / usual)
    same = say.measure("spread of the gradient's norm, of itself", spread, SPREAD, above=False)
    seen = course(window, 40)
    if seen.noise <= 10 * max(spread, ROUNDED) * abs(seen.now):
        raise Skip("all steps are alike, so that their gradients may well be")
    still = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False)
    if same and still and not seen.has_learnt:
        lasting = window.step - window.since_change
        say.find(
            Cause.GRADIENT_CLIP_TOO_LOW,
            Severity.WARNING,
            "Gradients are clipped far too low",
            f"The gradient's norm was {usual:.3g} in nearly all of the latest {len(norms)} steps: something clips each "
            f"of them to that. After {lasting} steps the loss is about where it began, {seen.start:.3g}.",
            confidence=0.85,
            remedies=(
                Remedy(
                    "Raise the threshold to the 90th percentile of what clip_grad_norm_ returns, the norm before.",
                    code="norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
                ),
            ),
        )


CHECK = LiveCheck(
    "gradient_clip_too_low",
    "clipping is for rare large gradients",
    judge,
    (Cause.GRADIENT_CLIP_TOO_LOW,),
    curves=("grad_norm", "loss/train"),
    parameters=(
        Parameter(SHARE, 0.95, "share of steps that may be clipped", 0.0, 1.0),
        Parameter(TIMES, 10.0, "how many times the threshold the median norm may be", 1.0),
        Parameter(SPREAD, 1e-3, "spread of the gradient's norm, of itself, by which it is clipped unseen"),
        Parameter(FALLEN, 0.15, "share of the loss that must be gone where every step is clipped", -1.0, 1.0),
    ),
    source="Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural networks, section 3.2",
    steps=20,
)
