"""Looks at the model that a check asks for before it speaks: when they are wanted, and what they showed. Pure.

From recorded numbers alone a check says that it suspects something; whoever trains then takes the batch at hand and
looks. Each look is of one batch, so that checks go by the medians of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameters
from nbdebug.records.frames import Floats
from nbdebug.records.looks import Looked, Question

MOST_LOOKS = 8
AS_RECORDED = 0.6  # of the recorded loss, that the same batch's may be off after its update


@dataclass(frozen=True, slots=True)
class Confirm:
    """``questions`` are asked where ``suspects(window, say)`` says so; ``fewest`` looks must be there to judge."""

    questions: tuple[Question, ...]
    suspects: Callable[[Window, Say], bool]
    fewest: int = 2


def wished(confirms: Iterable[Confirm], window: Window, parameters: Parameters) -> frozenset[Question]:
    """What is to be looked at now; a check that raises an error in suspecting raises it again when it judges."""
    found: set[Question] = set()
    for confirm in confirms:
        try:
            if confirm.suspects(window, Say(parameters, window.run, window.step)):
                found.update(confirm.questions)
        except Skip:
            continue
        except Exception:  # told by the judgement, which begins with the same suspicion
            continue
    return frozenset(found)


def looks(window: Window, confirm: Confirm) -> tuple[Looked, ...]:
    """The latest looks with answers to its questions, since the last change by hand.

    Raises:
        Skip: they are too few, can't be had, or are not of the loss that is trained.
    """
    if window.refused:
        raise Skip(f"a look at the model would be needed: {window.refused}")
    found = [each for each in window.looks if each.step > window.since_change and _answers(each, confirm.questions)]
    if confirm.questions != (Question.BATCH,):
        found = [each for each in found if _place(window, each) is not None]
    sound = [each for each in found[-MOST_LOOKS:] if _is_as_recorded(window, each)]
    if found and 2 * len(sound) <= len(found[-MOST_LOOKS:]):
        raise Skip("calling the model and the loss does not give the loss that your step reports")
    if len(sound) < confirm.fewest:
        raise Skip("a look at the model is still to come")
    return tuple(sound)


def over(found: tuple[Looked, ...], name: str) -> Floats:
    """One answer, of each look."""
    return np.array([getattr(each, name) for each in found], dtype=np.float64)


def _answers(each: Looked, questions: tuple[Question, ...]) -> bool:
    """Whether it has them; what is not finite is none."""
    wanted = {
        Question.MODES: each.evaluating, Question.INPUTS: each.output_change, Question.OUTPUTS: each.spread,
        Question.TARGETS: each.dealt.mean() if len(each.dealt) else np.nan,
        Question.BATCH: each.batch or np.nan,
    }  # fmt: skip
    called = [] if questions == (Question.BATCH,) else [each.training]
    return bool(np.isfinite([*called, *(wanted[question] for question in questions)]).all())


def _place(window: Window, each: Looked) -> int | None:
    """Where its step is in the curve of the training loss; ``None`` while that is still on its way from the device."""
    steps = window.loss.steps
    place = int(np.searchsorted(steps, each.step))
    return place if place < len(steps) and steps[place] == each.step else None


def _is_as_recorded(window: Window, each: Looked) -> bool:
    """Whether the loss in training mode is about what the step itself gave on that batch, one update before."""
    place = _place(window, each)
    if place is None or np.isnan(each.training):
        return True  # without a loss to compare; the batch alone was asked for
    near = window.loss.values[max(place - 10, 0) : place + 10]
    near, recorded = near[np.isfinite(near)], window.loss.values[place]
    swing = float(np.ptp(near)) if len(near) else 0.0
    return bool(abs(each.training - recorded) <= AS_RECORDED * abs(recorded) + swing)
