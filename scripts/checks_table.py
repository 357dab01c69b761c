"""Writes the table of causes in docs/checks.md from the checks themselves: ``python -m scripts.checks_table``."""

from __future__ import annotations

from pathlib import Path

from nbdebug.checks.live.registry import live_checks
from nbdebug.checks.preflight.registry import checks
from nbdebug.records.findings import Cause

PAGE = Path(__file__).resolve().parents[1] / "docs" / "checks.md"
BEGIN, END = "<!-- causes: begin -->", "<!-- causes: end -->"
EVENTS = frozenset(
    {
        *(Cause.EARLY_STOP, Cause.BREAKPOINT_DISABLED, Cause.CHECK_DISABLED, Cause.MODEL_EDITED, Cause.USER_ERROR),
        *(Cause.WATCHING_DISABLED, Cause.NOT_REPRODUCIBLE, Cause.SNAPSHOTS, Cause.JOURNAL),
    }
)
STOPS = "tool: [the finite check](stops.md)"
TOOLS = {
    Cause.NUMERICAL_INSTABILITY: STOPS,
    Cause.NAN_LOSS: STOPS,
    Cause.HALF_PRECISION_OVERFLOW: STOPS,
    Cause.NAN_IN_DATA: STOPS,
}


def rows() -> list[str]:
    """A line for each cause: how it is told, by which check."""
    found: dict[Cause, list[str]] = {cause: [] for cause in Cause if cause not in EVENTS}
    for check in checks():
        where = "first steps" if check.passive else "battery"
        for cause in (each for each in check.causes if each in found):
            found[cause].append(f"{where}: [{check.title}](../{_file(check.judge.__module__)})")
    for live in live_checks():
        for cause in live.causes:
            found[cause].append(f"live: [{live.title}](../{_file(live.judge.__module__)})")
    for cause, tool in TOOLS.items():
        found[cause].append(tool)
    return [f"| {cause} | {'; '.join(told) if told else 'later'} |" for cause, told in found.items()]


def _file(module: str) -> str:
    return module.replace(".", "/") + ".py"


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join(["| cause | told by |", "|---|---|", *rows()])
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> None:
    """Write it."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
