"""What became of findings along a run: found, gone, back. From what is on record alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from nbdebug.records.findings import Cause, Course, Finding, Gone, Spell

Leg = tuple[str, int | None]  # a run, and its last step that counts (None: all)

# What befell the debugger: it is so whatever the model is put back to.
OF_NO_RUN = frozenset(
    {
        *(Cause.BREAKPOINT_DISABLED, Cause.CHECK_DISABLED, Cause.WATCHING_DISABLED, Cause.NOT_REPRODUCIBLE),
        *(Cause.SNAPSHOTS, Cause.JOURNAL, Cause.MODEL_EDITED, Cause.USER_ERROR, Cause.EARLY_STOP),
    }
)


@dataclass(slots=True)
class _Held:
    """A cause along the way: its spells, who finds it now, and what they told of it in the present spell."""

    spells: list[Spell] = field(default_factory=list)
    told: dict[str, list[Finding]] = field(default_factory=dict)
    latest: Finding | None = None

    def found(self, finding: Finding) -> None:
        """Told by somebody: the first of them begins a spell, and what one says anew takes the place of the old."""
        self.latest = finding
        if not self.told:
            self.spells.append(Spell(finding.run, finding.since))
        same = [each for each in self.told.get(finding.by, ()) if (each.run, each.step) == (finding.run, finding.step)]
        self.told[finding.by] = [*same, finding]

    def gone(self, gone: Gone) -> None:
        """Found no more by one of them: the last of them ends the spell."""
        if self.told.pop(gone.by, None) is not None and not self.told:
            self.spells[-1] = replace(self.spells[-1], last=gone.last_step, gone=gone.step, gone_run=gone.run)


@dataclass(frozen=True, slots=True)
class Told:
    """What was found along a run: ``courses`` of all of it, oldest first, and what is ``standing``, not yet ranked."""

    courses: tuple[Course, ...] = ()
    standing: tuple[Finding, ...] = ()

    def standing_of(self, checks: Iterable[str]) -> frozenset[tuple[str, Cause]]:
        """Which of these live checks finds what, as far as it was told."""
        names = set(checks)
        return frozenset((each.check, each.cause) for each in self.standing if each.check in names)


def told(events: Sequence[Finding | Gone], legs: Sequence[Leg]) -> Told:
    """What was found along ``legs``, the runs that lead to one, oldest first; ``events`` in the order of the record.

    A branch has what its parent had found before they parted, and nothing that the parent found later. What merely
    happened, without a check behind it, stands for itself each time.
    """
    held: dict[Cause | int, _Held] = {}
    for place, event in enumerate(_along(events, legs)):
        if isinstance(event, Finding):
            held.setdefault(event.cause if event.by else place, _Held()).found(event)
        elif event.cause in held:
            held[event.cause].gone(event)
    courses = [Course(each.latest, tuple(each.spells)) for each in held.values() if each.latest is not None]
    standing = [finding for each in held.values() for found in each.told.values() for finding in found]
    return Told(tuple(courses), tuple(standing))


def _along(events: Sequence[Finding | Gone], legs: Sequence[Leg]) -> list[Finding | Gone]:
    """Leg by leg: a parent may have been trained on after the branch was."""
    runs = {run for run, _ in legs}
    chosen: list[Finding | Gone] = [
        each for each in events if isinstance(each, Finding) and each.cause in OF_NO_RUN and each.run not in runs
    ]
    for run, last in legs:
        chosen += [
            each for each in events
            if each.run == run and (last is None or each.step <= last or _is_of_no_run(each))
        ]  # fmt: skip
    return chosen


def _is_of_no_run(event: Finding | Gone) -> bool:
    return isinstance(event, Finding) and event.cause in OF_NO_RUN
