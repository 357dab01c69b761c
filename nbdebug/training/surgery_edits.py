"""What a change to a live model is made of: settings and plans; applied, undone, put back. Training thread.

A slot is one place in the tree that can hold one thing or another: a child, a parameter, an attribute, a class, a
flag. A plan says what each slot is to hold; nothing is copied, so that what comes back is the object that was there.
:class:`Originals` remembers what each slot held before its first change, and a :class:`Structure` what differs from
that: both as large as the changes, not as the model. Values (weights, gradients) are for snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from nbdebug.records.errors import CommandError
from nbdebug.training.surgery_slots import ABSENT, Learning, Mode, Slot


@dataclass(frozen=True, slots=True)
class Setting:
    """What a slot holds now and is to hold; ``place`` is its dotted name."""

    slot: Slot
    place: str
    before: Any
    after: Any


class Rewrite(Protocol):
    """Parameters written with other values, computed when a plan is applied."""

    def run(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Write them in place; each one's parameter with a copy of what it was."""


@dataclass(frozen=True, slots=True)
class Change:
    """One layer's change. ``places`` are all names under which the layer hangs, ``notes`` what to know about it.

    ``added`` are the parameters that should learn from now on, so that an optimizer that lacks them has to take them
    in; ``removed`` those that leave the model, ``rewritten`` those that get other values; all by dotted name.
    ``stopped`` are all that lose their gradient, which an optimizer would otherwise go on applying.
    """

    layer: str
    places: tuple[str, ...]
    text: str
    settings: tuple[Setting, ...]
    rewrites: tuple[Rewrite, ...] = ()
    notes: tuple[str, ...] = ()
    added: tuple[tuple[str, nn.Parameter], ...] = ()
    removed: tuple[tuple[str, nn.Parameter], ...] = ()
    rewritten: tuple[tuple[str, nn.Parameter], ...] = ()
    stopped: tuple[nn.Parameter, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be done, in the model's order, and what is refused: each layer's name with the reason."""

    changes: tuple[Change, ...]
    refused: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def parameters_added(self) -> dict[str, nn.Parameter]:
        """Those that should learn from now on, by name, in the model's order."""
        return {name: parameter for change in self.changes for name, parameter in change.added}

    @property
    def parameters_removed(self) -> dict[str, nn.Parameter]:
        """Those that are no longer in the model, by the name that they had."""
        return {name: parameter for change in self.changes for name, parameter in change.removed}

    @property
    def parameters_rewritten(self) -> dict[str, nn.Parameter]:
        """Those with other values: what an optimizer remembers of them no longer fits."""
        return {name: parameter for change in self.changes for name, parameter in change.rewritten}

    @property
    def settings(self) -> Iterator[Setting]:
        """Of all changes, in order."""
        return (setting for change in self.changes for setting in change.settings)


@dataclass(frozen=True)
class Originals:
    """What each slot held before its first change, with its dotted name. One per model, for as long as it trains."""

    values: dict[Slot, tuple[str, Any]] = field(default_factory=dict)

    def note(self, setting: Setting) -> None:
        """The first time counts."""
        self.values.setdefault(setting.slot, (setting.place, setting.before))


@dataclass(frozen=True)
class Applied:
    """A plan that was carried out, with the values and gradients that undoing it puts back."""

    plan: Plan
    values: tuple[tuple[nn.Parameter, torch.Tensor], ...]
    gradients: tuple[tuple[nn.Parameter, torch.Tensor], ...]


@dataclass(frozen=True)
class Structure:
    """How a tree differs from the original: what each changed slot holds. Goes with a snapshot of that moment."""

    originals: Originals
    values: dict[Slot, Any]

    @property
    def lines(self) -> tuple[str, ...]:
        """The differences in words."""
        known = self.originals.values
        return tuple(f"{known[slot][0]}: {_named(v)}, was {_named(known[slot][1])}" for slot, v in self.values.items())


def apply(plan: Plan, originals: Originals | None = None) -> Applied:
    """Carry a plan out, at a safe point. All or nothing.

    Raises:
        CommandError: the model was changed since the plan was made; nothing is done.
    """
    for setting in plan.settings:
        if setting.slot.get() is not setting.before:
            raise CommandError(f"can't change {setting.place}: it is another since this was planned; plan again")
    _set_all([(setting.slot, setting.after) for setting in plan.settings])
    if originals is not None:
        for setting in plan.settings:
            originals.note(setting)
    with torch.no_grad():
        values = [pair for change in plan.changes for rewrite in change.rewrites for pair in rewrite.run()]
    stopped = dict.fromkeys(parameter for change in plan.changes for parameter in change.stopped)
    gradients = [(parameter, parameter.grad) for parameter in stopped if parameter.grad is not None]
    for parameter, _ in gradients:
        parameter.grad = None
    return Applied(plan, tuple(values), tuple(gradients))


def undo(applied: Applied) -> None:
    """Put back every object, rewritten value and dropped gradient. What was learnt since in rewritten ones is lost.

    Raises:
        CommandError: something was changed again since, or this was undone already; nothing is done.
    """
    settings = list(applied.plan.settings)
    for setting in settings:
        if setting.slot.get() is not setting.after:
            raise CommandError(f"can't undo the change of {setting.place}: it was changed again since; undo that first")
    _set_all([(setting.slot, setting.before) for setting in reversed(settings)])
    with torch.no_grad():
        for parameter, value in reversed(applied.values):
            parameter.copy_(value)
    for parameter, gradient in applied.gradients:
        if parameter.grad is None:
            parameter.grad = gradient


def capture(originals: Originals) -> Structure:
    """What differs now from the original. As quick as there are changes."""
    present = ((slot, slot.get(), original) for slot, (_, original) in originals.values.items())
    return Structure(originals, {slot: value for slot, value, original in present if value is not original})


def restore(structure: Structure) -> bool:
    """Put that structure back, the same objects as then; whether anything had to be done. Before a snapshot's values.

    Slots first changed after the capture get what they held originally.
    """
    targets = {slot: original for slot, (_, original) in structure.originals.values.items()} | structure.values
    moves = [(slot, value) for slot, value in targets.items() if slot.get() is not value]
    _set_all(sorted(moves, key=lambda move: isinstance(move[0], (Learning, Mode))))
    return bool(moves)


def _set_all(moves: Iterable[tuple[Slot, Any]]) -> None:
    """All of them, or none where one fails."""
    done: list[tuple[Slot, Any]] = []
    try:
        for slot, value in moves:
            done.append((slot, slot.get()))
            slot.set(value)
    except BaseException:
        for slot, value in reversed(done[:-1]):
            slot.set(value)
        raise


def _named(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    if isinstance(value, (nn.Module, nn.Parameter)):
        return type(value).__name__
    return getattr(value, "__name__", None) or str(value)
