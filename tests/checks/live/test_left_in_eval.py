"""A model that is put into evaluation mode in the midst of training, on real runs, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer, debugger_live
from nbdebug.training import session
from tests.checks.live.test_odd_runs import batches, mlp

AFTER = 20  # steps, between evaluations


@pytest.fixture(autouse=True)
def judged_by_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger_live, "SHARE", 1e9)
    monkeypatch.setattr(session, "MOST_STEPS", 1)


def evaluating(*, back: bool = False, ahead: bool = False, always: bool = False, every: int = 1) -> Callable[..., Any]:
    """A step that evaluates now and then at its end, and sets the mode ``back`` there, or ``ahead`` at its start."""
    taken = 0

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        nonlocal taken
        if ahead:
            model.train()
        x, y = batch
        loss = F.cross_entropy(model(x), y) / every
        loss.backward()
        taken += 1
        if taken % every == 0:
            optimizer.step()
            optimizer.zero_grad()
        if taken % AFTER == 0 or (always and taken > AFTER):
            model.eval()
            with torch.no_grad():
                model(x)
            if back:
                model.train()
        return loss

    return step


def trained(step: Any, model: nn.Module, steps: int = 100) -> Debugger:
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    debugger = Debugger(model, Trainer(optimizer, None, batches(), step=step), journal=None, budget=None)
    debugger.run(steps=steps)
    return debugger


def told(debugger: Debugger) -> list[tuple[int, tuple[str, ...]]]:
    return [(each.step, each.layers) for each in debugger.findings if each.check == "left_in_eval_mode"]


def asleep(debugger: Debugger) -> list[int]:
    history = debugger.history
    return [int(step) for step in history["eval_mode"].steps] if "eval_mode" in history else []


FAULTY = {
    "dropout": lambda: mlp(nn.Dropout(0.3)),
    "batch norm": lambda: mlp(nn.BatchNorm1d(32)),
    "batch norm without weights": lambda: mlp(nn.BatchNorm1d(32, affine=False)),
}


@pytest.mark.parametrize("what", FAULTY)
def test_found_with_the_layers_that_sleep(what: str) -> None:
    debugger = trained(evaluating(), FAULTY[what]())
    assert told(debugger) == [(30, ("2",))]
    assert asleep(debugger) == list(range(AFTER + 1, 101))
    debugger.close()


def test_found_where_gradients_are_added_up() -> None:
    debugger = trained(evaluating(every=4), mlp(nn.Dropout(0.3)))
    assert len(told(debugger)) == 1
    debugger.close()


def frozen_norm() -> nn.Module:
    model = mlp(nn.BatchNorm1d(32))
    model[2].requires_grad_(False)
    return model


HEALTHY: dict[str, tuple[Callable[[], Any], Callable[[], nn.Module]]] = {
    "put back after each": (lambda: evaluating(back=True), lambda: mlp(nn.Dropout(0.3))),
    "put back at the start of the next": (lambda: evaluating(ahead=True), lambda: mlp(nn.Dropout(0.3))),
    "each step evaluates, and the next puts back": (
        lambda: evaluating(ahead=True, always=True), lambda: mlp(nn.Dropout(0.3))),
    "nothing that would do otherwise": (evaluating, mlp),
    "a dropout of nothing": (evaluating, lambda: mlp(nn.Dropout(0.0))),
    "norms frozen on purpose": (evaluating, frozen_norm),
    "norms without statistics": (evaluating, lambda: mlp(nn.BatchNorm1d(32, track_running_stats=False))),
}  # fmt: skip


@pytest.mark.parametrize("what", HEALTHY)
def test_not_said_of_sound_runs(what: str) -> None:
    make_step, make_model = HEALTHY[what]
    debugger = trained(make_step(), make_model())
    assert not told(debugger)
    if "put" in what:
        assert not asleep(debugger)
    debugger.close()


def test_norms_that_alone_are_put_to_sleep_are_left_alone() -> None:
    model = mlp(nn.BatchNorm1d(32))

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        model[2].train(len(debugger_steps) < AFTER)
        debugger_steps.append(1)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    debugger_steps: list[int] = []
    debugger = trained(step, model)
    assert not told(debugger) and not asleep(debugger)
    debugger.close()


def test_a_rerun_records_and_finds_the_same() -> None:
    """By the step's number, so that a rerun is left asleep at the same step."""
    model = mlp(nn.Dropout(0.3))
    place: list[Debugger] = []

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        if place[0]._session.loop.step == AFTER:
            model.eval()
        return loss

    debugger = Debugger(
        model, Trainer(torch.optim.SGD(model.parameters(), 0.05), None, batches(), step=step), journal=None, budget=None
    )
    place.append(debugger)
    debugger.run(steps=60)
    first = (asleep(debugger), debugger.history["loss/train"].values.tolist())
    debugger.rerun(steps=60, start="start")
    assert (asleep(debugger), debugger.history["loss/train"].values.tolist()) == first
    assert first[0][-1] == 60 and first[0][0] in (AFTER + 1, AFTER + 2)
    steps = {each.run: each.step for each in debugger._journal.findings if each.check == "left_in_eval_mode"}
    assert len(steps) == 2 and len(set(steps.values())) == 1
    debugger.close()


def test_weights_are_those_of_the_plain_loop() -> None:
    model, plain = mlp(nn.Dropout(0.3), nn.BatchNorm1d(32)), mlp(nn.Dropout(0.3), nn.BatchNorm1d(32))
    torch.manual_seed(5)
    step, optimizer = evaluating(), torch.optim.SGD(plain.parameters(), 0.05)
    for place in range(60):
        step(plain, batches()[place % 20], None, optimizer)
    torch.manual_seed(5)
    debugger = trained(evaluating(), model, steps=60)
    assert told(debugger)
    debugger.close()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
