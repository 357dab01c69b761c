"""A session with all instruments and a recorder that keeps everything, without dashboard and journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from nbdebug.checks.preflight.onlooker import NoOnlooker
from nbdebug.debugger_probes import module_probes
from nbdebug.debugger_stops import Investigator, reader_of_conditions
from nbdebug.probes.governor import Governor
from nbdebug.probes.instruments import Instruments
from nbdebug.records.commands import Start
from nbdebug.records.findings import Finding
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import Histograms, Unseen
from nbdebug.records.signals import Series, Signal
from nbdebug.training.session import Session
from nbdebug.training.shelf import Shelf
from nbdebug.training.trainer import Trainer


@dataclass
class Recorder:
    """Keeps what a session tells; what is not asked for here is let through."""

    frames: list[Frame] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unseen: tuple[Unseen, ...] = ()
    marks: list[Any] = field(default_factory=list)

    def record(self, frame: Frame) -> None:
        self.frames.append(frame)

    def record_rows(self, rows: Rows) -> None:
        self.rows.append(rows)

    def record_finding(self, finding: Finding) -> None:
        self.findings.append(finding)

    def record_unseen(self, run: str, unseen: tuple[Unseen, ...]) -> None:
        self.unseen = unseen

    def mark(self, mark: Any) -> None:
        self.marks.append(mark)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def series(self, signal: Signal, name: str = "", split: Any = None) -> dict[int, float]:
        """A curve's values by step."""
        wanted, found = Series(signal, name, split), {}
        for rows in self.rows:
            if wanted in rows.series:
                column = rows.values[:, rows.series.index(wanted)]
                found.update(zip(rows.steps.tolist(), column.tolist(), strict=True))
        for frame in self.frames:
            found.update((frame.step, value) for series, value in frame.scalars if series == wanted)
        return found

    def layer(self, signal: Signal, layer: str) -> dict[int, float]:
        """A layer's values by step, where they were measured."""
        found = {}
        for frame in self.frames:
            if frame.layers is not None and layer in frame.layers.layers:
                values, present = frame.layers.of(signal)
                at = frame.layers.layers.index(layer)
                if present[at]:
                    found[frame.step] = float(values[at])
        return found

    def histogram(self, signal: Signal, frame: int = -1) -> Histograms:
        return next(each for each in self.frames[frame].histograms if each.signal is signal)


@dataclass
class Watched:
    session: Session
    recorder: Recorder
    instruments: Instruments
    governor: Governor
    broken: list[str]

    def run(self, steps: int) -> None:
        outcome = self.session.post(Start(None, steps)).wait()
        assert outcome is not None and outcome.ok, outcome
        self.session.wait(lambda _: self.session.at_rest, 120)
        if self.session.failure is not None:
            raise AssertionError(self.session.failure.traceback)


def watched(
    model: Any, trainer: Trainer, *, probes: Any = "deep", layers: Any = None, budget: float | None = None
) -> Watched:
    """A session that samples every step unless a budget says otherwise; close ``.session`` at the end."""
    recorder, governor, broken = Recorder(), Governor(budget), []
    instruments = Instruments(lambda name, text: broken.append(text), module_probes, probes=probes, layers=layers)
    shelf = Shelf(1 << 28, folder=lambda: None, spill=False, complain=lambda why: None)
    understand = reader_of_conditions(model, trainer)
    session = Session(
        model, trainer, recorder, instruments, governor, shelf, lambda run: None, Investigator(), understand,
        NoOnlooker(),
    )  # fmt: skip
    return Watched(session, recorder, instruments, governor, broken)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 96), nn.Tanh(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 5))


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-12)
