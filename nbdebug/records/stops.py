"""Where and why training stopped within a step: breakpoints, the origin of a value that is not finite, the batch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.frames import Floats


class Phase(StrEnum):
    """The part of a step: what was there before it, or one of the things done in it."""

    BEFORE = "before the step"
    FORWARD = "forward"
    BACKWARD = "backward"
    CLIPPING = "clipping"
    OPTIMIZER = "optimizer"


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A line of somebody's code; ``file`` as Python names it, ``code`` its text without indentation, if known."""

    file: str
    line: int
    function: str
    code: str


@dataclass(frozen=True, slots=True)
class Range:
    """What the values of a tensor were: the finite ones' extremes (NaN without any), and how many were special."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    zeros: int
    nans: int
    infs: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the first value that was not finite came from, among those that reached the loss, a gradient or a weight.

    ``kind`` is ``"nan"`` or ``"inf"``. ``module`` is the innermost module at work, by dotted name: empty for the
    model itself or outside of all; ``path`` leads there, from the outermost, each by dotted name. ``operation`` is
    torch's name of what made it, such as ``"sqrt"``; ``source`` names the tensor where it was there before the step,
    such as ``"fc1.weight"`` or ``"batch[0]"``. ``line`` is the user's line: of the forward call where it
    happened in the backward; then ``inner_line`` is that of the user's own backward code, if any. ``inputs`` are what
    the operation worked on, ``parameters`` those of the module and its buffers. ``samples`` are indices in the batch.
    ``advice`` names the stable form, where there is one.
    """

    phase: Phase
    kind: str
    operation: str
    module: str = ""
    module_type: str = ""
    path: tuple[str, ...] = ()
    source: str = ""
    line: CodeLine | None = None
    inner_line: CodeLine | None = None
    inputs: tuple[Range, ...] = ()
    parameters: tuple[Range, ...] = ()
    samples: tuple[int, ...] = ()
    advice: str = ""


class BreakKind(StrEnum):
    """By what a breakpoint is hit."""

    STEP = "step"
    EPOCH = "epoch"
    CONDITION = "condition"
    CALLABLE = "callable"
    FINDING = "finding"


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """One breakpoint as it stands. ``text`` is its condition, or what it waits for in words.

    ``before_update`` says whether training stops within the step, before the weights change, or after it. ``note``
    says why it was disabled, or that its condition can't be judged or is always true.
    """

    number: int
    kind: BreakKind
    text: str
    before_update: bool
    enabled: bool = True
    hits: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class BatchView:
    """Samples of a batch as the model gets them, those with the highest loss first.

    ``kind`` is ``"pictures"`` (``pictures`` ``(n, height, width, 3)``, 0 to 255), ``"table"`` or ``"sequence"``
    (``rows`` ``(n, columns)``, named by ``columns``), or ``"other"``. ``samples`` ``(n,)`` are indices in the batch,
    ``losses`` ``(n,)`` theirs where the loss could be taken sample by sample, ``targets`` in words. ``summary`` says
    in a line what the batch is, such as ``"input (64, 3, 32, 32) float32, −2.1 to 2.6"``.
    """

    kind: str
    summary: tuple[str, ...]
    samples: tuple[int, ...]
    targets: tuple[str, ...]
    losses: Floats | None = None
    pictures: NDArray[np.uint8] | None = None
    rows: Floats | None = None
    columns: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Halt:
    """Training stopped at ``step`` of ``run``, within it (``before_update``) or right after it, and why.

    ``breakpoint`` is the number of the one that was hit, 0 where something was not finite. ``loss`` is that step's,
    NaN while unknown.
    """

    run: str
    step: int
    before_update: bool
    why: str
    breakpoint: int = 0
    loss: float = float("nan")
    origin: Origin | None = None
    batch: BatchView | None = None
