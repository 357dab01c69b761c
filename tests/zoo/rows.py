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
    """A finding: its cause, how much it matters, how sure it is, and whether it was live or before training."""

    cause: str
    severity: str
    confidence: float = 1.0
    title: str = ""
    live: bool = False

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
    """A program with one seed: what it is, and all that was said of it. ``error`` says that it could not be judged."""

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
