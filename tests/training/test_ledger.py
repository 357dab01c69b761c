"""Numbers that come from a device some steps late: everything ends up the same, in order, and nobody waits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.records.frames import Rows
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.status import State
from nbdebug.training import ledger as ledger_module
from nbdebug.training import stepper
from nbdebug.training.ledger import CLIP_RATE, Ledger
from nbdebug.training.trainer import Trainer
from tests.probes.watched import Watched, mlp, watched

LOSS = Series(Signal.LOSS, split=Split.TRAIN)
COLUMNS = (LOSS, Series(Signal.LEARNING_RATE))


class Late:
    """A copy that arrives after it was asked about a few times; or, when waited for, at once."""

    waits = 0

    def __init__(self, tensors: Sequence[torch.Tensor], patience: int) -> None:
        self._values = [tensor.detach().clone() for tensor in tensors]
        self._left = patience

    @property
    def ready(self) -> bool:
        self._left -= 1
        return self._left < 0

    def arrays(self) -> list[Any]:
        Late.waits += self._left >= 0
        return [value.to(torch.float64).numpy() for value in self._values]


class Kept:
    def __init__(self) -> None:
        self.rows: list[Rows] = []

    def record_rows(self, rows: Rows) -> None:
        self.rows.append(rows)


def make(patience: int = 0) -> tuple[Ledger, Kept, list[tuple[int, float]]]:
    kept, arrived = Kept(), []
    ledger = Ledger(kept, lambda t: Late(t, patience), lambda step, loss, skipped: arrived.append((step, loss)))
    return ledger, kept, arrived


def test_rows_come_in_blocks_and_whole() -> None:
    ledger, kept, arrived = make()
    for step in range(1, 6):
        ledger.add("main", 0, step, COLUMNS, (1.0 / step, 0.1))
    assert not kept.rows
    ledger.settle()
    [rows] = kept.rows
    assert rows.steps.tolist() == [1, 2, 3, 4, 5] and rows.series == COLUMNS
    np.testing.assert_allclose(rows.values, [[1 / step, 0.1] for step in range(1, 6)])
    assert not arrived


def test_another_epoch_or_run_is_another_block() -> None:
    ledger, kept, _ = make()
    for run, epoch in (("main", 0), ("main", 1), ("branch", 1)):
        ledger.add(run, epoch, 1, COLUMNS, (1.0, 0.1))
    ledger.settle()
    assert [(rows.run, rows.epoch) for rows in kept.rows] == [("main", 0), ("main", 1), ("branch", 1)]


def test_a_block_is_handed_over_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, kept, _ = make()
    ledger.add("main", 0, 1, COLUMNS, (1.0, 0.1))
    ledger.turn_over(ledger._began_s + 0.5 * ledger_module.LATEST_S)
    assert not kept.rows
    ledger.turn_over(ledger._began_s + 2 * ledger_module.LATEST_S)
    assert len(kept.rows) == 1


def test_late_values_keep_their_order_with_what_comes_after() -> None:
    ledger, kept, arrived = make(patience=3)
    order: list[str] = []
    for step in (1, 2):
        ledger.add_late("main", 0, step, COLUMNS, (torch.tensor(float(step)), 0.1))
    ledger.then(None, lambda _: order.append(f"after {len(kept.rows)} blocks"))
    assert not kept.rows and not order
    for _ in range(5):
        ledger.turn_over(math.inf)
    assert order == ["after 1 blocks"]
    assert kept.rows[0].values.tolist() == [[1.0, 0.1], [2.0, 0.1]]
    assert arrived == [(1, 1.0), (2, 2.0)]


def test_a_tensor_that_changes_afterwards_was_copied() -> None:
    ledger, kept, _ = make()
    loss = torch.tensor(1.0)
    ledger.add_late("main", 0, 1, COLUMNS, (loss, 0.1))
    loss.fill_(7.0)
    ledger.settle()
    assert kept.rows[0].values[0, 0] == 1.0


def test_too_much_under_way_is_waited_for() -> None:
    ledger, kept, _ = make(patience=10_000)
    for step in range(1, 20):
        ledger.add_late("main", 0, step, COLUMNS, (torch.tensor(1.0), 0.1))
        ledger.turn_over(math.inf)
    assert 19 - len(kept.rows) == ledger_module.MOST_UNDER_WAY


def test_the_clip_rate_is_a_mean_over_the_last_hundred() -> None:
    ledger, kept, _ = make()
    flags = [float(step % 3 == 0) for step in range(250)]
    for step, flag in enumerate(flags, 1):
        ledger.add("main", 0, step, (Series(Signal.GRADIENT_NORM), CLIP_RATE), (1.0, flag))
    ledger.settle()
    rates = np.concatenate([rows.values[:, 1] for rows in kept.rows])
    expected = [np.mean(flags[max(0, i - 99) : i + 1]) for i in range(250)]
    np.testing.assert_allclose(rates, expected)


@pytest.fixture
def late_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the model were on a device: nothing is read to the host within a step, all comes three looks later."""
    monkeypatch.setattr(stepper, "_on_host", lambda v: v.detach() if isinstance(v, torch.Tensor) else float(v))
    monkeypatch.setattr("nbdebug.probes.instruments.Transfer", lambda tensors: Late(tensors, 3))
    Late.waits = 0


def train(batches: list[Any], **options: Any) -> tuple[Watched, nn.Module]:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.9)
    return watched(model, Trainer(optimizer, F.cross_entropy, batches, scheduler=scheduler), **options), model


def batches(count: int = 8) -> list[Any]:
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(6, 12, generator=generator), torch.randint(0, 5, (6,), generator=generator)) for _ in range(count)
    ]


@pytest.mark.parametrize("budget", [None, 0.05])
def test_a_run_whose_numbers_come_late_is_the_same_run(budget: float | None, request: pytest.FixtureRequest) -> None:
    here, model = train(batches(), budget=budget)
    here.run(20)
    request.getfixturevalue("late_device")
    there, other = train(batches(), budget=budget)
    there.run(20)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for signal, split in ((Signal.LOSS, Split.TRAIN), (Signal.LEARNING_RATE, None), (Signal.UPDATES, None)):
        assert here.recorder.series(signal, split=split) == there.recorder.series(signal, split=split)
    assert list(there.recorder.series(Signal.LOSS, split=Split.TRAIN)) == list(range(1, 21))
    lines = [each.session.timeline.lines["main"] for each in (here, there)]
    assert lines[0].losses == lines[1].losses and lines[0].bests == lines[1].bests
    if budget is None:
        ours, theirs = here.recorder.frames, there.recorder.frames
        assert [frame.step for frame in ours] == [frame.step for frame in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.layers is not None and b.layers is not None
            np.testing.assert_array_equal(a.layers.of(Signal.UPDATE_NORM)[0], b.layers.of(Signal.UPDATE_NORM)[0])
    here.session.close()
    there.session.close()


def test_a_loss_that_is_not_finite_pauses_when_it_arrives(late_device: None) -> None:
    bad = batches(60)
    bad[10] = (torch.full((6, 12), math.nan), bad[10][1])
    case, model = train(bad, budget=0.05)
    case.run(60)
    assert case.session.state is State.PAUSED
    [finding] = case.recorder.findings
    assert "step 11" in finding.why
    assert case.session.loop.step == 10, "the weights were damaged, so it is before that step"
    assert all(tensor.isfinite().all() for tensor in model.parameters())
    case.session.close()


def test_going_back_after_late_losses_is_exact(late_device: None) -> None:
    from nbdebug.records.commands import Rewind

    case, model = train(batches(), budget=0.05)
    case.run(13)
    after = [parameter.detach().clone() for parameter in model.parameters()]
    outcome = case.session.post(Rewind(5)).wait(60)
    assert outcome is not None and outcome.ok, outcome
    outcome = case.session.post(Rewind(13)).wait(60)
    assert outcome is not None and outcome.ok, outcome
    assert all(torch.equal(a, b) for a, b in zip(after, model.parameters(), strict=True))
    assert not [each for each in case.recorder.findings if each.cause == "not_reproducible"]
    case.session.close()
