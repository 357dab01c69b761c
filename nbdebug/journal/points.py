"""Rows of points: stretches of a curve as bytes, how small ones become large ones, and how they are thinned. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.series import Curve
from nbdebug.records.frames import Floats

Steps = NDArray[np.int64]
FIRST_WIDTH = 8  # two points in eight steps, with their steps: the first width that takes less room than every value


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive points of a curve; ``width`` is that of the buckets whose extremes they are, 1 for every value."""

    steps: Steps
    values: Floats
    width: int = 1


def packed(stretch: Stretch) -> tuple[int, bytes | None, bytes]:
    """First step, steps, values. Steps are left out where they are consecutive, else offsets of 4 bytes if they fit."""
    steps, values = stretch.steps, np.asarray(stretch.values, "<f8").tobytes()
    first = int(steps[0])
    if np.array_equal(steps, np.arange(first, first + len(steps))):
        return first, None, values
    kind = "<u4" if int(steps.min()) - first >= 0 and int(steps.max()) - first < 1 << 32 else "<i8"
    return first, (steps - first).astype(kind).tobytes(), values


def unpacked(first: int, steps: bytes | None, values: bytes, width: int) -> Stretch:
    """The stretch that :func:`packed` was given. Raises ``ValueError`` when the lengths do not fit."""
    numbers = np.frombuffer(values, "<f8").astype(np.float64)
    if steps is None:
        return Stretch(np.arange(first, first + len(numbers), dtype=np.int64), numbers, width)
    offsets = np.frombuffer(steps, "<u4" if len(steps) < len(values) else "<i8").astype(np.int64)
    if len(offsets) != len(numbers):
        raise ValueError(f"{len(offsets)} steps for {len(numbers)} values")
    return Stretch(offsets + first, numbers, width)


def joined(stretches: list[Stretch]) -> Stretch:
    """One stretch of several, in their order."""
    return Stretch(
        np.concatenate([stretch.steps for stretch in stretches]),
        np.concatenate([stretch.values for stretch in stretches]),
        max(stretch.width for stretch in stretches),
    )


def thinned(stretch: Stretch) -> Stretch:
    """Twice as wide buckets, of each the extremes and the first value that is not finite; the last point stays."""
    width = max(FIRST_WIDTH, stretch.width * 2)
    curve = Curve(len(stretch.steps) + 1, width)
    curve.extend(stretch.steps, stretch.values)
    points = curve.points()
    steps, values = points.steps, points.values
    if steps[-1] != stretch.steps[-1]:
        steps, values = np.append(steps, stretch.steps[-1]), np.append(values, stretch.values[-1])
    return Stretch(steps, values, width)
