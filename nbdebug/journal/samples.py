"""Layer records of sampled steps: what stays of two when room is short, and a look at all that a run holds. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from nbdebug.journal.series import Thinned
from nbdebug.records.frames import Activations, GradientFlow


class SampleKind(StrEnum):
    """What a layer record is of."""

    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"


@dataclass(frozen=True)
class Samples:
    """A run's layer records of one kind as they are now, one per slot, and the latest as it was."""

    run: str
    kind: SampleKind
    steps: list[int]
    records: list[Any]
    latest: Any
    latest_step: int

    @staticmethod
    def of(run: str, kind: SampleKind, kept: Thinned[Any]) -> Samples:
        """A copy of what is kept; the records themselves never change."""
        return Samples(run, kind, list(kept.steps), list(kept.records), kept.latest, kept.latest_step)


Sampler = Callable[[str], list[Samples]]


def peaks(older: GradientFlow, newer: GradientFlow) -> GradientFlow:
    """The larger of each; NaN stays NaN. A model that changed its layers has nothing to compare."""
    if older.layers != newer.layers:
        return newer
    return replace(
        newer,
        mean=np.maximum(older.mean, newer.mean),
        max=np.maximum(older.max, newer.max),
        clipped_mean=np.maximum(older.clipped_mean, newer.clipped_mean),
        clipped_max=np.maximum(older.clipped_max, newer.clipped_max),
    )


def latter(older: Activations, newer: Activations) -> Activations:
    """The newer one: histograms with other limits can't be put together."""
    return newer


COMBINE: dict[SampleKind, Callable[[Any, Any], Any]] = {SampleKind.GRADIENTS: peaks, SampleKind.ACTIVATIONS: latter}
RECORD_OF: dict[SampleKind, type[Any]] = {SampleKind.GRADIENTS: GradientFlow, SampleKind.ACTIVATIONS: Activations}
