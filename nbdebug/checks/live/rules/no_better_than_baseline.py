"""After long training the loss is still what a constant prediction costs: nothing was learnt from the inputs."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import Course, course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import FindLr
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

LEVEL, STEPS, LONG, NOISE = "baseline_level", "baseline_steps", "baseline_steps_long", "baseline_noise"
FEWEST_EPOCHS = 3
NO_LOWER = 0.995  # of a constant prediction's loss: below, there is a relation, however weak
MOST_POINTS = 60


def judge(window: Window, say: Say) -> None:
    """The lower of the last two quarters' levels, with what their scatter allows for, beside the baseline."""
    facts = window.facts
    if len(facts.optimizers) > 1:
        raise Skip("several optimizers work against each other: no loss has to fall")
    if not (np.isfinite(facts.baseline) and facts.baseline > 0):
        raise Skip("what a constant prediction costs is not known")
    seen = course(window, 50)
    quarters = np.array_split(seen.values, 4)[2:]
    means = np.array([np.mean(each) for each in quarters])
    errors = np.array([np.std(each) / np.sqrt(len(each)) for each in quarters])
    level, error = float(np.min(means)), float(np.max(errors)) / facts.baseline
    unclear = say.measure("uncertainty of the loss's level, of a constant prediction's", error, NOISE)
    high = say.measure("level of the loss, of a constant prediction's", level / facts.baseline + error, LEVEL)
    steps = window.step - window.since_change
    enough = say.measure("steps so far", steps, STEPS)
    if high and enough and not unclear:
        _tell(window, seen, level, steps, say)


def _tell(window: Window, seen: Course, level: float, steps: int, say: Say) -> None:
    length = window.facts.epoch_length
    epochs = steps / length if length else 0.0
    long = say.measure("the same, for a warning", steps, LONG) and epochs >= FEWEST_EPOCHS
    long = long and level > NO_LOWER * window.facts.baseline
    index = np.unique(np.linspace(0, len(seen.values) - 1, MOST_POINTS).astype(int))
    say.find(
        Cause.NO_BETTER_THAN_BASELINE,
        Severity.WARNING if long else Severity.INFO,
        "The network does no better than a constant",
        f"After {steps:,} steps the loss is at {level:.4g}; to say the same for every sample would cost "
        f"{window.facts.baseline:.4g}. What tells samples apart does not reach the output, or has nothing to do with "
        "the targets, or is not learnt at this rate.",
        confidence=0.7 if long else 0.5,
        pictures=(
            Picture(
                PictureKind.LINES, "loss, beside a constant prediction's",
                np.stack([seen.values[index], np.full(len(index), window.facts.baseline)]),
                ("training", "constant prediction"), tuple(str(each) for each in seen.steps[index]),
            ),
        ),
        remedies=(
            Remedy("Check the program: data, targets, what reaches the loss.", code="debugger.preflight()"),
            Remedy("Test which learning rates are good.", command=FindLr()),
            Remedy("See whether it can learn a single batch by heart; if so, look at pairs of input and target."),
        ),
    )  # fmt: skip


CHECK = LiveCheck(
    "no_better_than_baseline",
    "the loss gets below that of a constant prediction",
    judge,
    (Cause.NO_BETTER_THAN_BASELINE,),
    parameters=(
        Parameter(LEVEL, 0.985, "loss, of a constant prediction's, that is no better"),
        Parameter(STEPS, 150.0, "steps that a network may take to do better than a constant prediction"),
        Parameter(LONG, 500.0, "steps after which no better than a constant prediction is worth a warning"),
        Parameter(NOISE, 0.02, "uncertainty of the loss's level, of a constant prediction's, to judge by"),
    ),
    source="Karpathy, A recipe for training neural networks: an input-independent baseline",
    steps=150,
)
