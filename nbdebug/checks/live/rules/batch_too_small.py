"""Gradients of single batches are nearly all noise, so that steps mostly cancel each other. Information only.

For plain SGD the fall of the loss says how long the gradient of all data is, at least: a step of rate r along g lowers
it by about r |g|². Beside the square of a batch's own gradient that is the signal's share (McCandlish et al. 2018).
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity

SIGNAL, AGREEMENT = "gradient_signal_share", "gradient_signal_large"
FEWEST = 60
RECENT = 400
STEADY = 1.5  # between the least and the largest rate
FOLLOWS = 3.0  # deviations that the loss must fall by, for its fall to be known


def judge(window: Window, say: Say) -> None:
    """The fall of the loss in the latest steps, beside what whole gradients of batches would have brought."""
    facts = window.facts
    if facts.optimizers != ("SGD",) or facts.clips_by != "off":
        raise Skip("only plain steps along the gradient tell how much of it is noise")
    rates = window.curve("lr").since(window.since_change).last(RECENT)
    norms = window.curve("grad_norm").since(window.since_change).last(RECENT)
    norms = norms[np.isfinite(norms)]
    if len(rates) < FEWEST or len(norms) < FEWEST or not rates.min() > 0 or rates.max() > STEADY * rates.min():
        raise Skip("too few norms were measured at one learning rate")
    seen = course(window, FEWEST)
    if seen.has_learnt:
        raise Skip("near a minimum every gradient is mostly noise")
    steps, values = seen.steps[-RECENT:].astype(float), seen.values[-RECENT:]
    fall, error = _fall(steps, values)
    length = float(np.median(rates)) / (1 - min(facts.options.get("momentum", 0.0), 0.999))
    squared = float(np.mean(norms**2))
    if squared <= 0:
        raise Skip("there is no gradient")
    share = (fall + FOLLOWS * error) / (length * squared)
    small = say.measure("share of a batch's gradient that all data agree on, at most", share, SIGNAL, above=False)
    least = (fall - FOLLOWS * error) / (length * squared)
    if say.measure("the same, at least", least, AGREEMENT):
        say.note("gradients of single batches agree: a smaller batch would do as well, and take less time")
    if small and fall > -FOLLOWS * error:
        _tell(share, say)


def _fall(steps: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """How much the loss falls in a step, by a straight line, and how uncertain that is."""
    centred = steps - steps.mean()
    spread = float(centred @ centred)
    slope = float(centred @ values) / spread
    rest = values - values.mean() - slope * centred
    return -slope, float(np.sqrt(rest @ rest / max(len(values) - 2, 1) / spread))


def _tell(share: float, say: Say) -> None:
    say.find(
        Cause.BATCH_TOO_SMALL,
        Severity.INFO,
        "Gradients are mostly noise",
        f"Had batches agreed, the loss would have fallen many times as fast: at most {max(share, 0.0):.2g} of what "
        "single gradients promise came about. Steps along different batches undo each other.",
        confidence=0.5,
        remedies=(
            Remedy("Add up the gradients of four batches for each update.", command=SetKnobs(Changes(accumulate=4))),
            Remedy("Take larger batches, or a lower learning rate with the same ones."),
        ),
    )


CHECK = LiveCheck(
    "batch_too_small",
    "gradients of batches agree with each other",
    judge,
    (Cause.BATCH_TOO_SMALL,),
    curves=("loss/train", "grad_norm", "lr"),
    parameters=(
        Parameter(SIGNAL, 0.003, "share of a batch's gradient that must be signal", 0.0, 1.0),
        Parameter(AGREEMENT, 0.5, "share of a batch's gradient that is signal, above which a smaller batch would do"),
    ),
    source="McCandlish et al. 2018, An empirical model of large-batch training",
    persistence=3,
    steps=100,
)
