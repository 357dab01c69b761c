"""Runs and branches: lines of training, each with its parent, where it left it, and what was changed there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nbdebug.records.commands import Refit, Reinitialize, SetKnobs, Skip


class RunKind(StrEnum):
    """Why a run was made: to train, or to measure how much other random numbers alone change (see ``compare``)."""

    TRAINING = "training"
    NOISE = "noise"


@dataclass(frozen=True, slots=True)
class Run:
    """A line of training. A branch has a parent, the parent's step it starts after, and the change made there.

    ``name`` never changes and is unique; ``title`` is what the person calls it, empty until they do. ``seed`` is what
    the random numbers were seeded with at its start, ``None`` when they went on. ``caveat`` says in what a comparison
    with its parent limps, such as ``"other batches"``. ``created_s`` is Unix time.
    """

    name: str
    parent: str | None = None
    step: int = 0
    change: str = ""
    kind: RunKind = RunKind.TRAINING
    seed: int | None = None
    title: str = ""
    note: str = ""
    pinned: bool = False
    caveat: str = ""
    created_s: float = 0.0

    @property
    def shown(self) -> str:
        """What the person reads: the title they gave, else the name."""
        return self.title or self.name


@dataclass(frozen=True, slots=True)
class Mark:
    """An intervention, to be marked on the curves: what was done after ``step`` steps of ``run``."""

    run: str
    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Reseed:
    """Random numbers went on from a state set from outside, such as by ``torch.manual_seed`` before a run."""

    seed: int


@dataclass(frozen=True, slots=True)
class OutsideEdit:
    """Somebody changed the model or optimizer by hand between two steps; this can't be done again."""

    what: str


Change = SetKnobs | Reinitialize | Refit | Skip | Reseed | OutsideEdit


@dataclass(frozen=True, slots=True)
class Intervention:
    """What changed a run's course, after ``step`` steps of it, ``epoch`` epochs being finished then."""

    run: str
    step: int
    epoch: int
    change: Change
