"""What became of remedies, program by program: records that go into a file and come back, and their tables. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.zoo.score import share, table

CLOSE = 0.05  # of the twin's loss
SLACK = 0.02  # of all that the twin's loss fell, for losses near 0


@dataclass(frozen=True)
class Tried:
    """A remedy, what the debugger said of it, and whether that was that it helped; ``why`` it could not be tried."""

    remedy: str
    verdict: str = ""
    helped: bool = False
    why: str = ""


@dataclass(frozen=True)
class Mended:
    """A faulty program: whether its cause was named, how many remedies are the debugger's, what came of them.

    ``loss`` is the mended run's at its end, ``twin`` the healthy twin's after as many steps, from ``twin_first``, both
    ``by`` validation or training. ``wrong`` are harmless changes that were tried in place of a remedy.
    """

    program: str
    seed: int
    cause: str
    family: str
    named: bool = False
    able: int = 0
    tried: tuple[Tried, ...] = ()
    loss: float = math.nan
    twin: float = math.nan
    twin_first: float = math.nan
    by: str = ""
    wrong: tuple[Tried, ...] = ()
    seconds: float = 0.0
    error: str = ""
    sources: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """By what it is known."""
        return self.program, self.seed

    @property
    def helped(self) -> bool:
        """Whether the debugger said of one of its remedies that it helps."""
        return any(each.helped for each in self.tried)

    @property
    def fixed(self) -> bool:
        """Whether it did: the loss is as low as the healthy twin's, or nearly."""
        slack = SLACK * abs(self.twin_first - self.twin)
        return self.helped and self.loss <= self.twin + CLOSE * abs(self.twin) + slack

    @property
    def why_not(self) -> str:
        """Why it is not mended, in words."""
        if self.helped:
            return f"ends at {self.loss:.3g}, the twin at {self.twin:.3g} ({self.by})"
        return "; ".join(f"{each.remedy} {each.why or each.verdict}" for each in self.tried) or "nothing was tried"


def save(made: Iterable[Mended], path: Path) -> None:
    """Write all, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps([asdict(each) for each in made], indent=0), encoding="utf-8")
    part.replace(path)


def load(path: Path) -> list[Mended]:
    """What :func:`save` wrote."""
    return [_mended(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def _mended(entry: dict[str, Any]) -> Mended:
    tried, wrong = (tuple(Tried(**each) for each in entry.pop(name)) for name in ("tried", "wrong"))
    return Mended(**entry, tried=tried, wrong=wrong)


def tables(made: Sequence[Mended]) -> str:
    """All tables, as Markdown."""
    parts = [
        ("Totals", _totals(made)),
        ("By cause", _by_cause(made)),
        ("Not mended", _unmended(made)),
        ("Harmless changes in place of a remedy", _wrong(made)),
        ("Could not be judged", _errors(made)),
    ]
    return "\n\n".join(["## Remedies", *(f"### {title}\n\n{text}" for title, text in parts)]) + "\n"


def _totals(made: Sequence[Mended]) -> str:
    able = [each for each in made if each.able]
    lines = [
        ["faulty programs", str(len(made))],
        ["cause named", share(sum(each.named for each in made), len(made))],
        ["… with a remedy that the debugger can do itself", str(len(able))],
        ["… a remedy is said to help", share(sum(each.helped for each in able), len(able))],
        ["… mended: the loss ends near the healthy twin's", share(sum(each.fixed for each in able), len(able))],
        ["… by the first remedy alone", share(sum(each.fixed and len(each.tried) == 1 for each in able), len(able))],
    ]
    return table(("", ""), lines)


def _by_cause(made: Sequence[Mended]) -> str:
    lines = []
    for cause in sorted({each.cause for each in made if each.able}):
        mine = [each for each in made if each.cause == cause and each.able]
        rungs = [next(place for place, each in enumerate(m.tried, 1) if each.helped) for m in mine if m.helped]
        helped, fixed = sum(each.helped for each in mine), sum(each.fixed for each in mine)
        lines.append([f"`{cause}`", len(mine), helped, fixed, ", ".join(map(str, sorted(rungs)))])
    return table(("cause", "programs", "said to help", "mended", "by which remedy"), lines)


def _unmended(made: Sequence[Mended]) -> str:
    lines = [
        [each.program, each.seed, f"`{each.cause}`", each.why_not.replace("|", "/")]
        for each in made
        if each.able and not each.fixed and not each.error
    ]
    return table(("program", "seed", "planted", "why"), lines) if lines else "None."


def _wrong(made: Sequence[Mended]) -> str:
    kinds = sorted({each.remedy for m in made for each in m.wrong})
    lines = [_wrong_line(kind, [e for m in made for e in m.wrong if e.remedy == kind]) for kind in kinds]
    lines.append(_wrong_line("all", [each for m in made for each in m.wrong]))
    return table(("change", "tried", "said to help", "could not be tried"), lines)


def _wrong_line(kind: str, tried: Sequence[Tried]) -> list[str]:
    told = [each for each in tried if not each.why]
    return [kind, str(len(told)), share(sum(each.helped for each in told), len(told)), str(len(tried) - len(told))]


def _errors(made: Sequence[Mended]) -> str:
    lines = [[each.program, each.seed, each.error.strip().splitlines()[-1]] for each in made if each.error]
    return table(("program", "seed", "error"), lines) if lines else "None."
