"""What the dashboard draws: one consistent look at a debugger, pulled a few times a second. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.commands import Outcome
from nbdebug.records.findings import Finding
from nbdebug.records.frames import Activations, Floats, GradientFlow
from nbdebug.records.runs import Mark, Run
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.status import KnobStates, Status

if TYPE_CHECKING:
    from nbdebug.records.comparison import Comparison


@dataclass(frozen=True, slots=True)
class Points:
    """A curve: steps and values of equal length, at most as many as a chart can show, no spike left out."""

    steps: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True, slots=True)
class RunView:
    """One run as drawn: its own steps only (a branch starts where it left its parent)."""

    run: Run
    train: Points
    smooth: Points
    val: Points
    metrics: tuple[tuple[str, float], ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Rewindable:
    """What the rewind slider covers: steps 0 to ``last`` of the run in the model and its parents.

    ``snapshots`` are the steps with one, growing; ``step_s`` is how long a replayed step takes, ``restore_s`` a
    restore, both 0 while unknown. ``blocked`` says why nothing can be rewound, empty when it can.
    """

    last: int = 0
    snapshots: tuple[int, ...] = ()
    step_s: float = 0.0
    restore_s: float = 0.0
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """Everything on the dashboard at one moment. ``status.run`` is the run that the model's weights belong to.

    ``gradients`` and ``activations`` are the latest measured, after ``gradients_step`` and ``activations_step`` steps.
    ``comparison`` is the latest one made; ``stored`` says that this is a journal from disk, which nothing can change.
    """

    status: Status
    knobs: KnobStates
    runs: tuple[RunView, ...]
    marks: tuple[Mark, ...]
    gradients: GradientFlow | None
    gradients_step: int
    activations: Activations | None
    activations_step: int
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    rewindable: Rewindable = field(default_factory=Rewindable)
    snapshots: tuple[SnapshotInfo, ...] = ()
    comparison: Comparison | None = None
    stored: bool = False
