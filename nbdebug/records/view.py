"""What the dashboard draws: one consistent look at a debugger, pulled a few times a second. Data only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.commands import Outcome
from nbdebug.records.findings import Finding
from nbdebug.records.frames import Activations, Floats, GradientFlow
from nbdebug.records.runs import Mark, Run
from nbdebug.records.status import KnobStates, Status


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
class View:
    """Everything on the dashboard at one moment. ``status.run`` is the run that the model's weights belong to.

    ``gradients`` and ``activations`` are the latest measured, after ``gradients_step`` and ``activations_step`` steps.
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
