"""Gradient accumulation in the built-in step: one update for every few batches, by the mean of their losses.

A group of batches begins with cleared gradients, and ends with the update. It may begin in one epoch and end in the
next. Its size is what was asked for when it began: another one counts from the next group on. Training thread.
"""

from __future__ import annotations

from typing import Any


class Accumulation:
    """``every`` batches are asked for; of the ``size`` of the group under way, ``done`` are in the gradients."""

    def __init__(self, every: int = 1, size: int = 1, done: int = 0) -> None:
        self.every = every
        self.size = size
        self.done = done

    def begin(self) -> bool:
        """Before a batch: whether it is the first of its group, and gradients have to be cleared."""
        if self.done == 0:
            self.size = self.every
        return self.done == 0

    def backward(self, loss: Any) -> bool:
        """Add this batch's share to the gradients; whether the group is complete, and the update due.

        Where that breaks off, gradients are left half done: the next batch begins a group.
        """
        done, self.done = self.done + 1, 0
        (loss if self.size == 1 else loss / self.size).backward()
        self.done = done % self.size
        return self.done == 0
