"""Live checks on the run under way: puts their windows together, and paces them. Training thread, between steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from nbdebug.checks.courses import told
from nbdebug.checks.live.registry import wanted_curves, wanted_signals
from nbdebug.checks.live.watch import Watch, is_due
from nbdebug.checks.live.window import Curve, Facts, Track, Window
from nbdebug.checks.parameters import Parameters
from nbdebug.checks.preflight.battery import disabled
from nbdebug.checks.preflight.onlooker import NoOnlooker, Onlooker
from nbdebug.debugger_looks import Looks
from nbdebug.journal.history import SIGNALS, History, Values
from nbdebug.journal.journal import Journal
from nbdebug.records.checks import CheckResult
from nbdebug.records.findings import Cause, Finding
from nbdebug.records.signals import Signal
from nbdebug.records.view import Focus, Tracks
from nbdebug.training.modules import Model, named_modules
from nbdebug.training.session import Session
from nbdebug.training.steps import StepResult

MOST_POINTS = 1_000
SHARE = 0.005  # of the time, that judging may take
FEWEST_STEPS = 5  # since the last judgement, for one at an epoch's end
SETTLED_STEPS = 50  # from here on what is still on its way from the device is waited for no more


class LiveExaminer:
    """The session's examiner: the onlooker on the first steps, and live checks from then on."""

    def __init__(
        self,
        onlooker: Onlooker | NoOnlooker,
        journal: Callable[[], Journal],
        session: Callable[[], Session],
        parameters: Callable[[], Parameters],
        ignored: Callable[[], frozenset[Cause]],
    ) -> None:
        self.watch = Watch()
        self._onlooker = onlooker
        self._journal = journal
        self._session = session
        self._parameters = parameters
        self._ignored = ignored
        self._looks = Looks(session)
        self._judged = 0
        self._next_s = 0.0
        self._broken = False
        self._unhurried = False
        self._run = ""

    def wants(self) -> bool:
        """Whether the step that begins now should be looked at."""
        return self._onlooker.wants()

    def watching(self, model: Model, batch: Any) -> AbstractContextManager[None]:
        """Within, that step is taken."""
        return self._onlooker.watching(model, batch)

    def step_done(self, result: StepResult) -> None:
        """The step came to its end."""
        self._onlooker.step_done(result)

    def results(self, run: str) -> tuple[CheckResult, ...]:
        """What the latest judgement on this run came to; empty without one."""
        return self.watch.results if self._run == run else ()

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Within, judgements are made whenever they are due, however long they take."""
        self._unhurried, self._next_s = True, 0.0
        try:
            yield
        finally:
            self._unhurried = False

    def findings(self, run: str, step: int, *, last: bool, rests: bool = False) -> Sequence[Finding]:
        """What is wrong, as far as it was not said before."""
        found = self._onlooker.findings(run, step, last=last)
        if self._broken:
            return found
        if run != self._run or step < self._judged:
            self._run, self._judged = run, min(step, self._judged)
        due = any(is_due(each) for each in range(self._judged + 1, step + 1))
        if not due and not ((last or rests) and step >= self._judged + FEWEST_STEPS):
            return found
        began = time.perf_counter()
        if step > SETTLED_STEPS and began < self._next_s and not rests:
            return found
        self._judged = step
        try:
            found = [*found, *self._judge(run, step)]
        except Exception as error:  # a model may answer anything; nobody judges any more, and training goes on
            self._broken = True
            found = [*found, disabled("judging the run as it trains", error, run, step)]
        ended = time.perf_counter()
        self._next_s = ended + (0.0 if self._unhurried else (ended - began) / SHARE)
        return found

    def _judge(self, run: str, step: int) -> list[Finding]:
        session = self._session()
        if not session.stepper.heeds:
            return []
        if step <= SETTLED_STEPS:
            session.stepper.ledger.settle()
        journal = self._journal()
        window = window_of(journal, run, step, session.loop.epoch, facts_of(session, self._onlooker.baseline))
        if run != self.watch.run:
            standing = [each for each in told(journal.told, journal.lineage(run)).standing if each.check]
            self.watch.begin(run, standing, step=journal.runs[run].step)
        if step > SETTLED_STEPS:  # from here on it is held to its share of the time
            window = self._looks.confirmed(self.watch.checks, window, self._parameters())
        found = self.watch.judge(window, self._parameters())
        for gone in self.watch.gone:
            journal.record_gone(gone)
        return [each for each in found if each.cause not in self._ignored()]


def window_of(journal: Journal, run: str, step: int, epoch: int, facts: Facts) -> Window:
    """What was recorded of a run as far as this step, as the live checks need it."""
    history = History(journal, lambda: run)
    heads = [key.removesuffix("/*") for key in wanted_curves() if key.endswith("/*")]
    of_data = tuple(Signal(head) for head in heads if head in SIGNALS)
    found = journal.layers_view(run, Focus(tracks=wanted_signals() + of_data)).tracks
    keys = [key for key in _kept_curves(journal, run) if _is_wanted(key, heads)]
    keys += [f"{each.signal}/{name}" for each in found if each.signal in of_data for name in each.layers]
    curves = {key: _curve(history, key, step) for key in keys}
    tracks = {each.signal: _track(each, step) for each in found if each.signal not in of_data}
    changed = sorted({mark.step for mark in journal.marks if mark.run == run and mark.step <= step})
    ends = curves["loss/val"].steps if "loss/val" in curves else np.zeros(0, dtype=np.int64)
    return Window(run, step, epoch, curves, tracks, facts, tuple(changed), tuple(int(each) for each in ends))


def _kept_curves(journal: Journal, run: str) -> list[str]:
    """The curves of the whole model: few, however many layers there are."""
    kept = (journal.read(name, lambda record: [series.text for series in record.curves]) for name, _ in
            journal.lineage(run))  # fmt: skip
    return list(dict.fromkeys(key for keys in kept for key in keys))


def _is_wanted(key: str, heads: Sequence[str]) -> bool:
    """Whether a check asked for it: by its name, or with ``/*`` by that of its signal."""
    return key in wanted_curves() or key.partition("/")[0] in heads


def _curve(history: History, key: str, step: int) -> Curve:
    found: Values = history.window(key, 0, step, MOST_POINTS)
    return Curve(found.steps, found.values)


def _track(tracks: Tracks, step: int) -> Track:
    """As far as this step."""
    end = int(np.searchsorted(tracks.steps, step, side="right"))
    return Track(tracks.layers, tracks.steps[:end], tracks.low[:end], tracks.high[:end], tracks.odd[:end])


def facts_of(session: Session, baseline: float) -> Facts:
    """What is known of a run besides its numbers."""
    knobs, trainer, goal = session.knobs, session.trainer, session.goal
    modules = named_modules(session.model)
    length = session.loop.cursor.batches or 0
    steps = goal.step if goal.step is not None else (goal.epoch or 0) * length
    clips = str(knobs.clip.mode)
    return Facts(
        layers=tuple(modules),
        kinds={name: type(module).__name__ for name, module in modules.items()},
        epoch_length=length,
        goal=steps,
        baseline=baseline,
        clip=knobs.clip.threshold if clips != "off" else math.inf,
        clips_by=clips,
        optimizers=tuple(type(each).__name__ for each in trainer.optimizers.values()),
        options=_options(session),
        schedule=", ".join(type(each).__name__ for each in trainer.schedulers.values()),
        dropout={name: p for name, module in modules.items() if isinstance(p := _dropout(module), float)},
        frozen=tuple(name for name, module in modules.items() if _is_frozen(module)),
        widths={name: width for name, module in modules.items() if isinstance(width := _width(module), int)},
        asleep=tuple(name for name, module in modules.items() if _is_asleep(module)),
    )


def _options(session: Session) -> dict[str, float]:
    """The numbers of the first optimizer's group that decays most, the first of them where none does."""
    for optimizer in session.trainer.optimizers.values():
        numbers = [
            {key: float(value) for key, value in group.items() if isinstance(value, (int, float))}
            for group in optimizer.param_groups
        ]
        return max(numbers, key=lambda group: group.get("weight_decay", 0.0), default={})
    return {}


def _dropout(module: Any) -> Any:
    """A dropout layer's probability."""
    return vars(module).get("p") if isinstance(module, _DropoutNd) else None


def _width(module: Any) -> Any:
    """Units that a linear layer or a convolution puts out."""
    return vars(module).get("out_features") or vars(module).get("out_channels")


def _is_asleep(module: Any) -> bool:
    """Whether it would do something else in training mode: a dropout, or a norm with statistics, not frozen."""
    if module.training or _is_frozen(module):
        return False
    drops = vars(module).get("p") if isinstance(module, _DropoutNd) else 0.0
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        drops = vars(module).get("dropout")
    return bool(drops) or (isinstance(module, _NormBase) and module.running_mean is not None)


def _is_frozen(module: Any) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)
