"""Breakpoints of a session: what was asked for, what it is judged on, and when. Training thread, but for reading.

A condition is judged when the last of what it reads is known: before the update where that is step, epoch, learning
rate and the norm of the gradients; after the step for its loss and metrics; after a sampled step for what is known of
layers; after a validation for its numbers.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Protocol

import torch

from nbdebug.records.commands import AddBreakpoint
from nbdebug.records.errors import CommandError
from nbdebug.records.findings import Severity
from nbdebug.records.layers import LayerValues
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.stops import BreakKind, Breakpoint

Key = tuple[str, str]
EVERY_LAYER = "*"
ALWAYS = 5  # times in a row that a condition held, and nothing else
RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
KNOWN_BEFORE = ("step", "epoch", "lr", "grad_norm")
ALWAYS_HELD = "it held every time that it was judged"


class Reading(Protocol):
    """Something that a condition reads."""

    @property
    def name(self) -> str:
        """The signal's name."""

    @property
    def layer(self) -> str:
        """Of which layer: empty for none, ``*`` for all."""


class Condition(Protocol):
    """A condition that was understood."""

    @property
    def readings(self) -> frozenset[Any]:
        """All that it reads."""

    @property
    def longest_window(self) -> Mapping[Any, int]:
        """How many earlier values of each it needs."""

    def judge(self, values: Mapping[Any, Any], past: Mapping[Any, Sequence[float]]) -> bool | None:
        """Whether it holds; ``None`` while something is missing."""


class Moment(IntEnum):
    """When something is known of a step, in order."""

    UPDATE = 0
    STEP = 1
    SAMPLE = 2
    EVALUATION = 3


@dataclass
class Armed:
    """A breakpoint and what judges it."""

    told: Breakpoint
    moment: Moment
    condition: Condition | None = None
    function: Callable[[Mapping[str, float]], Any] | None = None
    at: int = 0
    severity: Severity | None = None
    judged: int = 0
    in_a_row: int = 0


@dataclass
class _Track:
    """The latest values of one reading, each with its step."""

    values: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=2))


class Breaks:
    """All breakpoints. ``understand(text)`` makes a condition, ``on_broken(breakpoint, traceback)`` hears of one that
    raised. ``version`` changes with every change.
    """

    def __init__(
        self,
        understand: Callable[[str], Condition],
        on_broken: Callable[[Breakpoint, str], None],
        *,
        optimizers: int,
    ) -> None:
        self.pending: tuple[Breakpoint, str] | None = None
        self._understand = understand
        self._on_broken = on_broken
        self._one_optimizer = optimizers == 1
        self._armed: dict[int, Armed] = {}
        self._next = 1
        self._latest: dict[str, float] = {}
        self._layers: dict[Key, float] = {}
        self._every_layer: dict[str, dict[str, float]] = {}
        self._tracks: dict[Key, _Track] = {}
        self._passed = -1
        self._spent = -1

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def told(self) -> tuple[Breakpoint, ...]:
        """All of them as they stand. Any thread."""
        return tuple(armed.told for armed in list(self._armed.values()))

    @property
    def any(self) -> bool:
        """Whether a step has to be looked at for one."""
        return any(armed.told.enabled for armed in self._armed.values())

    @property
    def need_norm(self) -> bool:
        """Whether one of them reads the norm of the gradients."""
        return any(
            armed.function is not None
            or (armed.condition is not None and any(r.name == "grad_norm" for r in armed.condition.readings))
            for armed in self._armed.values()
            if armed.told.enabled
        )

    def add(self, command: AddBreakpoint, function: Callable[..., Any] | None = None) -> Breakpoint:
        """One more.

        Raises:
            ConfigurationError: its condition can't be understood.
        """
        if function is not None:
            name = getattr(function, "__name__", type(function).__name__)
            return self._keep(BreakKind.CALLABLE, f"{name}(...)", Moment.STEP, function=function)
        if command.condition:
            condition = self._understand(command.condition)
            return self._keep(
                BreakKind.CONDITION, command.condition.strip(), self._moment_of(condition), condition=condition
            )
        if command.step is not None:
            return self._keep(BreakKind.STEP, f"step {command.step:,}", Moment.UPDATE, at=command.step)
        if command.epoch is not None:
            text = f"end of epoch {command.epoch:,}"
            return self._keep(BreakKind.EPOCH, text, Moment.EVALUATION, at=command.epoch)
        severity = Severity(command.severity)
        text = "any finding" if severity is Severity.INFO else f"a finding: {severity}"
        text += " or critical" if severity is Severity.WARNING else ""
        return self._keep(BreakKind.FINDING, text, Moment.STEP, severity=severity)

    def remove(self, number: int) -> None:
        """Take one away.

        Raises:
            CommandError: there is none of that number.
        """
        self._named(number)
        del self._armed[number]

    def enable(self, number: int, enabled: bool) -> None:
        """Switch one on or off.

        Raises:
            CommandError: there is none of that number.
        """
        armed = self._named(number)
        armed.in_a_row = 0
        self._tell(armed, enabled=enabled, note="")

    def _named(self, number: int) -> Armed:
        if number not in self._armed:
            known = ", ".join(map(str, self._armed)) or "none"
            raise CommandError(f"there is no breakpoint {number}: there are {known}")
        return self._armed[number]

    def _keep(self, kind: BreakKind, text: str, moment: Moment, **judge: Any) -> Breakpoint:
        number, self._next = self._next, self._next + 1
        told = Breakpoint(number, kind, text, before_update=moment is Moment.UPDATE)
        armed = self._armed[number] = Armed(told, moment, **judge)
        for reading in armed.condition.readings if armed.condition is not None else ():
            window = armed.condition.longest_window.get(reading, 0) if armed.condition is not None else 0
            track = self._tracks.setdefault((reading.name, reading.layer), _Track())
            if window + 1 > (track.values.maxlen or 0):
                track.values = deque(track.values, maxlen=window + 1)
        return told

    def _moment_of(self, condition: Condition) -> Moment:
        return max(self._known_at(reading) for reading in condition.readings)

    def _known_at(self, reading: Reading) -> Moment:
        if reading.layer:
            return Moment.SAMPLE
        if reading.name in KNOWN_BEFORE and (reading.name != "grad_norm" or self._one_optimizer):
            return Moment.UPDATE
        return Moment.EVALUATION if reading.name.startswith("val_") else Moment.STEP

    def _tell(self, armed: Armed, **changes: Any) -> None:
        armed.told = replace(armed.told, **changes)

    # -- judging ------------------------------------------------------------------------------------------------

    def pass_over(self, step: int) -> None:
        """Training goes on from a stop within this step: nothing stops it there again."""
        self._passed = step

    def spend(self, step: int) -> None:
        """The batch of this step was left out: a stop at its number was had."""
        self._spent = step

    def before_update(self, step: int, epoch: int, lr: float, norm: torch.Tensor | None) -> Breakpoint | None:
        """The one that is hit right before a step's first update."""
        self._know(step, {"step": step, "epoch": epoch, "lr": lr})
        if norm is not None:
            self._know(step, {"grad_norm": float(norm)})
        hit = None if step == self._passed else self._judge(Moment.UPDATE, step)
        self._passed = -1
        self._spent = self._spent if step == self._spent else -1
        return hit

    def after_step(self, step: int, epoch: int, values: Mapping[Series, Any]) -> Breakpoint | None:
        """The one that is hit by what a step gave; of several the first."""
        self._know(step, {"step": step, "epoch": epoch})
        self._know(step, {_name_of(series): float(value) for series, value in values.items()})
        return self._judge(Moment.STEP, step)

    def after_sample(self, step: int, layers: LayerValues | None) -> Breakpoint | None:
        """The one that is hit by what was measured of the layers."""
        wanted = {key for key in self._tracks if key[1]}
        if layers is None or not wanted:
            return None
        for name, layer in wanted:
            values, names = self._of_layers(layers, name)
            if layer == EVERY_LAYER:
                self._every_layer[name] = dict(zip(names, values, strict=True))
            elif layer in names:
                self._note((name, layer), step, values[names.index(layer)])
                self._layers[name, layer] = values[names.index(layer)]
        return self._judge(Moment.SAMPLE, step)

    def after_epoch(self, step: int, epoch: int, values: Mapping[Series, float]) -> Breakpoint | None:
        """The one that is hit by a validation, or by the epoch's end."""
        self._know(step, {"step": step, "epoch": epoch})
        self._know(step, {_name_of(series): value for series, value in values.items()})
        return self._judge(Moment.EVALUATION, step)

    def found(self, severity: Severity, title: str) -> None:
        """Something was found; the next safe point is a stop where that was asked for."""
        for armed in self._armed.values():
            if armed.severity is not None and armed.told.enabled and RANK[severity] >= RANK[armed.severity]:
                self._count(armed)
                self.pending = (armed.told, title)

    def _know(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._latest[name] = value
            self._note((name, ""), step, value)

    def _note(self, key: Key, step: int, value: float) -> None:
        track = self._tracks.get(key)
        if track is None:
            return
        while track.values and track.values[-1][0] >= step:  # taken again after going back
            track.values.pop()
        track.values.append((step, value))

    @staticmethod
    def _of_layers(layers: LayerValues, name: str) -> tuple[list[float], list[str]]:
        signal = next((signal for signal in layers.signals if signal == name), None)
        if signal is None:
            return [], []
        values, present = layers.of(signal)
        kept = [(float(v), layer) for v, layer, there in zip(values, layers.layers, present, strict=True) if there]
        return [value for value, _ in kept], [layer for _, layer in kept]

    def _judge(self, moment: Moment, step: int) -> Breakpoint | None:
        due = [armed for armed in list(self._armed.values()) if armed.moment is moment and armed.told.enabled]
        hit = [armed for armed in due if self._holds(armed, step)]
        for armed in hit:
            self._count(armed)
        return hit[0].told if hit else None

    def _holds(self, armed: Armed, step: int) -> bool:
        match armed.told.kind:
            case BreakKind.STEP:
                return step == armed.at != self._spent
            case BreakKind.EPOCH:
                return self._latest.get("epoch") == armed.at
            case BreakKind.CONDITION:
                return self._condition_holds(armed)
            case BreakKind.CALLABLE:
                return self._function_holds(armed)
        return False

    def _condition_holds(self, armed: Armed) -> bool:
        condition = armed.condition
        assert condition is not None
        values: dict[Any, Any] = {}
        past: dict[Any, list[float]] = {}
        for reading in condition.readings:
            if reading.layer == EVERY_LAYER:
                of_layers = self._every_layer.get(reading.name, {})
                values.update({replace(reading, layer=layer): value for layer, value in of_layers.items()})
                continue
            present = (
                self._layers.get((reading.name, reading.layer)) if reading.layer else self._latest.get(reading.name)
            )
            if present is not None:
                values[reading] = present
                past[reading] = [value for _, value in self._tracks[reading.name, reading.layer].values][:-1]
        return self._verdict(armed, lambda: condition.judge(values, past))

    def _function_holds(self, armed: Armed) -> bool:
        function = armed.function
        assert function is not None
        return self._verdict(armed, lambda: function(dict(self._latest)))

    def _verdict(self, armed: Armed, judge: Callable[[], Any]) -> bool:
        try:
            held = judge()
            held = None if held is None else bool(held)
        except Exception:  # the user's function may raise anything; training goes on without it
            self._tell(armed, enabled=False, note="it raised an error and was disabled")
            self._on_broken(armed.told, traceback.format_exc())
            return False
        if held is None:
            return False
        armed.judged += 1
        armed.in_a_row = armed.in_a_row + 1 if held else 0
        always = armed.in_a_row >= ALWAYS and armed.in_a_row == armed.judged
        if always or armed.told.note == ALWAYS_HELD:
            self._tell(armed, note=ALWAYS_HELD if always else "")
        return held

    def _count(self, armed: Armed) -> None:
        self._tell(armed, hits=armed.told.hits + 1)


def _name_of(series: Series) -> str:
    """The name by which conditions read it."""
    name = series.name if series.signal is Signal.METRIC else str(series.signal)
    if series.signal is not Signal.METRIC and series.name:
        name = series.text
    return f"val_{name}" if series.split is Split.VAL else name


def readable_names(metrics: Sequence[str]) -> tuple[str, ...]:
    """What conditions may read of a step and of a validation."""
    step = ("step", "epoch", "loss", "grad_norm", "lr", "updates", *metrics)
    return (*step, "val_loss", *(f"val_{name}" for name in metrics))
