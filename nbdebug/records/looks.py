"""What a look at the model on the side came to: losses of one batch under other circumstances. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from nbdebug.records.frames import Floats

UNKNOWN = float("nan")


class Question(StrEnum):
    """What a check wants to see before it speaks."""

    MODES = "the loss in evaluation mode, beside training mode"
    INPUTS = "the loss with samples exchanged, and with nothing but zeros as input"
    TARGETS = "the loss with targets dealt anew"
    OUTPUTS = "the spread of outputs over samples"
    BATCH = "which batch it is"


@dataclass(frozen=True, slots=True)
class Looked:
    """Losses on one batch that was just trained on, after ``step``; NaN for what was not asked, or can't be had.

    ``training`` is with the modes of training, ``evaluating`` in evaluation mode. So are ``exchanged``, with each
    sample's input in the place of another's, ``zeroed``, with zeros as input, and how much outputs changed when
    samples were exchanged (``output_change``) or deviate over samples (``spread``), of their size. ``dealt`` are losses
    with each target at another sample, outputs being those of training mode. ``batch`` is a number by which the batch
    is known again, 0 where it was not asked for.
    """

    step: int
    samples: int
    training: float = UNKNOWN
    evaluating: float = UNKNOWN
    exchanged: float = UNKNOWN
    zeroed: float = UNKNOWN
    output_change: float = UNKNOWN
    spread: float = UNKNOWN
    batch: int = 0
    dealt: Floats = field(default_factory=lambda: np.zeros(0))
