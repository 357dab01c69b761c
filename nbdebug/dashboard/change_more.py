"""The tab "Change", its latter parts: what is done to data, loss and gradients, and averages of the weights. Pure."""

from __future__ import annotations

import math
from typing import Final

from nbdebug.dashboard import words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import Changes, ClipMode
from nbdebug.records.status import KnobStates

NO_NOISE: Final = "the optimizer has no gradients to add noise to"
MORE: Final = ("batch_size", "accumulate", "label_smoothing", "gradient_noise", "loss_weights", "layer_clips")


def sets_more(changes: Changes) -> bool:
    """Whether any of these knobs are among the changes."""
    return any(getattr(changes, name) is not None for name in MORE)


def numbers(knobs: KnobStates) -> list[Json]:
    """The knobs that are one number, each with its range, or why it can't act."""
    accumulated = f"{knobs.accumulated} of {knobs.accumulate} batches done" if knobs.accumulated else ""
    noise = "" if knobs.groups else NO_NOISE
    found = [
        _number("batch_size", knobs.batch_size, 1, fixed=knobs.why_not_batch_size, note=knobs.batch_size_acts),
        _number("accumulate", knobs.accumulate, 1, fixed=knobs.why_not_accumulate, note=accumulated),
        _number(
            "label_smoothing", knobs.label_smoothing, 0, 1, whole=False, fixed=knobs.why_not_label_smoothing,
            title="how much of each target's weight is spread over all classes",
        ),
        _number(
            "gradient_noise", knobs.gradient_noise, 0, whole=False, fixed=noise,
            title="standard deviation of Gaussian noise that is added to the gradients",
        ),
    ]  # fmt: skip
    return found + [
        {**_number("loss_weights", weight, None, whole=False), "part": part, "label": f"weight of {part}"}
        for part, weight in knobs.loss_weights
    ]


TITLES: Final = {
    "batch_size": "samples of a batch",
    "accumulate": "so many batches make one update",
    "loss_weights": "what this part of the loss counts",
}


def _number(
    name: str,
    value: float | None,
    low: float | None,
    high: float | None = None,
    *,
    whole: bool = True,
    fixed: str = "",
    note: str = "",
    title: str = "",
) -> dict[str, Json]:
    return {
        "name": name,
        "part": "",
        "label": name.replace("_", " "),
        "value": value if value is not None and math.isfinite(value) else None,
        "low": low,
        "high": high,
        "low_open": False,
        "high_open": False,
        "whole": whole,
        "fixed": fixed or ("" if value is not None else "not known yet"),
        "note": note,
        "title": title or TITLES.get(name, ""),
    }


def layer_clips(knobs: KnobStates) -> list[list[str]]:
    """By layer or pattern, what its gradients are clipped at, in words."""
    return [
        [name, f"{clip.mode} {words.number(clip.threshold)}"]
        for name, clip in knobs.layer_clips
        if clip.mode is not ClipMode.OFF
    ]


def average(knobs: KnobStates) -> Json:
    """The average that is taken: its kind, and all of it in words; empty without one."""
    taken = knobs.average
    if taken is None:
        return {"kind": "", "decay": None, "text": "none is taken"}
    rule = f"decay {taken.decay:g}" if taken.kind == "ema" else f"every {words.plural(taken.every, 'step')}"
    text = f"{taken.kind.upper()}, {rule}, of {words.plural(taken.taken, 'weight')} so far"
    return {"kind": taken.kind, "decay": taken.decay if taken.kind == "ema" else None, "text": text}
