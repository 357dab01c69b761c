"""Which memory holds values that are not finite, and what first made them so. Training thread only.

Memory rather than tensors: views, ``.data``, ``detach()`` and what autograd saved all share it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from nbdebug.records.stops import Phase, Range
from nbdebug.tools.origin_frames import Site, Spot
from nbdebug.tools.origin_values import Span, badness, dense, fills, readable, span, storage_key


@dataclass(frozen=True, slots=True)
class Maker:
    """The operation that last wrote some memory: torch's name of it, when, and where as far as that was looked up."""

    operation: str
    phase: Phase
    site: Site


@dataclass(slots=True)
class Cause:
    """Something that was not finite out of finite values, or before the step; the ``order`` is that of the step.

    ``wanted`` are infinities on purpose, such as those of a mask, ``reduced`` those that a sum or the like met.
    ``functional`` is the function of ``torch.nn.functional`` at work. ``makers`` are what made the inputs, by name of
    the argument, ``repeats`` how often the same line had done the same. ``bad_constant``: it was given a number that
    is not finite.
    """

    order: int
    phase: Phase
    kind: str
    operation: str
    wanted: bool = False
    reduced: bool = False
    module: str = ""
    module_type: str = ""
    source: str = ""
    spot: Spot | None = None
    inner: Spot | None = None
    functional: str = ""
    inputs: tuple[Range, ...] = ()
    parameters: tuple[Range, ...] = ()
    samples: tuple[int, ...] = ()
    makers: dict[str, str] = field(default_factory=dict)
    dtype: str = ""
    repeats: int = 0
    bad_constant: bool = False


@dataclass(slots=True)
class _Memory:
    alive: StorageWeakRef  # while it is held, no other memory gets the same key
    maker: Maker | None = None
    marks: list[tuple[Span, Cause]] = field(default_factory=list)


class Marks:
    """What is known of each storage that was seen in the step."""

    def __init__(self) -> None:
        self._memory: dict[int, _Memory] = {}

    def written(self, tensor: torch.Tensor, cause: Cause | None, maker: Maker) -> None:
        """An operation wrote the tensor; ``cause`` is why it is not finite, ``None`` where it is."""
        parts = dense(tensor)
        if parts is None:
            return
        memory = self._of(parts)
        extent = span(parts)
        memory.maker = maker
        if memory.marks and fills(parts, extent):
            memory.marks = [mark for mark in memory.marks if not _within(mark[0], extent)]
        if cause is not None:
            memory.marks.append((extent, cause))

    def known(self, tensor: torch.Tensor, cause: Cause) -> None:
        """The tensor was like that before it was read."""
        parts = dense(tensor)
        if parts is not None:
            self._of(parts).marks.append((span(parts), cause))

    def cause_of(self, tensor: torch.Tensor) -> Cause | None:
        """The first cause of what is not finite in the tensor; one on purpose only where there is no other."""
        parts = dense(tensor)
        memory = None if parts is None else self._memory.get(storage_key(parts))
        if parts is None or memory is None:
            return None
        extent = span(parts)
        causes = [cause for where, cause in memory.marks if where[0] < extent[1] and extent[0] < where[1]]
        return earliest(causes)

    def maker_of(self, tensor: torch.Tensor) -> Maker | None:
        """What last wrote its memory in this step."""
        parts = dense(tensor)
        memory = None if parts is None else self._memory.get(storage_key(parts))
        return None if memory is None else memory.maker

    def _of(self, tensor: torch.Tensor) -> _Memory:
        key = storage_key(tensor)
        if key not in self._memory:
            self._memory[key] = _Memory(StorageWeakRef(tensor.untyped_storage()))
        return self._memory[key]


def earliest(causes: list[Cause]) -> Cause | None:
    """The first in the step; one on purpose only where there is no other."""
    return min(causes, key=lambda cause: (cause.wanted, cause.order), default=None)


def unexplained(phase: Phase, kind: str) -> Cause:
    """What was made where no operation could be seen; later than all that was."""
    return Cause(sys.maxsize, phase, kind, "")


def bad_part(tensor: torch.Tensor) -> str:
    """``"nan"``, ``"inf"`` or empty, of any tensor at all."""
    values = readable(tensor)
    return "" if values is None else badness(values)


def _within(inner: Span, outer: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
