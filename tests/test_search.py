"""A search over knobs: the same start and batches for all, hopeless ones ended, the model where it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.records.errors import CommandError, ConfigurationError


def made(**options: Any) -> Debugger:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Dropout(0.1), nn.Linear(24, 3))
    x = torch.randn(120, 6)
    y = (x @ torch.randn(6, 3)).argmax(1)
    loader = DataLoader(TensorDataset(x, y), 20, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    accuracy = lambda output, target: (output.argmax(1) == target).float().mean()  # noqa: E731
    trainer = Trainer(optimizer, F.cross_entropy, loader, loader, metrics={"accuracy": accuracy}, **options)
    return Debugger(model, trainer, journal=None)


def values(case: Debugger) -> list[torch.Tensor]:
    return [value.clone() for value in case._model.state_dict().values()]  # type: ignore[union-attr]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_grid_of_nine_finds_the_best_and_leaves_the_model_where_it_was() -> None:
    case, other = made(), made()
    case.run(steps=4)
    other.run(steps=4)
    before = values(case)
    found = case.search({"lr": [1e-4, 0.1, 1e3], "weight_decay": [0.0, 0.01, 0.1]}, epochs=3)
    assert same(values(case), before) and case.status.run == "main" and case.status.step == 4
    assert len(found.trials) == 9 and found.measure == "val_loss"
    assert found.best.changes.lr == 0.1 and not found.best.ended
    scores = [trial.score for trial in found.trials if not trial.ended]
    assert scores == sorted(scores)
    assert all(line in str(found) for line in ("lr 0.1, weight_decay 0", "val_loss", found.best.run))
    assert not case.findings, "what is tried raises no alarm"
    case.run(steps=8)
    other.run(steps=8)
    assert same(values(case), values(other))
    case.checkout(found.best.run)
    assert case.history["loss/val"].values[-1] == found.best.score
    case.run(epochs=1)
    case.close()
    other.close()


def test_a_trial_is_what_a_rerun_with_its_setting_is() -> None:
    case = made()
    case.run(steps=5)
    found = case.search({"lr": [0.05, 0.2]}, steps=7, measure="loss", prune=False)
    for trial in found.trials:
        case.checkout(trial.run)
        there = values(case)
        case.checkout("main")
        case.rerun(start="here", steps=7, lr=trial.changes.lr)
        assert same(values(case), there)
        case.checkout("main")
    case.close()


def test_hopeless_ones_are_ended_and_what_is_not_finite_comes_last() -> None:
    case = made()
    case.run(steps=2)
    found = case.search({"lr": [0.1, 0.2, 0.3, 1e-6, 1e38]}, epochs=4)
    ended = {trial.changes.lr: trial for trial in found.trials if trial.ended}
    assert ended[1e-6].ended == "worse than the median" and ended[1e-6].steps < 24
    assert math.isnan(ended[1e38].score) and found.trials[-1].changes.lr == 1e38
    case.close()


def test_settings_drawn_at_random_are_the_same_for_a_seed() -> None:
    case = made()
    case.run(steps=2)
    space = {"lr": (1e-4, 1.0), "dropout": (0.0, 0.5), "momentum": [0.0, 0.9]}
    one = case.search(space, steps=4, trials=4, seed=3, measure="loss")
    two = case.search(space, steps=4, trials=4, seed=3, measure="loss")
    assert [t.changes for t in one.trials] == [t.changes for t in two.trials]
    assert [t.score for t in one.trials] == [t.score for t in two.trials]
    assert case.search_cost(space, steps=4, trials=4).trials == 4
    case.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {}, "epochs": 1}, "space names no knob"),
        ({"space": {"lr": [0.1]}}, "say how long"),
        ({"space": {"lr": (0.1, 1.0)}, "epochs": 1}, "say how many settings"),
        ({"space": {"lr": [], "lrr": [1]}, "epochs": 1}, "give a list of values"),
        ({"space": {"lrr": [1]}, "epochs": 1}, "unknown knob 'lrr'"),
        ({"space": {"lr": [-1.0, 0.1]}, "epochs": 1}, "lr=-1.0 is out of range"),
        ({"space": {"lr": [0.1]}, "epochs": 1, "measure": "val_f1"}, "there are val_loss, val_accuracy, loss"),
    ],
)
def test_what_can_not_be_searched_is_refused(arguments: dict[str, Any], message: str) -> None:
    case = made()
    with pytest.raises(ConfigurationError, match=message):
        case.search(**arguments)
    case.close()


def test_a_users_error_ends_it_and_the_model_is_where_it_was() -> None:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if case._session.knobs.groups[0].in_force == 0.5:
            raise ValueError("no such rate")
        return F.cross_entropy(output, target)

    case = made()
    case._session.trainer.loss_fn = loss_fn
    case.run(steps=3)
    before = values(case)
    with pytest.raises((ValueError, CommandError), match="no such rate"):
        case.search({"lr": [0.1, 0.5]}, steps=3)
    assert same(values(case), before)
    case.close()
