"""What the session needs of other rooms, said as protocols: somebody who records, somebody who watches, a pacer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from nbdebug.records.commands import Outcome
from nbdebug.records.findings import Finding
from nbdebug.records.frames import Activations, Frame, GradientFlow
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Intervention, Mark, Run
from nbdebug.records.signals import Series
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.training.update import GradientWatcher


class Recorder(Protocol):
    """Keeps what happened. Called on the training thread."""

    def begin_run(self, run: Run) -> None:
        """A run exists from now on."""

    def edit_run(self, run: Run) -> None:
        """A run of that name got another title, note, pin or caveat."""

    def delete_run(self, name: str) -> None:
        """A run is to be forgotten."""

    def record(self, frame: Frame) -> None:
        """A step was taken, or an epoch validated."""

    def record_outcome(self, outcome: Outcome) -> None:
        """A command was applied or refused."""

    def record_finding(self, finding: Finding) -> None:
        """There is something to say."""

    def mark(self, mark: Mark) -> None:
        """An intervention, in words for the curves."""

    def record_intervention(self, intervention: Intervention) -> None:
        """The same, so that it can be done again."""

    def record_snapshots(self, snapshots: tuple[SnapshotInfo, ...]) -> None:
        """All snapshots that there are now."""

    def record_manifest(self, manifest: Manifest) -> None:
        """What a run is made of, before its first step."""


class Measurement(Protocol):
    """What one step gave, on the host."""

    @property
    def scalars(self) -> dict[Series, float]:
        """Numbers by series."""

    @property
    def gradients(self) -> GradientFlow | None:
        """Gradient flow, on sampled steps."""

    @property
    def activations(self) -> Activations | None:
        """Activation histograms, on sampled steps."""


class Watcher(GradientWatcher, Protocol):
    """Measures within a step. Called on the training thread."""

    @property
    def hook_seconds(self) -> float:
        """Time spent in module hooks during the present step."""

    def watch(self, modules: Mapping[str, nn.Module]) -> None:
        """Look at these modules from the next step on."""

    def begin_step(self, step: int, *, sample: bool) -> None:
        """A step begins."""

    def model_done(self) -> None:
        """The user's step returned: no module hook may stay on while metrics run."""

    def end_step(self, scalars: Mapping[Series, Any]) -> Measurement:
        """The step is over; bring ``scalars`` and all that was measured to the host."""

    def abandon_step(self) -> None:
        """The step broke off."""


class Pacer(Protocol):
    """Decides which steps are sampled."""

    @property
    def share(self) -> float:
        """Share of the time that goes into watching."""

    def begin(self) -> None:
        """Training sets out, or goes on after a pause."""

    def wants_sample(self) -> bool:
        """Whether the step that begins now should be sampled."""

    def step_done(self, *, training_s: float, watching_s: float, sampled: bool) -> None:
        """What the step took."""
