"""A search over knobs: the same start and batches for all, hopeless ones ended, the model where it was."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Journal, Trainer
from nbdebug.dashboard import Dashboard
from nbdebug.dashboard.picture import Painter, default_panels
from nbdebug.debugger_search_optuna import Optuna
from nbdebug.debugger_search_space import drawn
from nbdebug.records.commands import Search
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.search import SearchEngine


def made(journal: Path | None = None, **options: Any) -> Debugger:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Dropout(0.1), nn.Linear(24, 3))
    x = torch.randn(120, 6)
    y = (x @ torch.randn(6, 3)).argmax(1)
    loader = DataLoader(TensorDataset(x, y), 20, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    accuracy = lambda output, target: (output.argmax(1) == target).float().mean()  # noqa: E731
    trainer = Trainer(optimizer, F.cross_entropy, loader, loader, metrics={"accuracy": accuracy}, **options)
    return Debugger(model, trainer, journal=journal)


def until(look: Callable[[], Any], wait_s: float = 60.0) -> Any:
    """Look again until there is something; that."""
    end = time.monotonic() + wait_s
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


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


# --- what is kept, also of a search that did not come to its end


def test_a_search_is_kept_in_the_journal_with_its_trials(tmp_path: Path) -> None:
    case = made(journal=tmp_path / "j.sqlite")
    case.run(steps=4)
    found = case.search({"lr": [0.01, 0.1], "clip_norm": [None, 0.5]}, steps=3)
    again = case.search({"lr": (1e-4, 1.0)}, steps=2, trials=2)
    assert case.searches == (found, again) and case._view(100).search is again
    assert (found.number, again.number) == (1, 2)
    assert (found.run, found.step, found.steps, found.planned, found.note) == ("main", 4, 3, 4, "")
    assert sorted(trial.number for trial in found.trials) == [1, 2, 3, 4]
    assert {(t.setting["lr"], t.setting["clip_norm"]) for t in found.trials} == {
        (0.01, None), (0.01, 0.5), (0.1, None), (0.1, 0.5),
    }  # fmt: skip
    case.close()
    stored = Journal.open(tmp_path / "j.sqlite")
    assert stored.searches == (found, again)
    view = stored._view(100)
    assert view.search == again and str(view.search) == str(again)
    assert "trial" in Dashboard(stored._view, lambda _: None).mimebundle()[0]["text/plain"]


def test_a_search_that_is_called_off_keeps_what_it_found(tmp_path: Path) -> None:
    case = made(journal=tmp_path / "j.sqlite")
    case.run(steps=3)
    before = values(case)
    asked = Search({"lr": [0.01 * k for k in range(1, 60)]}, steps=40)
    case._post(asked)
    until(lambda: bool(case.searches and case.searches[-1].trials))
    assert case.status.activity.startswith("searching: trial ")
    until(lambda: "best so far loss" in case.status.activity)
    case.pause()
    outcome = until(lambda: next((each for each in case.outcomes if each.command is asked), None))
    assert not outcome.ok and outcome.text == "the search was called off; the model is where it was"
    assert same(values(case), before) and case.status.activity == ""
    [found] = case.searches
    made_count = len(found.trials)
    assert 0 < made_count < 59 and found.note == f"ended after {made_count} of 59 trials: called off"
    case.close()
    [kept] = Journal.open(tmp_path / "j.sqlite").searches
    assert kept == found and found.note in str(kept)


def test_a_search_asked_for_on_the_dashboard_tells_its_outcome() -> None:
    case = made()
    case.run(steps=3)
    good = Search({"lr": [0.01, 0.1]}, steps=3)
    case._post(good)
    outcome = until(lambda: next((each for each in case.outcomes if each.command is good), None))
    assert outcome.ok and outcome.made == case.searches[-1].best.run
    assert outcome.text.startswith("2 trials, best lr 0.1: loss ")
    bad = Search({"lr": (0.01, 0.1)}, steps=3)
    case._post(bad)
    outcome = until(lambda: next((each for each in case.outcomes if each.command is bad), None))
    assert not outcome.ok and "say how many settings" in outcome.text and len(case.searches) == 1
    options = case._view(100).search_options
    assert options.measures == (("val_loss", True), ("val_accuracy", False), ("loss", True)) and not options.missing
    case.close()


def test_of_a_metric_the_highest_is_best_unless_it_is_named_as_an_error() -> None:
    case = made()
    case.run(steps=2)
    found = case.search({"lr": [1e-6, 0.3]}, epochs=2, measure="val_accuracy")
    assert not found.lower_is_better and found.best.score == max(trial.score for trial in found.trials)
    assert found.best.changes.lr == 0.3
    turned = case.search({"lr": [1e-6, 0.3]}, epochs=2, measure="val_accuracy", lower_is_better=True)
    assert turned.best.changes.lr == 1e-6
    case.close()


# --- Optuna


def test_optuna_chooses_as_it_does_in_a_loop_of_ones_own() -> None:
    case, other = made(), made()
    for each in (case, other):
        each.run(steps=4)
    before = values(case)
    theirs, numpys = torch.get_rng_state(), np.random.get_state()
    space = {"lr": (1e-4, 1.0), "dropout": (0.0, 0.5), "clip_norm": [None, 0.5, 1.0]}
    found = case.search(space, steps=2, trials=14, engine="optuna", seed=5, prune=False)
    assert torch.equal(torch.get_rng_state(), theirs), "no global generator is used"
    assert np.array_equal(np.random.get_state()[1], numpys[1])
    assert same(values(case), before)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5))
    for made_trial in sorted(found.trials, key=lambda trial: trial.number):
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        dropout, clip = trial.suggest_float("dropout", 0.0, 0.5), trial.suggest_categorical("clip_norm", (0, 1, 2))
        assert made_trial.setting == {"lr": lr, "dropout": dropout, "clip_norm": [None, 0.5, 1.0][clip]}
        study.tell(trial, made_trial.score)
    assert (found.engine, found.planned, len(found.trials)) == (SearchEngine.OPTUNA, 14, 14)
    assert found.best.score == study.best_value
    case.run(steps=3)
    other.run(steps=3)
    assert same(values(case), values(other))
    case.close()
    other.close()


def test_optuna_ends_hopeless_trials_and_learns_from_what_is_not_finite() -> None:
    case = made()
    case.run(steps=2)
    level = optuna.logging.get_verbosity()
    found = case.search({"lr": [0.3, 1e-7, 1e38]}, epochs=3, trials=12, engine="optuna", seed=1)
    assert optuna.logging.get_verbosity() == level
    by_rate = {rate: [t for t in found.trials if t.changes.lr == rate] for rate in (0.3, 1e-7, 1e38)}
    assert by_rate[1e38] and all(math.isnan(t.score) and t.ended == "not finite" for t in by_rate[1e38])
    assert any(t.ended == "worse than the median" and t.steps < 18 for t in by_rate[1e-7])
    assert found.best.changes.lr == 0.3
    case.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {"lr": [0.1]}, "steps": 2}, "say how many, trials=30"),
        ({"space": {"lr": (-1.0, 0.1)}, "steps": 2, "trials": 9}, "lr=-1.0 is out of range"),
        ({"space": {"lr": [0.1], "clip_norm": [0.5, 0]}, "steps": 2, "trials": 9}, "clip_norm=0 would stop"),
        ({"space": {"lr": (0.1, 1)}, "steps": 2, "trials": 0}, "trials=0: give a whole number"),
        ({"space": {"lr": (0.1, 1)}, "steps": 2, "trials": 9, "seed": -1}, "seed=-1: give a whole number"),
        ({"space": {"lr": (0.1, math.inf)}, "steps": 2, "trials": 9}, "give a list of values, or a pair"),
    ],
)
def test_what_optuna_can_not_search_is_refused_before_anything_is_tried(
    arguments: dict[str, Any], message: str
) -> None:
    case = made()
    with pytest.raises(ConfigurationError, match=message):
        case.search(**arguments, engine="optuna")
    assert not case.searches and list(case.runs) == ["main"]
    case.close()


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    case = made()
    with pytest.raises(ConfigurationError, match=r"needs the package optuna.*pip install 'nbdebug\[search\]'"):
        case.search({"lr": (0.1, 1.0)}, steps=1, trials=3, engine="optuna")
    with pytest.raises(ConfigurationError, match="engine='grid': give 'random' or 'optuna'"):
        case.search({"lr": [0.1]}, steps=1, engine="grid")
    assert case._view(100).search_options.missing[0][0] == "optuna"
    assert len(case.search({"lr": (0.1, 1.0)}, steps=1, trials=2).trials) == 2
    case.close()


def test_a_range_of_whole_numbers_is_drawn_in_whole_numbers() -> None:
    space = {"lr": (1, 10), "rows": (3, 900)}
    drawn_settings = list(drawn(space, 40, 0, frozenset({"rows"})))
    rows = [setting["rows"] for setting in drawn_settings]
    assert all(type(row) is int and 3 <= row <= 900 for row in rows)
    assert sum(row < 52 for row in rows) > 10, "on a log scale half of them lie below the geometric mean"
    assert all(type(setting["lr"]) is float for setting in drawn_settings)
    study = Optuna(space, frozenset({"rows"}), 3, 0, lower=True)
    proposed = [study.propose() for _ in range(2)]
    assert all(type(setting["rows"]) is int and type(setting["lr"]) is float for setting in proposed if setting)


def test_optuna_hears_what_came_of_each_trial() -> None:
    study = Optuna({"lr": (1e-4, 1.0)}, frozenset(), 3, 0, lower=True)
    for score, ended in ((0.5, ""), (0.7, "worse than the median"), (math.nan, "not finite")):
        assert study.propose() is not None
        study.is_hopeless(0, 0.9 if math.isnan(score) else score)
        study.finish(score, ended)
    assert study.propose() is None
    states = optuna.trial.TrialState
    told = [(trial.state, trial.value) for trial in study._study.trials]
    assert told == [(states.COMPLETE, 0.5), (states.PRUNED, 0.7), (states.FAIL, None)]


def test_the_finders_curve_is_shown_again_after_reopening(tmp_path: Path) -> None:
    case = made(journal=tmp_path / "j.sqlite")
    case.run(steps=3)
    case.find_lr(1e-4, 1.0, 20)
    curve = case.find_lr(1e-5, 1.0, 30)
    assert case.lr_curve is curve
    case.close()
    stored = Journal.open(tmp_path / "j.sqlite")
    assert len(stored.lr_curves) == 2
    shown = stored._view(100).lr_curve
    assert shown is not None and str(shown) == str(curve) and shown.planned == 30
    for name in ("rates", "losses", "smooth"):
        np.testing.assert_array_equal(getattr(shown, name), getattr(curve, name))
    picture = Painter(default_panels()).paint(stored._view(100), whole=True)
    assert ("lr_curve", "figure") in picture and picture["finder",]["taken"].startswith("taken after step 3 of main")
