"""What a step leaves out, and modes that are not those of training, by what two steps did; and what only looks so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Adam

from nbdebug import Debugger, Trainer
from nbdebug.checks.preflight import battery
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.registry import checks, table
from nbdebug.checks.preflight.rules import optimizer_step_missing
from nbdebug.records.checks import CheckOutcome, CheckResult
from tests.checks.preflight.looking import judged, look_at, warned
from tests.checks.preflight.test_wiring import gan, mlp, rows, trained_with, two_networks

Made = tuple[Any, Trainer]
Case = Callable[[], Made]
Step = Callable[[Any, Any, Any, Any], Any]


def examined(rule: str, model: Any, trainer: Trainer) -> CheckResult:
    """What one rule comes to in the battery, by a debugger."""
    debugger = Debugger(model, trainer, journal=None)
    try:
        report = debugger.preflight(skip=[check.name for check in checks() if check.name != rule], seconds=60)
    finally:
        debugger.close()
    result = next(each for each in report.results if each.name == rule)
    assert result.outcome is not CheckOutcome.BROKE, result.findings[0].detail
    return result


def judged_all(rule: str, case: Case) -> list[str]:
    torch.manual_seed(0)
    return warned(judged(rule, *case()))


def examined_all(rule: str, case: Case) -> list[str]:
    torch.manual_seed(0)
    return warned(examined(rule, *case()))


def stepping(step: Step, model: Any = None, optimizer: Any = SGD, batches: Any = None) -> Made:
    model = model or mlp(6, 16, 3)
    return model, Trainer(optimizer(model.parameters(), lr=0.1), F.cross_entropy, batches or rows(), step=step)


# -- zero_grad -------------------------------------------------------------------------------------------------------


def never_zeroed(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    loss = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


def zeroed_after(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    loss = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return loss


def zeroed_between(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    output = model(batch[0])
    optimizer.zero_grad()
    loss = loss_fn(output, batch[1])
    loss.backward()
    optimizer.step()
    return loss


def two_backwards(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    optimizer.zero_grad()
    loss = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    (0.01 * model(batch[0]).square().mean()).backward()
    optimizer.step()
    return loss


def zeroed_once_in_a_while(every: int) -> Step:
    """Reset only where an epoch begins, as one thinks."""
    count = [0]

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        if count[0] % every == 0:
            optimizer.zero_grad()
        count[0] += 1
        return never_zeroed(model, batch, loss_fn, optimizer)

    return step


def accumulating(every: int, *, steps: bool = True) -> Step:
    count = [0]

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = loss_fn(model(batch[0]), batch[1]) / every
        loss.backward()
        count[0] += 1
        if count[0] % every == 0 and steps:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return step


def with_closure(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    def closure() -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return optimizer.step(closure)


def one_of_two_zeroed() -> Made:
    """The critic's gradients are never reset."""
    g, d = mlp(4, 16, 6), mlp(6, 16, 1)

    def step(model: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        fake = model["g"](torch.randn(len(batch[0]), 4))
        (model["d"](fake.detach()).mean() - model["d"](batch[0]).mean()).backward()
        optimizers["d"].step()
        optimizers["g"].zero_grad()
        loss = -model["d"](fake).mean()
        loss.backward()
        optimizers["g"].step()
        return loss

    optimizers = {"g": Adam(g.parameters()), "d": Adam(d.parameters())}
    return {"g": g, "d": d}, Trainer(optimizers, None, rows(), step=step)


STALE: dict[str, Case] = {
    "never": lambda: stepping(never_zeroed),
    "once an epoch": lambda: stepping(zeroed_once_in_a_while(50)),
    "with Adam, other batches": lambda: stepping(never_zeroed, mlp(6, 16, 16, 3), Adam, [[x, y] for x, y in rows(9)]),
    "one of two networks": one_of_two_zeroed,
}
RESET: dict[str, Case] = {
    "the usual step": lambda: trained_with(mlp(6, 16, 3)),
    "after the step, to zeros": lambda: stepping(zeroed_after),
    "between forward and backward": lambda: stepping(zeroed_between),
    "two backwards for an update": lambda: stepping(two_backwards),
    "accumulating over two": lambda: stepping(accumulating(2)),
    "accumulating over four": lambda: stepping(accumulating(4)),
    "a closure": lambda: stepping(with_closure, None, LBFGS),
    "a GAN": two_networks,
}


@pytest.mark.parametrize("name", STALE)
def test_gradients_that_are_not_reset_are_named(name: str) -> None:
    assert judged_all("zero_grad_missing", STALE[name]) == ["zero_grad_missing"]


def test_what_is_reset_now_and_then_is_not_said_to_be_never_with_the_line_of_backward() -> None:
    torch.manual_seed(0)
    finding = judged("zero_grad_missing", *stepping(zeroed_once_in_a_while(50))).findings[0]
    assert finding.title == "Gradients are not reset before each update"
    assert finding.line is not None and finding.line.code == "loss.backward()"


@pytest.mark.parametrize("name", RESET)
def test_gradients_that_are_reset_at_any_place_are_not(name: str) -> None:
    assert judged_all("zero_grad_missing", RESET[name]) == []


# -- the optimizer's step --------------------------------------------------------------------------------------------


def no_step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    optimizer.zero_grad()
    loss = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    return loss


def by_hand(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    loss = no_step(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return loss


def critic_alone() -> Made:
    """The generator's step was forgotten."""
    g, d = mlp(4, 16, 6), mlp(6, 16, 1)

    model, trainer = gan(g, d, {"g": Adam(g.parameters()), "d": Adam(d.parameters())})
    whole = trainer.step

    def step(model: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        class Kept:
            zero_grad = staticmethod(optimizers["g"].zero_grad)

            @staticmethod
            def step() -> None:
                return

        return whole(model, batch, loss_fn, {"d": optimizers["d"], "g": Kept})

    return model, Trainer(dict(trainer.optimizers), None, rows(), step=step)


IDLE: dict[str, Case] = {
    "forgotten": lambda: stepping(no_step),
    "a condition never met": lambda: stepping(accumulating(4, steps=False)),
    "one of two": critic_alone,
}
BUSY: dict[str, Case] = {
    "the usual step": lambda: trained_with(mlp(6, 16, 3)),
    "accumulating over four": lambda: stepping(accumulating(4)),
    "accumulating over twelve": lambda: stepping(accumulating(12)),
    "by hand": lambda: stepping(by_hand),
    "a closure": lambda: stepping(with_closure, None, LBFGS),
    "a GAN": two_networks,
}


@pytest.mark.parametrize("name", IDLE)
def test_an_update_that_never_comes_is_named(name: str) -> None:
    assert examined_all("optimizer_step_missing", IDLE[name]) == ["optimizer_step_missing"]


@pytest.mark.parametrize("name", BUSY)
def test_updates_of_any_kind_are_enough(name: str) -> None:
    assert examined_all("optimizer_step_missing", BUSY[name]) == []


@pytest.mark.parametrize(("steps", "found"), [(2, []), (20, ["optimizer_step_missing"])])
def test_the_first_steps_alone_tell_once_there_are_enough(steps: int, found: list[str]) -> None:
    look = look_at(*IDLE["forgotten"]())
    look = Look(look.model, look.trainer, look.batches, [], look.traces, steps=steps)
    result, _ = battery.judge(optimizer_step_missing.CHECK, look, table(), "main", 0)
    assert warned(result) == found


# -- modes -----------------------------------------------------------------------------------------------------------


def dropping(norm: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16) if norm else nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def in_mode(change: Callable[[Any], Any], after: Callable[[Any], Any] = lambda model: None) -> Step:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        change(model)
        loss = loss_fn(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after(model)
        return loss

    return step


def used(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """With statistics of its own, as of a loaded network."""
    with torch.no_grad():
        norm.running_mean += 0.4
        norm.running_var *= 2
        norm.num_batches_tracked += 5000
    return norm


def loaded(step: Step) -> Made:
    model = dropping(norm=True)
    used(model[1])
    return stepping(step, model)


def sleeping_norms(model: Any) -> None:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()


ASLEEP: dict[str, Case] = {
    "dropout": lambda: stepping(in_mode(lambda model: model.eval()), dropping()),
    "a fresh norm": lambda: stepping(in_mode(lambda model: model.eval()), dropping(norm=True)),
    "after the first step": lambda: stepping(in_mode(lambda model: None, lambda model: model.eval()), dropping()),
}
AWAKE: dict[str, Case] = {
    "training mode": lambda: stepping(in_mode(lambda model: model.train()), dropping(norm=True)),
    "nothing that minds": lambda: stepping(in_mode(lambda model: model.eval()), mlp(6, 16, 3)),
    "validation in between": lambda: stepping(in_mode(lambda m: m.train(), lambda m: m.eval()), dropping()),
    "norms of a loaded network": lambda: loaded(in_mode(sleeping_norms)),
    "a loaded network as it is": lambda: loaded(in_mode(lambda model: model.eval())),
    "a dropout that was put to sleep": lambda: stepping(in_mode(lambda model: model[2].eval()), dropping()),
    "dropout of nothing": lambda: stepping(
        in_mode(lambda m: m.eval()), nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.0))
    ),
}


@pytest.mark.parametrize("name", ASLEEP)
def test_training_in_eval_mode_is_named(name: str) -> None:
    assert judged_all("eval_mode_in_training", ASLEEP[name]) == ["eval_mode_in_training"]


@pytest.mark.parametrize("name", AWAKE)
def test_layers_that_may_sleep_are_not(name: str) -> None:
    assert judged_all("eval_mode_in_training", AWAKE[name]) == []


class Always(nn.Module):
    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.body, self.head, self.mode = nn.Linear(6, 16), nn.Linear(16, 3), mode

    def forward(self, x: Any) -> Any:
        return self.head(F.dropout(self.body(x).relu(), 0.2, self.training if self.mode else True))


def validated(mode: Callable[[Any], Any], model: Any = None) -> Made:
    def eval_step(model: Any, batch: Any, loss_fn: Any) -> Any:
        mode(model)
        output = model(batch[0])
        return {"loss": loss_fn(output, batch[1]), "output": output, "target": batch[1]}

    return trained_with(model or dropping(norm=True), val_loader=rows(), eval_step=eval_step)


NOISY: dict[str, Case] = {
    "put into training mode": lambda: validated(lambda model: model.train()),
    "only the dropout": lambda: validated(lambda model: model[2].train(), dropping()),
    "a functional dropout": lambda: trained_with(Always(mode=False), val_loader=rows()),
}
QUIET: dict[str, Case] = {
    "without a validation": lambda: trained_with(dropping(norm=True)),
    "in eval mode": lambda: validated(lambda model: model.eval()),
    "as it comes": lambda: validated(lambda model: None),
    "a functional dropout that follows the mode": lambda: trained_with(Always(mode=True), val_loader=rows()),
    "training mode where nothing minds": lambda: validated(lambda model: model.train(), mlp(6, 16, 3)),
    "no statistics to gather": lambda: validated(
        lambda model: model.train(), nn.Sequential(nn.LayerNorm(6), mlp(6, 9, 3))
    ),
}


@pytest.mark.parametrize("name", NOISY)
def test_validation_in_training_mode_is_named(name: str) -> None:
    assert examined_all("missing_eval_mode", NOISY[name]) == ["missing_eval_mode"]


@pytest.mark.parametrize("name", QUIET)
def test_validation_in_eval_mode_is_not(name: str) -> None:
    assert examined_all("missing_eval_mode", QUIET[name]) == []
