"""The ledger: numbers of ordinary steps on their way to the record, handed over in blocks. Training thread only.

What is on the host is written down at once and recorded within 50 ms. What is on a device is gathered there; its copy
to the host is started with the block and read when it has arrived, so that no step waits for the device. Frames of
sampled steps stand in the same queue: everything is recorded in the order of its steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from nbdebug.records.frames import Floats, Rows
from nbdebug.records.signals import Series, Signal

MOST_ROWS = 512
LATEST_S = 0.05
MOST_UNDER_WAY = 8
CLIP_RATE = Series(Signal.CLIP_RATE)
SKIPPED = Series(Signal.SKIPPED_UPDATES)
CLIP_WINDOW = 100

Value = float | torch.Tensor
Columns = tuple[Series, ...]


class Parcel(Protocol):
    """Tensors on their way to the host."""

    @property
    def ready(self) -> bool:
        """Whether they have arrived."""

    def arrays(self) -> list[Floats]:
        """The tensors as float64 arrays of their shapes; waits where they have not arrived."""


class RowRecorder(Protocol):
    """Who keeps the rows."""

    def record_rows(self, rows: Rows) -> None:
        """Steps were taken."""


Send = Callable[[list[torch.Tensor]], Parcel]


@dataclass(slots=True)
class Block:
    """Rows of the same series. ``late`` are the columns whose values lie on a device, by row in ``device``."""

    steps: list[int] = field(default_factory=list)
    values: list[Sequence[Any]] = field(default_factory=list)
    late: tuple[int, ...] = ()
    device: list[torch.Tensor] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    """What is to be recorded once its parcel is there."""

    parcel: Parcel | None
    record: Callable[[list[Floats]], None]


class Ledger:
    """Gathers rows of steps and hands them to the recorder.

    ``arrived(step, loss, skipped)`` hears of losses that were on a device, and whether a scaler left the update out.
    """

    def __init__(self, recorder: RowRecorder, send: Send, arrived: Callable[[int, float, bool], None]) -> None:
        self._recorder = recorder
        self._send = send
        self._arrived = arrived
        self._place: tuple[str, int] = ("", 0)
        self._blocks: dict[Columns, Block] = {}
        self._began_s = 0.0
        self._under_way: deque[_Waiting] = deque()
        self._clipped: deque[float] = deque(maxlen=CLIP_WINDOW)

    def add(self, run: str, epoch: int, step: int, series: Columns, values: Sequence[float]) -> None:
        """A step was taken: its values, one for each series; what is not always measured comes as a row of its own."""
        place = self._place
        if place[1] != epoch or place[0] != run:
            self._close_blocks()
            self._place = (run, epoch)
        block = self._blocks.get(series)
        if block is None or block.late:
            block = self._open(series)
        block.steps.append(step)
        block.values.append(values)

    def _open(self, series: Columns) -> Block:
        if series in self._blocks:
            self._close_blocks()
        if not self._blocks:
            self._began_s = time.perf_counter()
        block = self._blocks[series] = Block()
        return block

    def add_late(self, run: str, epoch: int, step: int, series: Columns, values: Sequence[Value]) -> None:
        """The same, where some values may be tensors of a device; they are copied there at once."""
        late = tuple(i for i, value in enumerate(values) if isinstance(value, torch.Tensor))
        if self._place != (run, epoch):
            self._close_blocks()
            self._place = (run, epoch)
        block = self._blocks.get(series)
        if block is None or block.late != late:
            block = self._open(series)
        if late:
            block.late = late
            block.device.append(_gathered([values[i] for i in late]))
        block.steps.append(step)
        block.values.append([0.0 if isinstance(value, torch.Tensor) else value for value in values])

    def turn_over(self, now: float) -> None:
        """After a step: hand over what has been gathered for long enough, record what has arrived."""
        if self._blocks and (
            now - self._began_s > LATEST_S or len(next(iter(self._blocks.values())).steps) >= MOST_ROWS
        ):
            self._close_blocks()
        if self._under_way:
            self._poll()

    def then(self, parcel: Parcel | None, record: Callable[[list[Floats]], None]) -> None:
        """Record something after the rows so far, once its parcel has arrived; at once where there is none."""
        self._close_blocks()
        self._under_way.append(_Waiting(parcel, record))
        self._poll()

    def settle(self) -> None:
        """Record everything, waiting for what is under way."""
        self._close_blocks()
        while self._under_way:
            self._deliver()

    def forget(self) -> None:
        """Another line of training begins: shares over the last steps start anew."""
        self._clipped.clear()

    def _poll(self) -> None:
        while self._under_way:
            first = self._under_way[0]
            if first.parcel is not None and not first.parcel.ready and len(self._under_way) <= MOST_UNDER_WAY:
                return
            self._deliver()

    def _deliver(self) -> None:
        waiting = self._under_way.popleft()
        waiting.record(waiting.parcel.arrays() if waiting.parcel is not None else [])

    def _close_blocks(self) -> None:
        blocks, self._blocks = self._blocks, {}
        run, epoch = self._place
        for series, block in blocks.items():
            steps, values = np.asarray(block.steps, dtype=np.int64), np.asarray(block.values, dtype=np.float64)
            rows = Rows(run, epoch, series, steps, values)
            if block.late:
                parcel = self._send([torch.stack(block.device)])
                self._under_way.append(_Waiting(parcel, self._late(rows, list(block.late))))
            elif self._under_way:
                self._under_way.append(_Waiting(None, self._late(rows, [])))
            else:
                self._record(rows)

    def _late(self, rows: Rows, columns: list[int]) -> Callable[[list[Floats]], None]:
        def record(arrays: list[Floats]) -> None:
            if columns:
                rows.values[:, columns] = arrays[0]
            self._record(rows)
            if columns and columns[0] == 0 and rows.series[0].signal is Signal.LOSS:
                skips = rows.values[:, rows.series.index(SKIPPED)] > 0 if SKIPPED in rows.series else rows.steps < 0
                for row in zip(rows.steps.tolist(), rows.values[:, 0].tolist(), skips.tolist(), strict=True):
                    self._arrived(*row)

        return record

    def _record(self, rows: Rows) -> None:
        if CLIP_RATE in rows.series:
            column = rows.values[:, rows.series.index(CLIP_RATE)]
            for row, flag in enumerate(column.tolist()):
                self._clipped.append(flag)
                column[row] = sum(self._clipped) / len(self._clipped)
        self._recorder.record_rows(rows)


def _gathered(values: Sequence[Any]) -> torch.Tensor:
    """Numbers of a device in one tensor there, ``(values,)``."""
    wide = torch.float32 if values[0].device.type == "mps" else torch.float64
    return torch.stack([value.detach().reshape(()).to(values[0].device, wide) for value in values])
