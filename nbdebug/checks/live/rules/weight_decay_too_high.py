"""Weight decay pulls harder than the gradient: weights shrink towards zero before anything is learnt."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, SetKnobs, SplitDecay
from nbdebug.records.findings import Cause, Remedy, Severity

SHARE, TIME, FALLEN = "decay_share_of_update", "decay_time", "decay_loss_fallen"
USUAL = 0.01


def judge(window: Window, say: Say) -> None:
    """Its share in the update, in how many steps it alone takes weights to a third, and how far the loss came."""
    decay = window.facts.options.get("weight_decay", 0.0)
    rates = window.curve("lr").values
    if decay <= 0 or not len(rates):
        raise Skip("there is no weight decay")
    shares = [window.curves[key].values for key in window.curves if key.startswith("decay_share")]
    found = np.concatenate([*shares, np.zeros(0)])
    found = found[np.isfinite(found)]
    if not len(found):
        raise Skip("the decay's share in the update was not measured")
    seen = course(window, 20)
    rate = float(np.nanmax(rates[-len(rates) // 2 :]))
    strong = say.measure("weight decay's share in the update", float(np.median(found)), SHARE)
    fast = say.measure("steps in which decay alone takes weights to a third", 1 / (rate * decay), TIME, above=False)
    still = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False)
    if not (strong and fast and still) or seen.has_learnt:
        return
    lower = float(f"{min(USUAL, decay / 100):.1g}")
    say.find(
        Cause.WEIGHT_DECAY_TOO_HIGH,
        Severity.WARNING,
        "Weight decay is far too high",
        f"A weight decay of {decay:g} at a learning rate of {rate:.3g} takes weights to a third within "
        f"{1 / (rate * decay):.0f} steps and makes up {np.median(found):.0%} of the update: the gradient can't hold "
        f"against it, and the loss is about where it began ({seen.start:.3g}, now {seen.now:.3g}).",
        confidence=0.9,
        remedies=(
            Remedy(f"Set it to {lower:g}.", command=SetKnobs(Changes(options={"weight_decay": lower}))),
            Remedy("Set it to 0.", command=SetKnobs(Changes(options={"weight_decay": 0.0}))),
            Remedy("Leave norm layers and biases out of it.", command=SplitDecay()),
        ),
    )


CHECK = LiveCheck(
    "weight_decay_too_high",
    "weight decay pulls less than the gradient",
    judge,
    (Cause.WEIGHT_DECAY_TOO_HIGH,),
    curves=("loss/train", "lr", "decay_share/*"),
    parameters=(
        Parameter(SHARE, 0.5, "weight decay's share in the update", 0.0, 1.0),
        Parameter(TIME, 200.0, "steps in which decay alone may take weights to a third"),
        Parameter(FALLEN, 0.3, "share of the loss that must be gone where decay is strong", -1.0, 1.0),
    ),
    source="Loshchilov, Hutter 2019, Decoupled weight decay regularization",
    steps=30,
)
