"""What is told of a snapshot: its place in the tree of runs, why it was taken, where it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a snapshot was taken."""

    START = "start"
    EPOCH = "epoch"
    SPACED = "every few steps"
    INTERVENTION = "before a change"
    OUTSIDE = "after a change from outside"
    LEFT = "when the model left the run"
    REQUEST = "on request"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """The state after ``step`` steps of ``run``. ``path`` is the file it lies in, empty while it is in memory.

    Pinned ones, the start, and the best of each run (lowest validation loss, or training loss without validation) are
    kept when room is made for others.
    """

    name: str
    run: str
    step: int
    epoch: int
    reason: Reason
    size_bytes: int
    path: str = ""
    pinned: bool = False
    best: bool = False
