"""Random walks over the tree of runs: wherever training passed, going back finds the very same state.

Each walk trains, changes, edits, rewinds, branches, checks out, takes and drops snapshots at random. What the model was
like after each step is noted while it trains, and held against what comes back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nbdebug import CommandError, Debugger
from nbdebug.records.runs import OutsideEdit
from tests.training.setups import Setup
from tests.training.test_going_back import made_with
from tests.training.test_time_travel import assert_same, everything

REFUSED_WITH_REASON = (
    "can't be done again",
    "no room",
    "is the start",
    "came from it",
    "the model holds it",
    "first step",
)
Where = tuple[str, int]


class Walk:
    """A debugger, what is known of its past, and the dice."""

    def __init__(self, setup: Setup, debugger: Debugger, seed: int) -> None:
        self.setup, self.debugger, self.dice = setup, debugger, random.Random(seed)
        self.truth: dict[Where, dict[str, Any]] = {}
        self.moves: list[Callable[[], None]] = [
            self.train, self.train, self.train, self.change, self.rewind, self.rewind, self.rerun, self.check_out,
            self.snapshot, self.drop, self.edit, self.seed, self.redraw,
        ]  # fmt: skip

    def go(self, moves: int) -> None:
        self.train()
        for _ in range(moves):
            try:
                self.dice.choice(self.moves)()
            except CommandError as error:
                assert any(reason in str(error) for reason in REFUSED_WITH_REASON), str(error)
        assert [finding.title for finding in self.debugger.findings if "otherwise" in finding.title] == []

    def note(self) -> None:
        """The state right after a step; what is changed at this place later belongs to the steps after it."""
        status = self.debugger.status
        self.truth[status.run, status.step] = everything(self.setup, self.debugger)

    def compare(self) -> None:
        status = self.debugger.status
        known = self.truth.get((status.run, status.step))
        if known is not None:
            assert_same(everything(self.setup, self.debugger), known, f"{status.run} at {status.step}")

    def train(self) -> None:
        for _ in range(self.dice.randint(1, 5)):
            self.debugger.step()
            self.note()

    def rewind(self) -> None:
        self.debugger.rewind(self.dice.randint(0, self.debugger.status.last_step))
        self.compare()

    def rerun(self) -> None:
        start = self.dice.choice(["start", "here", "best", self.dice.randint(0, self.debugger.status.last_step)])
        if start == "best" and not any(line.bests for line in self.debugger._session.timeline.lines.values()):
            start = "start"
        seed = self.dice.choice([None, None, 5])
        try:
            self.debugger.rerun(
                steps=self.dice.randint(1, 4), start=start, seed=seed, lr=10 ** self.dice.uniform(-4, -2)
            )
        except CommandError as error:
            if "no best epoch" not in str(error):
                raise
        self.note()

    def change(self) -> None:
        self.debugger.set(
            **self.dice.choice([{"lr": 0.003}, {"clip_norm": 0.5}, {"clip_value": 0.1}, {"clip_norm": None}])
        )

    def redraw(self) -> None:
        self.debugger.reinitialize("kaiming_normal", seed=self.dice.randint(0, 9))

    def check_out(self) -> None:
        run = self.dice.choice(list(self.debugger.runs))
        self.debugger.checkout(run)
        line = self.debugger._session.timeline.lines[run]
        if not line.interventions or line.interventions[-1].step < line.tip.step:
            self.compare()

    def snapshot(self) -> None:
        here = everything(self.setup, self.debugger)
        kept = self.debugger.snapshot()
        assert_same(everything(self.setup, self.debugger), here, "a snapshot changed something")
        if self.dice.random() < 0.5:
            self.debugger.rewind(self.dice.randint(0, self.debugger.status.last_step))
            self.debugger.checkout(kept)
            assert_same(everything(self.setup, self.debugger), here, "a snapshot holds another state")

    def drop(self) -> None:
        self.debugger.drop_snapshot(self.dice.choice(self.debugger.snapshots))

    def edit(self) -> None:
        with torch.no_grad():
            self.dice.choice(list(self.setup.model.parameters())).add_(0.01)
        self.debugger.step()
        self.note()
        run = self.debugger.status.run
        assert any(isinstance(made.change, OutsideEdit) for made in self.debugger._journal.interventions(run))

    def seed(self) -> None:
        torch.manual_seed(self.dice.randint(0, 99))
        self.debugger.step()
        self.note()


@pytest.mark.parametrize("room", [1 << 30, 400_000, 0])
@pytest.mark.parametrize(
    "name",
    ["adam, augmentation", "lbfgs", "plateau by epoch", "OneCycleLR by batch", "own loader with a state and no length",
     "autocast and a scaler", "moving average in state"],
)  # fmt: skip
def test_every_step_that_was_passed_comes_back(name: str, room: int, tmp_path: Any) -> None:
    setup, debugger = made_with(name, snapshot_bytes=room, snapshot_folder=None if room else tmp_path)
    Walk(setup, debugger, seed=room % 97 + len(name)).go(25)
    debugger.close()
