"""What the training loss does by itself, as symptoms: it climbs away, stays where it began, or swings to and fro."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import Course, course, is_whole
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, FindLr, Rerun, SetKnobs, StartPoint
from nbdebug.records.findings import Cause, Remedy, Severity

CLIMB, FALLEN, FLAT, SWING = "divergence_rise", "plateau_fallen", "plateau_steps", "oscillation_alternation"
RECENT = 60
WIDE = 0.3  # of the loss: smaller swings are no matter


def judge(window: Window, say: Say) -> None:
    """Its level beside where it began, over some stretches."""
    if len(window.facts.optimizers) > 1:
        raise Skip("several optimizers work against each other: no loss has to fall")
    seen = course(window, 20)
    if seen.start <= 0 or seen.best <= 0:
        raise Skip("the loss has no fixed zero")
    levels = seen.levels(5)
    rise = say.measure("loss, of where it began or of a constant prediction's", seen.now / seen.reference, CLIMB)
    climbs = rise and levels[-1] >= max(levels[:-1]) - seen.noise and seen.now - seen.reference > 5 * seen.noise
    if climbs:
        _climbs(window, seen, say)
    elif not seen.has_learnt:
        _stays(window, seen, say)
        _swings(window, seen, say)


def _climbs(window: Window, seen: Course, say: Say) -> None:
    rates = window.curve("lr").values
    lower = float(f"{rates[-1] / 10:.2g}") if len(rates) and rates[-1] > 0 else 0.0
    slower = (
        Remedy(f"Set the learning rate to {lower:g}.", command=SetKnobs(Changes(lr=lower))),
        Remedy("Train again from the start at that rate.", command=Rerun(StartPoint.START, changes=Changes(lr=lower))),
    )
    say.find(
        Cause.LOSS_DIVERGENCE,
        Severity.WARNING,
        "The loss climbs",
        f"It began at {seen.start:.3g} and is at {seen.now:.3g}, {seen.now / seen.start:.2g} times that, its highest.",
        confidence=0.8,
        remedies=slower if lower else (Remedy("Divide the learning rate by ten."),),
    )


def _stays(window: Window, seen: Course, say: Say) -> None:
    still = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False)
    steps = window.step - window.since_change
    long = say.measure("steps so far", steps, FLAT)
    half = seen.values[len(seen.values) // 2 :]
    middle = len(half) // 2
    falls = np.median(half[:middle]) - np.median(half[middle:]) > 4 * seen.noise / np.sqrt(max(middle, 1))
    if still and long and not falls:
        known = np.isfinite(seen.baseline)
        beside = f" A constant prediction would have {seen.baseline:.3g}." if known else ""
        say.find(
            Cause.LOSS_PLATEAU,
            Severity.INFO,
            "The loss does not fall",
            f"After {steps} steps it is at {seen.now:.3g}; it began at {seen.start:.3g}.{beside}",
            confidence=0.7,
            remedies=(
                Remedy("Test which learning rates are good.", command=FindLr()),
                Remedy("Check the program before training.", code="debugger.preflight()"),
            ),
        )


def _swings(window: Window, seen: Course, say: Say) -> None:
    if not is_whole(seen.steps[-RECENT:]) or len(seen.values) < RECENT:
        return
    turns = np.sign(np.diff(seen.values[-RECENT:]))
    often = say.measure("share of steps at which the loss turns", float(np.mean(turns[1:] != turns[:-1])), SWING)
    if often and seen.noise > WIDE * seen.now:
        say.find(
            Cause.LOSS_OSCILLATION,
            Severity.INFO,
            "The loss swings to and fro",
            f"It turns at nearly every step, by about {seen.noise:.2g} about {seen.now:.3g}: steps go across the "
            "valley and not along it.",
            confidence=0.6,
            remedies=(Remedy("Test which learning rates are good.", command=FindLr()),),
        )


CHECK = LiveCheck(
    "loss_course",
    "the training loss falls",
    judge,
    (Cause.LOSS_DIVERGENCE, Cause.LOSS_PLATEAU, Cause.LOSS_OSCILLATION),
    curves=("loss/train", "lr"),
    parameters=(
        Parameter(CLIMB, 3.0, "how high the loss may climb, of where it began", 1.0),
        Parameter(FALLEN, 0.05, "share of the loss that must be gone", -1.0, 1.0),
        Parameter(FLAT, 100.0, "steps that a loss may take to begin to fall"),
        Parameter(SWING, 0.85, "share of steps at which the loss may turn; two thirds is chance", 0.0, 1.0),
    ),
    source="AutoTrainer: loss not falling, oscillating, diverging",
    steps=20,
)
