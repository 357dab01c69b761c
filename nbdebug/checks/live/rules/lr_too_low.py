"""The learning rate is too low: most layers change by a hundred-thousandth of their weights or less, none by much.

Only where the rate itself is tiny, and neither a warm-up nor a schedule made it so: tiny gradients have other causes.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import quantiles, tracked
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, FindLr, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.signals import Signal

RATIO, BUSIEST = "lr_low_update_ratio", "lr_low_busiest_ratio"
FALLEN, RATE = "lr_low_fallen", "lr_low_rate"
PLAIN_TIMES = 100.0  # plain SGD's rates lie this far above those of Adam and its kin
ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Adafactor", "Lion", "Rprop")
OF_ITS_PEAK = 0.5  # the rate may lie this far below its highest: else a schedule made it small
HEALTHY = 1e-3


def judge(window: Window, say: Say) -> None:
    """Updates beside the weights, of most layers and of the busiest; how far the loss came; the rate."""
    _gates(window)
    rates = window.curve("lr").values
    rate = float(rates[-1])
    seen = course(window, 30)
    updates = tracked(window, Signal.UPDATE_RATIO, 1)
    usual, busiest = (quantiles(updates.high, share) for share in (0.5, 1.0))
    if not np.any(busiest > 0):
        raise Skip("no layer was changed by an update")
    ratio = float(np.nanmax(busiest))
    plain = 1.0 if any(kind in each for each in window.facts.optimizers for kind in ADAPTIVE) else PLAIN_TIMES
    tiny = say.measure("update of most layers, of their weights", float(np.nanmax(usual)), RATIO, above=False)
    tiny &= say.measure("update of the busiest layer, of its weights", ratio, BUSIEST, above=False)
    low = say.measure("learning rate, of what is usual for the optimizer", rate / plain, RATE, above=False)
    still = say.measure("share of the loss that is surely gone", seen.surely_fallen(), FALLEN, above=False)
    if tiny and low and still and not seen.has_learnt:
        _tell(window, rate, ratio, say)


def _gates(window: Window) -> None:
    rates = window.curve("lr").values
    rates = rates[np.isfinite(rates)]
    if not len(rates) or rates[-1] <= 0:
        raise Skip("the learning rate is not known, or zero")
    if rates[-1] < OF_ITS_PEAK * rates.max():
        raise Skip("a schedule has lowered the rate")
    if len(rates) > 1 and rates[-1] > rates[len(rates) // 2] * 1.01:
        raise Skip("the rate is still rising")


def _tell(window: Window, rate: float, ratio: float, say: Say) -> None:
    better = [float(f"{rate * times:.2g}") for times in (10, 100, min(1e4, HEALTHY / ratio))]
    remedies = [Remedy("Test which rates are good, from tiny to large.", command=FindLr())]
    words = ("ten times as high", "a hundred times as high", "what would change weights by a thousandth a step")
    remedies += [
        Remedy(f"Set it to {each:g}, {text}.", command=SetKnobs(Changes(lr=each)))
        for each, text in reversed(list(zip(better, words, strict=True)))
    ]
    say.find(
        Cause.LR_TOO_LOW,
        Severity.WARNING,
        "The learning rate is too low",
        f"At a rate of {rate:.3g} even the busiest layer changes by {ratio:.1g} of its weights in a step, where a "
        f"thousandth is usual, and after {window.step - window.since_change} steps the loss is where it began.",
        confidence=0.9,
        remedies=tuple(remedies),
    )


CHECK = LiveCheck(
    "lr_too_low",
    "updates are large enough to get anywhere",
    judge,
    (Cause.LR_TOO_LOW,),
    curves=("loss/train", "lr"),
    signals=(Signal.UPDATE_RATIO,),
    parameters=(
        Parameter(RATIO, 1e-5, "update of most layers, of their weights, that is too small"),
        Parameter(BUSIEST, 1e-4, "update of the busiest layer, of its weights, that is too small"),
        Parameter(RATE, 1.1e-5, "learning rate that is low for Adam; plain SGD's is a hundred times that"),
        Parameter(FALLEN, 0.1, "share of the loss that must be gone", -1.0, 1.0),
    ),
    source="Karpathy, CS231n: the ratio of updates to weights should be about 1e-3",
    steps=40,
)
