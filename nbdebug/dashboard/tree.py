"""The tree of runs as it is shown: order, guide lines, colours, and which runs the loss chart draws.

The legend remembers colours and choices from one picture to the next; it belongs to the drawing thread. The rest is
pure. Noise runs are never drawn and have no colour: they are counted beside the run that they came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from nbdebug.dashboard import theme
from nbdebug.records.runs import RunKind
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.view import RunView, View

MOST_DRAWN = 12
MOST_CHOSEN = 24


class Guide(StrEnum):
    """A piece of the lines before a branch's name: beside an elder's subtree, nothing, a sibling to come, the last."""

    THROUGH = "through"
    BLANK = "blank"
    TEE = "tee"
    ELBOW = "elbow"


@dataclass(frozen=True, slots=True)
class Branch:
    """A run in its place in the tree, and how many reruns under other seeds came from it."""

    run: RunView
    guides: tuple[Guide, ...]
    noise: int


def training(runs: Sequence[RunView]) -> list[RunView]:
    """The runs that are no measurements of noise, oldest first."""
    return [run for run in runs if run.run.kind is not RunKind.NOISE]


def snapshots(view: View) -> list[SnapshotInfo]:
    """The snapshots of the runs that are no measurements of noise, in their order."""
    noise = {run.run.name for run in view.runs if run.run.kind is RunKind.NOISE}
    return [each for each in view.snapshots if each.run not in noise]


def named(runs: Sequence[RunView], called: str) -> RunView | None:
    """The run of this name, else that of this title: a comparison keeps what a run was called when it was made."""
    titled = (run for run in runs if called and run.run.title == called)
    return next((run for run in runs if run.run.name == called), None) or next(titled, None)


def shown(view: View, called: str) -> str:
    """What the person reads for a run: its title, else its name; as it was called, if it is gone."""
    run = named(view.runs, called)
    return run.run.shown if run is not None else called


def ordered(runs: Sequence[RunView]) -> list[Branch]:
    """Every training run after its parent; of several branches, or of runs without a parent, the latest first."""
    listed = training(runs)
    known = {run.run.name for run in listed}
    noise = Counter(run.run.parent for run in runs if run.run.kind is RunKind.NOISE)
    children: dict[str | None, list[RunView]] = {}
    for run in reversed(listed):
        children.setdefault(run.run.parent if run.run.parent in known else None, []).append(run)
    found: list[Branch] = []
    waiting: list[tuple[RunView, tuple[Guide, ...]]] = [(run, ()) for run in reversed(children.get(None, []))]
    while waiting:
        run, guides = waiting.pop()
        found.append(Branch(run, guides, noise[run.run.name]))
        below = children.get(run.run.name, [])
        waiting += [(child, (*_onward(guides), _piece(child, below))) for child in reversed(below)]
    return found


def _piece(child: RunView, siblings: Sequence[RunView]) -> Guide:
    return Guide.ELBOW if child is siblings[-1] else Guide.TEE


def _onward(guides: tuple[Guide, ...]) -> tuple[Guide, ...]:
    """What stands before a run's children: its own guides, the last one without its turn."""
    if not guides:
        return ()
    return (*guides[:-1], Guide.THROUGH if guides[-1] is Guide.TEE else Guide.BLANK)


class Legend:
    """Colours by run, kept when other runs are deleted, and the runs that a person switched on or off.

    ``choices`` is a new mapping after each choice, so that whoever keeps a drawing sees that it is an old one.
    """

    def __init__(self) -> None:
        self.choices: Mapping[str, bool] = MappingProxyType({})
        self._colours: dict[str, int] = {}

    def choose(self, run: str, drawn: bool) -> None:
        """Draw a run, or don't."""
        self.choices = MappingProxyType({**self.choices, run: drawn})

    def tones(self, runs: Sequence[RunView]) -> dict[str, str]:
        """The name of each training run's colour; a new run gets the colour that is used least."""
        present = [run.run.name for run in training(runs)]
        self._colours = {name: self._colours[name] for name in present if name in self._colours}
        for name in present:
            if name not in self._colours:
                used = Counter(self._colours.values())
                self._colours[name] = min(range(len(theme.RUNS)), key=lambda index: (used[index], index))
        return {name: theme.run_tone(index) for name, index in self._colours.items()}

    def drawn(self, view: View) -> list[RunView]:
        """The runs to draw, oldest first: what the person chose, and of the rest the first, the model's, the latest."""
        runs = training(view.runs)
        room = MOST_DRAWN - sum(self.choices.get(run.run.name, False) for run in runs)
        free = [run.run.name for run in runs if run.run.name not in self.choices]
        ranked = sorted(free[::-1], key=lambda name: name not in (free[0], view.status.run))
        kept = set(ranked[: max(room, 0)]) | {name for name, drawn in self.choices.items() if drawn}
        return [run for run in runs if run.run.name in kept][-MOST_CHOSEN:]
