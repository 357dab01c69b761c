"""What live checks judge by: curves of the whole model and of its layers, and facts that stay. Data only, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.frames import Floats
from nbdebug.records.looks import Looked
from nbdebug.records.signals import Signal


@dataclass(frozen=True, slots=True)
class Curve:
    """Numbers over steps, ``(n,)`` each; NaN and inf as they were. Long ones keep the extremes of every stretch."""

    steps: NDArray[np.int64]
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)

    def since(self, step: int) -> Curve:
        """What came after this step."""
        first = int(np.searchsorted(self.steps, step, side="right"))
        return Curve(self.steps[first:], self.values[first:])

    def last(self, count: int) -> Floats:
        """The latest values."""
        return self.values[-count:] if count else self.values[:0]


NOTHING = Curve(np.zeros(0, dtype=np.int64), np.zeros(0))


@dataclass(frozen=True, slots=True)
class Track:
    """A signal of all layers over sampled steps: ``low`` and ``high`` are ``(n, layers)``, NaN where not measured.

    A row is a stretch of steps that ends at ``steps[i]``; at first each is one step, and ``low`` equals ``high``.
    ``odd`` says where there was a value that was not finite.
    """

    layers: tuple[str, ...]
    steps: NDArray[np.int64]
    low: Floats
    high: Floats
    odd: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change from step to step. Zero or empty where it is not known.

    ``layers`` are those with parameters or activations, in the order of the model, each with its ``kinds`` (type).
    ``goal`` is the step at which the run ends. ``baseline`` is the loss of the best constant prediction, ``floor`` what
    memorising one batch reached in the checks before training. ``clip`` is the threshold in force (inf: none),
    ``optimizers`` their kinds, ``options`` those of the group that decays most, ``schedule`` the kind of schedule.
    ``widths`` are the units that layers with a weight matrix put out. ``asleep`` are dropouts, and norms with
    statistics that learn, that are in evaluation mode.
    """

    layers: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    epoch_length: int = 0
    goal: int = 0
    baseline: float = float("nan")
    floor: float = float("nan")
    clip: float = float("inf")
    clips_by: str = "off"
    optimizers: tuple[str, ...] = ()
    options: Mapping[str, float] = field(default_factory=dict)
    schedule: str = ""
    dropout: Mapping[str, float] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    asleep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """The run that the model holds, parents included, as far as step ``step``.

    ``curves`` go by the keys of ``debugger.history``, such as ``loss/train``; ``tracks`` by signal. ``changed`` are the
    steps at which somebody changed something; ``epoch_ends`` the last steps of epochs. ``looks`` were made at the model
    on the side, oldest first; ``refused`` says why none can be made.
    """

    run: str
    step: int
    epoch: int
    curves: Mapping[str, Curve]
    tracks: Mapping[Signal, Track]
    facts: Facts = field(default_factory=Facts)
    changed: tuple[int, ...] = ()
    epoch_ends: tuple[int, ...] = ()
    looks: tuple[Looked, ...] = ()
    refused: str = ""

    def curve(self, key: str) -> Curve:
        """A curve; empty if nothing was recorded under that key."""
        return self.curves.get(key, NOTHING)

    def track(self, signal: Signal) -> Track | None:
        """A signal of all layers; ``None`` if it was not measured."""
        found = self.tracks.get(signal)
        return found if found is not None and len(found) else None

    @property
    def loss(self) -> Curve:
        """The training loss of every step."""
        return self.curve("loss/train")

    @property
    def validation(self) -> Curve:
        """The validation loss at each epoch's end."""
        return self.curve("loss/val")

    @property
    def since_change(self) -> int:
        """The step of the last change by hand, 0 without any: what came before it is another story."""
        return self.changed[-1] if self.changed else 0
