"""Runs and branches: lines of training, each with its parent, where it left it, and what was changed there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """A line of training. A branch has a parent, the parent's step it starts after, and the change made there."""

    name: str
    parent: str | None = None
    step: int = 0
    change: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """An intervention, to be marked on the curves: what was done after ``step`` steps of ``run``."""

    run: str
    step: int
    text: str
