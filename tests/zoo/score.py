"""Rows into tables: what of each cause was found, at which place, and where healthy programs were accused. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.zoo.rows import Row

CLEAN_KINDS = ("twin", "suspicious")


@dataclass(frozen=True)
class Tally:
    """Of some faulty runs: how many there are, and in how many the cause is named, first, among the first three."""

    planted: int = 0
    found: int = 0
    first: int = 0
    in_three: int = 0

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Tally:
        """Count faulty rows."""
        places = [row.place for row in rows]
        named = [place for place in places if place is not None]
        return cls(len(places), len(named), sum(place == 1 for place in named), sum(place <= 3 for place in named))


def faulty(rows: Iterable[Row]) -> list[Row]:
    """Those with a planted fault."""
    return [row for row in rows if row.cause]


def healthy(rows: Iterable[Row]) -> list[Row]:
    """Those without."""
    return [row for row in rows if not row.cause]


def accused(rows: Iterable[Row], cause: str = "", severity: str = "") -> list[Row]:
    """Healthy rows with a warning or worse: of this cause, or this severity, if given."""
    return [
        row
        for row in healthy(rows)
        if any(found.is_loud and cause in ("", found.cause) and severity in ("", found.severity) for found in row.found)
    ]


def by_cause(rows: Sequence[Row]) -> str:
    """The table of causes: planted, found, first, in three, and healthy programs accused of it."""
    causes = sorted({row.cause for row in faulty(rows)} | {cause for row in accused(rows) for cause in row.loud})
    lines = []
    for cause in causes:
        tally = Tally.of(row for row in rows if row.cause == cause)
        alarms = sorted({row.program for row in accused(rows, cause)})
        lines.append([f"`{cause}`", tally.planted, tally.found, tally.first, tally.in_three, _names(alarms)])
    return table(("cause", "planted", "found", "found first", "in the first three", "false alarms"), lines)


def totals(rows: Sequence[Row]) -> str:
    """The table of totals."""
    tally, clean = Tally.of(faulty(rows)), healthy(rows)
    beside = sum(len([c for c in row.loud if c != row.cause and c not in row.also]) for row in faulty(rows))
    seconds = sorted(row.preflight_seconds for row in rows if not row.error)
    lines = [
        ["faulty runs", str(tally.planted)],
        ["cause found", share(tally.found, tally.planted)],
        ["cause first", share(tally.first, tally.planted)],
        ["cause in the first three", share(tally.in_three, tally.planted)],
        ["other causes named beside it, per faulty run", f"{beside / max(1, tally.planted):.2f}"],
        ["healthy runs", str(len(clean))],
        ["… with any warning", share(len(accused(rows)), len(clean))],
        ["… with a critical one", share(len(accused(rows, severity="critical")), len(clean))],
        *([f"… {kind}, with any warning", _accused_of(rows, kind)] for kind in CLEAN_KINDS),
        ["could not be judged", str(sum(bool(row.error) for row in rows))],
        ["preflight: seconds, median and longest", f"{median(seconds):.1f}, {seconds[-1]:.1f}" if seconds else "–"],
    ]
    return table(("", ""), lines)


def _accused_of(rows: Sequence[Row], kind: str) -> str:
    of_kind = [row for row in rows if row.kind == kind]
    return share(len(accused(of_kind)), len(of_kind))


def misses(rows: Sequence[Row]) -> str:
    """What was said instead, of each faulty program whose cause was not named first."""
    lines = [
        [row.program, row.seed, f"`{row.cause}`", row.place or "–", ", ".join(row.loud) or "nothing"]
        for row in faulty(rows)
        if row.place != 1 and not row.error
    ]
    return table(("program", "seed", "planted", "place", "named"), lines) if lines else "None."


def errors(rows: Sequence[Row]) -> str:
    """Programs that could not be judged."""
    lines = [[row.program, row.seed, row.error.strip().splitlines()[-1]] for row in rows if row.error]
    return table(("program", "seed", "error"), lines) if lines else "None."


def by(rows: Sequence[Row], key: Callable[[Row], str], title: str) -> str:
    """Totals for each network family, or whatever ``key`` says."""
    lines = []
    for name in sorted({key(row) for row in rows}):
        mine = [row for row in rows if key(row) == name]
        tally = Tally.of(faulty(mine))
        lines.append(
            [name, tally.planted, tally.found, tally.first, tally.in_three, len(healthy(mine)), len(accused(mine))]
        )
    return table((title, "planted", "found", "found first", "in the first three", "healthy", "with a warning"), lines)


def slowest(rows: Sequence[Row], most: int = 5) -> str:
    """The checks that cost most, in seconds for a program."""
    spent: Counter[str] = Counter()
    for row in rows:
        for check in row.checks:
            spent[check.name] += check.seconds / len(rows)
    return table(("check", "seconds per program"), [[name, f"{each:.2f}"] for name, each in spent.most_common(most)])


def share(part: int, whole: int) -> str:
    """``3 of 4 (75 %)``."""
    return f"{part} of {whole} ({100 * part / whole:.1f} %)" if whole else "0 of 0"


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    rows = [list(map(str, head)), ["---"] * len(head), *([str(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if names else ""
