"""What the session needs of other rooms, said as protocols: somebody who records, somebody who watches, a pacer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.records.commands import Outcome
from nbdebug.records.cost import Timing
from nbdebug.records.findings import Finding
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import Histograms, LayerValues, Unseen
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Intervention, Mark, Run
from nbdebug.records.signals import Series
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.stops import BatchView, Origin
from nbdebug.training.ledger import Parcel
from nbdebug.training.modules import Model
from nbdebug.training.steps import StepResult
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
        """A sampled step was taken, or an epoch validated."""

    def record_rows(self, rows: Rows) -> None:
        """Steps were taken; only their numbers."""

    def record_unseen(self, run: str, unseen: tuple[Unseen, ...]) -> None:
        """All that can't be looked at."""

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


class Investigator(Protocol):
    """Looks into a step that is taken again on the side. Called on the training thread."""

    def origin(
        self,
        rerun: Callable[[], Any],
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        batch: Any,
    ) -> Origin | None:
        """Where the first value came from that was not finite; ``rerun`` takes the step."""

    def batch_view(self, batch: Any, losses: Sequence[float] | None) -> BatchView | None:
        """A batch as the model sees it, ``losses`` by sample."""

    def sample_losses(self, loss_fn: Any, output: Any, target: Any) -> list[float] | None:
        """The loss of each sample, where it can be taken alone."""


class Examiner(Protocol):
    """Looks at the first steps of training for what is wrong with the program. Called on the training thread."""

    def wants(self) -> bool:
        """Whether the step that begins now should be looked at."""

    def watching(self, model: Model, batch: Any) -> AbstractContextManager[None]:
        """Within, that step is taken; what it raises is seen, and goes on."""

    def step_done(self, result: StepResult) -> None:
        """The step came to its end."""

    def findings(self, run: str, step: int, *, last: bool, rests: bool = False) -> Sequence[Finding]:
        """What is wrong, as far as it was not said before.

        ``last`` says that the epoch is over or its step failed, ``rests`` that training has come to its end, so that
        there is time.
        """


class SampleWatcher(Protocol):
    """Looks at a fixed set of samples as training goes. Called on the training thread, between two steps."""

    def epoch_ended(self) -> None:
        """An epoch is over, its validation made."""

    def stepped(self) -> None:
        """Steps were taken, and training goes on."""

    def most_steps(self) -> int | None:
        """After how many steps it wants to be asked at the latest; ``None`` if not before the end of the epoch."""


class Found(Protocol):
    """What a sampled step gave, on the host."""

    @property
    def scalars(self) -> dict[Series, float]:
        """Numbers of the whole model or a parameter group."""

    @property
    def layers(self) -> LayerValues | None:
        """Numbers by layer."""

    @property
    def histograms(self) -> tuple[Histograms, ...]:
        """Histograms by layer."""

    @property
    def unseen(self) -> tuple[Unseen, ...] | None:
        """What can't be looked at, where that changed."""


class Measurement(Protocol):
    """What a sampled step gave, perhaps still on its way from the device."""

    @property
    def parcel(self) -> Parcel | None:
        """What has to arrive before it can be read."""

    def read(self) -> Found:
        """The findings."""


class Watcher(GradientWatcher, Protocol):
    """Measures within a step. Called on the training thread."""

    @property
    def hook_seconds(self) -> float:
        """Time spent in module hooks during the present step."""

    def send(self, tensors: list[torch.Tensor]) -> Parcel:
        """Start bringing tensors to the host."""

    def watch(
        self,
        modules: Mapping[str, nn.Module],
        groups: Sequence[tuple[str, dict[str, Any]]],
        roots: Mapping[str, nn.Module],
        *,
        compiled_step: bool,
    ) -> None:
        """Look at these modules and (named) parameter groups from the next step on; ``roots`` are the networks.

        With a ``compiled_step``, modules are called within compiled code, where hooks would be compiled too.
        """

    def choose(self, probes: str | tuple[str, ...], layers: tuple[str, ...] | None) -> None:
        """Measure something else, from the next :meth:`watch` on."""

    def begin_step(self, step: int, *, sample: bool) -> None:
        """A step begins."""

    def model_done(self) -> None:
        """The user's step returned: no module hook may stay on while metrics run."""

    def end_step(self, timing: Timing, leftover: torch.Tensor | None) -> Measurement | None:
        """The step is over; ``leftover`` divides gradients that no update used, in half precision."""

    def abandon_step(self) -> None:
        """The step is over, or broke off: hold nothing of it any more."""


class Pacer(Protocol):
    """Decides which steps are sampled, so that all of watching takes no more than ``budget`` (``None``: every step)."""

    budget: float | None

    @property
    def share(self) -> float:
        """Share of the time that goes into watching."""

    def begin(self) -> None:
        """Training sets out, or goes on after a pause."""

    def wants_sample(self) -> bool:
        """Whether the step that begins now should be sampled."""

    def norm_every(self) -> int:
        """Every how many ordinary steps the norm of the gradients can be afforded; 1 or more."""

    def steps_done(
        self, steps: int, *, training_s: float, watching_s: float, norms: int, norm_s: float, sampled: bool
    ) -> None:
        """What so many steps took; ``norm_s`` of watching went into the gradients' norm, taken ``norms`` times.

        A sampled step stands alone.
        """
