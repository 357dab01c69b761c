"""Weight decay pulls harder than the gradient: weights shrink towards zero before anything is learnt."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import Course, course
from nbdebug.checks.live.layers import medians, quantiles, tracked
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, SetKnobs, SplitDecay
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.signals import Signal

SHARE, COUPLED, TIME, FALLEN = "decay_share_of_update", "decay_share_coupled", "decay_time", "decay_loss_fallen"
USUAL = 0.01
SCALING = ("Adam", "Adagrad", "RMSprop", "Adadelta")
COUPLED_WHY = (
    " It is added to gradients here, which the optimizer then divides by their size, so that it pulls far more."
)
LOOKS = 2
FEWEST = 60  # losses, to say that it stays
SHRUNK = 0.9  # of the size at the first look
STAYS = 0.03  # of the loss, that it may move by


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
    share = float(np.median(found))
    coupled = _is_coupled(window)
    strong = say.measure("weight decay's share in the update", share, COUPLED if coupled else SHARE)
    steps = _steps_by_size(window, share) if coupled else 1 / (rate * decay)
    fast = say.measure("steps in which decay alone takes weights to a third", steps, TIME, above=False)
    still = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False) or _is_held(window, seen)
    if strong and fast and still and not seen.has_learnt:
        _tell(window, seen, decay, steps, share, say)


def _is_coupled(window: Window) -> bool:
    """Whether decay is added to gradients that are then divided by their size: it loses its own scale by that."""
    scaled = any(kind in each for each in window.facts.optimizers for kind in SCALING)
    apart = window.facts.options.get("decoupled_weight_decay") or any("AdamW" in e for e in window.facts.optimizers)
    return scaled and not apart


def _steps_by_size(window: Window, share: float) -> float:
    """Updates of such an optimizer are as long whatever made them; NaN where none was measured."""
    ratios = medians(tracked(window, Signal.UPDATE_RATIO, 1).high)
    ratio = quantiles(ratios[-LOOKS:], 0.5, axis=0)
    return float(1 / (ratio * share)) if ratio * share > 0 else float("nan")


def _is_held(window: Window, seen: Course) -> bool:
    """Whether the loss fell at first and stays since, with weights smaller than they were at the first look."""
    growth = window.track(Signal.WEIGHT_GROWTH)
    if growth is None or len(seen.values) < FEWEST:
        return False
    shrunk = bool(np.all(medians(growth.high)[-LOOKS:] < SHRUNK)) and len(growth) > LOOKS
    middle, latest = seen.levels(5)[2:4].mean(), seen.levels(5)[4]
    return shrunk and abs(middle - latest) < STAYS * latest + seen.noise / np.sqrt(len(seen.values) / 5)


def _tell(window: Window, seen: Course, decay: float, steps: float, share: float, say: Say) -> None:
    lower = float(f"{min(USUAL, decay / 100):.1g}")
    before = "nothing has moved it since" if seen.fallen > say.limit(FALLEN) else "that is about where it began"
    say.find(
        Cause.WEIGHT_DECAY_TOO_HIGH,
        Severity.WARNING,
        "Weight decay is far too high",
        f"A weight decay of {decay:g} would by itself take weights to a third within about {steps:.0f} steps, and "
        f"makes up {share:.0%} of the update: the gradient can't hold against it. The loss began at {seen.start:.3g} "
        f"and is at {seen.now:.3g}; {before}." + COUPLED_WHY * _is_coupled(window),
        confidence=0.9,
        remedies=(
            Remedy(f"Set it to {lower:g}.", command=SetKnobs(Changes(options={"weight_decay": lower}))),
            Remedy("Set it to 0.", command=SetKnobs(Changes(options={"weight_decay": 0.0}))),
            *_decoupled(window, decay),
            Remedy("Leave norm layers and biases out of it.", command=SplitDecay()),
        ),
    )


def _decoupled(window: Window, decay: float) -> tuple[Remedy, ...]:
    kinds = [each for each in window.facts.optimizers if each == "Adam"]
    if not kinds:
        return ()
    code = f"torch.optim.AdamW(..., weight_decay={decay:g})"
    return (Remedy("Take AdamW, for which such decays are meant.", code=code),)


CHECK = LiveCheck(
    "weight_decay_too_high",
    "weight decay pulls less than the gradient",
    judge,
    (Cause.WEIGHT_DECAY_TOO_HIGH,),
    curves=("loss/train", "lr", "decay_share/*"),
    signals=(Signal.UPDATE_RATIO, Signal.WEIGHT_GROWTH),
    parameters=(
        Parameter(SHARE, 0.5, "weight decay's share in the update", 0.0, 1.0),
        Parameter(COUPLED, 0.25, "the same where it is added to the gradients of Adam and its kin", 0.0, 1.0),
        Parameter(TIME, 200.0, "steps in which decay alone may take weights to a third"),
        Parameter(FALLEN, 0.3, "share of the loss that must be gone where decay is strong", -1.0, 1.0),
    ),
    source="Loshchilov, Hutter 2019, Decoupled weight decay regularization",
    steps=30,
)
