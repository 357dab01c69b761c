"""What is kept of one program's judgement: plain records that go into a JSON file and come back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOUD = ("warning", "critical")
QUIET = frozenset({"too_few_samples"})  # told as information only, since the program itself is sound


@dataclass(frozen=True)
class Found:
    """A finding: its cause, how much it matters, and how sure its rule is of it, before that is calibrated.

    ``live`` says that it was told as training went, first at ``step``; else before training. ``gone`` says that it was
    no longer found at the end of the run. Without a ``source`` it is an event, which no rule is behind.
    """

    cause: str
    severity: str
    confidence: float = 1.0
    title: str = ""
    live: bool = False
    step: int = 0
    gone: bool = False
    source: str = "rule"

    @property
    def is_loud(self) -> bool:
        """Whether it is more than information."""
        return self.severity in LOUD


@dataclass(frozen=True)
class Measured:
    """A value beside the parameter it is held against; speaks for a fault ``above`` the threshold, or below it."""

    name: str
    value: float
    parameter: str = ""
    threshold: float | None = None
    above: bool = True


@dataclass(frozen=True)
class Checked:
    """A check: what it came to, what it measured, and the causes it named as a warning or worse."""

    name: str
    outcome: str
    seconds: float = 0.0
    measured: tuple[Measured, ...] = ()
    causes: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Row:
    """A program with one seed: what it is, and all that was said of it. ``error`` says that it could not be judged.

    ``live_steps`` are those that it was trained, ``broke`` the first of them with a loss that is not finite, 0 without
    one; ``mode`` says how far it was to be trained, ``settled`` that this was as far as its loss fell.
    """

    program: str
    seed: int
    kind: str
    cause: str
    family: str
    also: tuple[str, ...] = ()
    found: tuple[Found, ...] = ()
    checks: tuple[Checked, ...] = ()
    preflight_seconds: float = 0.0
    seconds: float = 0.0
    live_steps: int = 0
    error: str = ""
    sources: str = ""
    broke: int = 0
    mode: str = ""
    settled: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """By what it is known."""
        return self.program, self.seed

    @property
    def loud(self) -> tuple[str, ...]:
        """The causes named as a warning or worse, in their order, each once."""
        return tuple(dict.fromkeys(found.cause for found in self.found if found.is_loud))

    @property
    def place(self) -> int | None:
        """At which place the planted cause is named, from 1 on, leaving out those that are right beside it."""
        told = self.loud
        if self.cause in QUIET:
            told = tuple(
                dict.fromkeys(found.cause for found in self.found if found.is_loud or found.cause == self.cause)
            )
        named = [cause for cause in told if cause not in self.also]
        return named.index(self.cause) + 1 if self.cause in named else None

    @property
    def alarm(self) -> Found | None:
        """The finding that names the planted cause, or one that is right beside it, first; loud ones before others."""
        right = [each for each in self.found if self.cause and each.cause in (self.cause, *self.also)]
        loud = [each for each in right if each.is_loud]
        quiet = [each for each in right if self.cause in QUIET]
        return min(loud or quiet, key=lambda each: each.step if each.live else -1, default=None)


def save(rows: Iterable[Row], path: Path) -> None:
    """Write all rows, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps([asdict(row) for row in rows], indent=0), encoding="utf-8")
    part.replace(path)


def load(path: Path) -> list[Row]:
    """The rows that :func:`save` wrote."""
    return [_row(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def _row(entry: dict[str, Any]) -> Row:
    found = tuple(Found(**each) for each in entry.pop("found"))
    checks = tuple(_checked(each) for each in entry.pop("checks"))
    return Row(**{**entry, "also": tuple(entry["also"]), "found": found, "checks": checks})


def _checked(entry: dict[str, Any]) -> Checked:
    measured = tuple(Measured(**each) for each in entry.pop("measured"))
    return Checked(**{**entry, "measured": measured, "causes": tuple(entry["causes"])})
