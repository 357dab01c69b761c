"""Checks of what the user passes to the debugger, each returning its mistakes in words. Any thread."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import nn

from nbdebug.records.commands import InitScheme, StartPoint
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.training.modules import named_parameters
from nbdebug.training.trainer import Trainer

SCHEME_ALIASES = {
    "he": "kaiming_normal",
    "he_normal": "kaiming_normal",
    "he_uniform": "kaiming_uniform",
    "glorot": "xavier_uniform",
    "glorot_normal": "xavier_normal",
    "glorot_uniform": "xavier_uniform",
    "lecun": "lecun_normal",
}


def model_mistakes(model: Any, trainer: Any, budget: Any) -> list[str]:
    """Why this model, trainer and budget can't make a debugger."""
    mistakes = []
    modules = model.values() if isinstance(model, Mapping) else [model]
    strangers = [module for module in modules if not isinstance(module, nn.Module)]
    if strangers or not modules:
        mistakes.append(_no_module(strangers[0] if strangers else model))
    if not isinstance(trainer, Trainer):
        mistakes.append(
            f"the second argument must be an nbdebug.Trainer, not a {type(trainer).__name__}: "
            "Trainer(optimizer, loss_fn, train_loader)"
        )
    mistakes += budget_mistakes(budget)
    if mistakes:
        return mistakes
    if not named_parameters(model):
        return ["the model has no parameters, so there is nothing to train"]
    return list(trainer.mistakes_with(model))


def budget_mistakes(budget: Any) -> list[str]:
    """Why this is no share of step time."""
    if budget is None or (isinstance(budget, (int, float)) and not isinstance(budget, bool) and 0 < budget <= 1):
        return []
    return [f"budget={budget!r}: give a share of step time above 0, such as 0.05, or None for every step"]


def _no_module(thing: Any) -> str:
    if isinstance(thing, type):
        return f"model is the class {thing.__name__}: call it, as in {thing.__name__}()"
    return f"model must be a torch.nn.Module or a mapping of them, not a {type(thing).__name__}"


def extent_mistakes(epochs: Any, steps: Any, *, needed: bool = False) -> list[str]:
    """Why so many epochs or steps can't be trained."""
    mistakes = [
        f"{name}={value!r}: give a whole number of at least 1"
        for name, value in (("epochs", epochs), ("steps", steps))
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1)
    ]
    if needed and epochs is None and steps is None:
        mistakes.append("say how long: run(epochs=3) or run(steps=200); start() trains until stopped")
    return mistakes


def start_mistakes(start: Any, snapshots: Sequence[SnapshotInfo]) -> list[str]:
    """Why a rerun can't start there."""
    known = [str(point) for point in StartPoint]
    names = [info.name for info in snapshots]
    if isinstance(start, SnapshotInfo | os.PathLike) or (isinstance(start, Integral) and not isinstance(start, bool)):
        return []
    if isinstance(start, str) and start in (*known, *names):
        return []
    points = ", ".join(map(repr, known))
    near = difflib.get_close_matches(str(start), [*known, *names], 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return [f"start={start!r}: a rerun starts at one of {points}, a step's number, a snapshot or its name{hint}"]


def step_mistakes(step: Any) -> list[str]:
    """Why this is no step to go to."""
    if isinstance(step, Integral) and not isinstance(step, bool):
        return []
    return [f"step={step!r}: give the number of a step, or a negative number to go back by so many"]


def seed_mistakes(seed: Any) -> list[str]:
    """Why this is no seed."""
    if seed is None or (isinstance(seed, Integral) and not isinstance(seed, bool) and 0 <= int(seed) < 2**63):
        return []
    return [f"seed={seed!r}: give a whole number of at least 0"]


def scheme_mistakes(scheme: Any, seed: Any) -> list[str]:
    """Why this init scheme and seed can't be used."""
    mistakes = []
    known = [str(each) for each in InitScheme]
    if scheme not in known:
        near = SCHEME_ALIASES.get(str(scheme)) or next(iter(difflib.get_close_matches(str(scheme), known, 1)), None)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        mistakes.append(f"unknown init scheme {scheme!r}: {hint}")
    return [*mistakes, *seed_mistakes(seed)]


def layer_mistakes(layers: Any, known: Iterable[str]) -> list[str]:
    """Names that are no layer, each with its nearest; ``None`` means all layers."""
    if layers is None:
        return []
    if not isinstance(layers, (list, tuple, set)) or not layers:
        return [f"layers={layers!r}: give names of layers, or leave it out for all"]
    names = list(known)
    mistakes = []
    for layer in layers:
        if layer not in names:
            near = difflib.get_close_matches(str(layer), names, 1, 0.3)
            some = ", ".join(map(repr, names[:6])) + (" …" if len(names) > 6 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"those with weights are {some}"
            mistakes.append(f"no layer {layer!r}: {hint}")
    return mistakes
