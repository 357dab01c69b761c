"""What is learnt holds for the training data alone: validation loss rises, or stays bad, while training loss falls."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import agreement, scatter, slope
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, Rerun, StartPoint
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.records.frames import Floats

RISE, STEADY, LEARNT = "overfit_rise", "overfit_steadiness", "overfit_learnt"
GAP, UNLEARNT = "overfit_gap", "overfit_unlearnt"
FEWEST = 5
SLIGHT = 0.5  # of a constant prediction's loss: a rise is held against no less
STEADILY = 0.5  # Kendall's tau: a bad validation loss that falls like this may yet become good
MOST = 60  # evaluations; more are judged by medians of stretches


def judge(window: Window, say: Say) -> None:
    """Robust slopes of both losses over the evaluations since the best one, or the gap between them."""
    train, val, at = _by_evaluation(window)
    if len(val) < FEWEST or val.min() < 0 or train.min() < 0:
        raise Skip(f"fewer than {FEWEST} evaluations, or losses have no fixed zero")
    known = np.isfinite(window.facts.baseline) and window.facts.baseline > 0
    scale = window.facts.baseline if known else float(val[0])
    if scale <= 0 or np.median(val[-3:]) <= 0:
        raise Skip("the loss is zero")
    best = int(np.argmin(val))
    since, noise = val[best:], scatter(val)
    rise = (float(np.median(val[-3:])) - val[best] - 2 * noise) / max(val[best], SLIGHT * scale)
    rose = say.measure("rise of the validation loss since its best", rise, RISE)
    steady = say.measure("steadiness of that rise (Kendall)", agreement(since) if len(since) >= FEWEST else 0.0, STEADY)
    falls = slope(train[best:]) <= 0 if len(since) >= FEWEST else False
    gap = say.measure(
        "training loss, of the validation loss", float(np.median(train[-3:]) / np.median(val[-3:])), GAP, above=False
    )
    least = float(val[-FEWEST:].min()) / scale
    bad = say.measure("least of the latest validation losses, of a constant prediction's or the first", least, UNLEARNT)
    stays = agreement(val[-max(FEWEST, len(val) // 2) :]) > -STEADILY
    learnt = say.measure(
        "training loss, of a constant prediction's or of the first", float(train[-1]) / scale, LEARNT, above=False
    )
    if (rose and steady and falls and learnt and train[-1] < val[-1]) or (gap and bad and stays):
        _tell(window, train, val, at, best, say)


def _by_evaluation(window: Window) -> tuple[Floats, Floats, Floats]:
    """The mean training loss up to each evaluation, the validation loss, and the step."""
    curve, losses = window.validation.since(window.since_change), window.loss
    edges = np.searchsorted(losses.steps, np.append(window.since_change, curve.steps), side="right")
    widths = np.diff(edges)
    train = np.array(
        [np.mean(losses.values[b - max(w, 1) : b]) if b else np.nan for b, w in zip(edges[1:], widths, strict=True)]
    )
    kept = np.isfinite(curve.values) & np.isfinite(train)
    train, val, at = train[kept], curve.values[kept], curve.steps[kept].astype(float)
    if len(val) <= MOST:
        return train, val, at
    parts = [np.array_split(each, MOST) for each in (train, val)]
    medians = [np.array([np.median(part) for part in each]) for each in parts]
    return medians[0], medians[1], np.array([part[-1] for part in np.array_split(at, MOST)])


def _tell(window: Window, train: Floats, val: Floats, at: Floats, best: int, say: Say) -> None:
    options = window.facts.options
    remedies = []
    if window.facts.dropout:
        more = {layer: min(0.5, max(0.2, 1.5 * p)) for layer, p in window.facts.dropout.items()}
        remedies.append(Remedy("More dropout, from the best epoch.", command=_from_best(Changes(dropout=more))))
    if "weight_decay" in options:
        decay = min(0.1, max(10 * options["weight_decay"], 1e-3))
        change = Changes(options={"weight_decay": decay})
        remedies.append(Remedy(f"Weight decay of {decay:g}, from the best epoch.", command=_from_best(change)))
    remedies.append(Remedy("More data or augmentation, or a smaller network; stop early."))
    say.find(
        Cause.OVERFITTING,
        Severity.WARNING,
        "The network learns the training data by heart",
        f"The training loss is down to {train[-1]:.3g}, while the validation loss, {val[best]:.3g} at its best (step "
        f"{at[best]:.0f}), is at {val[-1]:.3g}: what was learnt since does not hold for other data.",
        confidence=0.85,
        pictures=(
            Picture(
                PictureKind.LINES, "loss at each evaluation", np.stack([train, val]), ("training", "validation"),
                tuple(f"{step:.0f}" for step in at),
            ),
        ),
        remedies=tuple(remedies),
    )  # fmt: skip


def _from_best(changes: Changes) -> Rerun:
    return Rerun(StartPoint.BEST, changes=changes)


CHECK = LiveCheck(
    "overfitting",
    "what is learnt holds for other data",
    judge,
    (Cause.OVERFITTING,),
    curves=("loss/train", "loss/val"),
    parameters=(
        Parameter(RISE, 0.15, "rise of the validation loss since its best, of that"),
        Parameter(STEADY, 0.5, "steadiness of that rise: 1 where each evaluation is worse than all before", 0.0, 1.0),
        Parameter(LEARNT, 0.8, "training loss, of a constant prediction's, for something to be learnt at all"),
        Parameter(GAP, 0.2, "training loss, of the validation loss, that is learnt by heart", 0.0, 1.0),
        Parameter(UNLEARNT, 0.45, "validation loss, of a constant prediction's, that is bad"),
    ),
    source="Prechelt 1998, Early stopping, but when?; slopes by Theil and Sen",
    steps=20,
)
