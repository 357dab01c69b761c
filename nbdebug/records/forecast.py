"""What the next step would be under a change, before it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nbdebug.records.commands import Changes
from nbdebug.records.frames import Floats


@dataclass(frozen=True)
class MemoryForecast:
    """What a step would take in memory with batches of ``batch_size``, from steps of ``now`` samples and of half.

    ``measured`` says of what this is the size. ``device_bytes`` is all that the device has, 0 where that is not known.
    """

    batch_size: int
    size_bytes: int
    now: int
    now_bytes: int
    measured: str
    device_bytes: int = 0

    def __str__(self) -> str:
        of = f" of {_size(self.device_bytes)}" if self.device_bytes else ""
        now = f"{_size(self.now_bytes)} with {self.now:,} now"
        about = f"about {_size(self.size_bytes)}{of}, {now} ({self.measured})"
        return f"memory with batches of {self.batch_size:,}: {about}"


@dataclass(frozen=True)
class Forecast:
    """The next step under ``changes`` and as things are now, taken on the side on the batch that then comes next.

    ``ratios`` and ``ratios_now`` ``(layers,)`` are ‖Δw‖ / ‖w‖ by layer (about 1e-3 is healthy), NaN where the weights
    are zero. ``loss`` is that of the batch, before the update. ``grad_norm`` is that before clipping, ``clipped`` the
    share of the last ``recent`` steps that the clipping threshold under ``changes`` would have clipped, NaN while
    clipping is off or no norm is on record. ``swap`` says which optimizer it is with, empty for the present one.
    ``now`` is in words what ``ratios_now`` is under. It is of the step after ``step`` of ``run``.
    """

    changes: Changes
    layers: tuple[str, ...]
    ratios: Floats
    ratios_now: Floats
    loss: float
    grad_norm: float
    clipped: float
    recent: int
    swap: str = ""
    memory: MemoryForecast | None = None
    run: str = "main"
    step: int = 0
    now: str = "now"

    @property
    def ratio(self) -> float:
        """The median over layers, NaN without any."""
        return _median(self.ratios)

    @property
    def ratio_now(self) -> float:
        """The median over layers as things are now."""
        return _median(self.ratios_now)

    @property
    def sentence(self) -> str:
        """In a line: ``next step: update : weight 3.1e-3 (now 1.0e-3), clips 40 % of the last 100 steps``."""
        same = np.array_equal(self.ratios, self.ratios_now, equal_nan=True)
        before = "" if same else f" ({self.now} {self.ratio_now:.1e})"
        clipped = (
            f", clips {100 * self.clipped:.0f} % of the last {self.recent} steps"
            if not math.isnan(self.clipped)
            else ""
        )
        return f"next step: update : weight {self.ratio:.1e}{before}, loss {self.loss:.4g}{clipped}"

    def __str__(self) -> str:
        shown = ", ".join(part for part in (self.swap, str(self.changes)) if part) or "as it is"
        lines = [f"next step under {shown}: loss {self.loss:.6g}, gradient norm {self.grad_norm:.4g}"]
        if not math.isnan(self.clipped):
            lines[0] += f"; {self.clipped:.0%} of the last {self.recent} steps would have been clipped"
        lines += [str(self.memory)] if self.memory is not None else []
        width = max((len(name) for name in self.layers), default=5)
        lines.append(f"{'layer':{width}}  update : weight    {self.now}")
        for name, ratio, now in zip(self.layers, self.ratios.tolist(), self.ratios_now.tolist(), strict=True):
            lines.append(f"{name:{width}}  {ratio:15.2e}  {now:.2e}")
        return "\n".join(lines)


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def _size(size_bytes: int) -> str:
    value, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
