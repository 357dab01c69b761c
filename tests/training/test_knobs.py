"""Learning rate, clipping, dropout: changed live, exact, recorded."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from nbdebug import ConfigurationError, Debugger, Trainer
from tests.training import zoo
from tests.training.test_do_no_harm import watched

S = lr_scheduler
SCHEDULERS = {
    "LambdaLR": lambda o: S.LambdaLR(o, lambda epoch: 0.95**epoch),
    "MultiplicativeLR": lambda o: S.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda o: S.StepLR(o, 3),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [3, 7]),
    "ConstantLR": lambda o: S.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: S.LinearLR(o, 0.1, total_iters=6),
    "ExponentialLR": lambda o: S.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, 10, eta_min=0.003),
    "PolynomialLR": lambda o: S.PolynomialLR(o, 12),
    "CyclicLR": lambda o: S.CyclicLR(o, 0.001, 0.1, 4, cycle_momentum=False),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 5),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.5, 4), S.ExponentialLR(o, 0.9)]),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=5), S.ExponentialLR(o, 0.9)], [5]),
    "ReduceLROnPlateau": lambda o: S.ReduceLROnPlateau(o, patience=1),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.02, anneal_epochs=5),
}


def test_the_table_holds_every_scheduler_that_torch_ships() -> None:
    shipped = {
        name
        for name, thing in vars(S).items()
        if isinstance(thing, type) and issubclass(thing, S.LRScheduler) and thing is not S.LRScheduler
    }
    assert {name for name in shipped if not name.startswith("_")} <= set(SCHEDULERS)


class Recording(torch.optim.SGD):
    """Notes the learning rates that its updates really use."""

    def __init__(self, params) -> None:
        super().__init__(params, 0.1)
        self.used: list[list[float]] = []

    def step(self, closure=None):
        self.used.append([group["lr"] for group in self.param_groups])
        return super().step(closure)


def with_schedule(name: str, interval: str = "batch") -> tuple[Debugger, Recording]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = Recording(
        [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(model, (0.1, 0.01), strict=True)]
    )
    data = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(4)]
    trainer = Trainer(optimizer, F.mse_loss, data, scheduler=SCHEDULERS[name](optimizer), scheduler_interval=interval)
    return Debugger(model, trainer), optimizer


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_learning_rate_is_an_exact_factor_on_every_schedule(name: str) -> None:
    plain, unscaled = with_schedule(name)
    plain.run(steps=16)
    debugger, optimizer = with_schedule(name)
    debugger.run(steps=5)
    base = debugger._session.knobs.groups[0].base
    debugger.set(lr=base * 0.25)
    debugger.run(steps=11)
    factor = (base * 0.25) / base
    if name != "ReduceLROnPlateau":  # its rates follow the loss, which the change moves
        assert optimizer.used[:5] == unscaled.used[:5]
        assert optimizer.used[5:] == [[lr * factor for lr in used] for used in unscaled.used[5:]]
    else:
        assert optimizer.used[5] == [lr * factor for lr in unscaled.used[5]]
    assert debugger.history["lr"].values.tolist() == [used[0] for used in optimizer.used], "the effective rate is shown"
    plain.close()
    debugger.close()


def test_all_groups_are_scaled_in_proportion_or_one_is_set() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(
        [
            {"params": model[0].parameters(), "name": "body"},
            {"params": model[1].parameters(), "lr": 0.01, "name": "head"},
        ],
        0.1,
    )
    debugger = Debugger(model, Trainer(optimizer, F.mse_loss, [(torch.randn(4, 3), torch.randn(4, 1))]))
    debugger.set(lr=0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, pytest.approx(0.05)]
    debugger.set(lr={"head": 0.2})
    debugger.run(steps=1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.2]
    assert (debugger.history["lr/body"].values[-1], debugger.history["lr/head"].values[-1]) == (0.5, 0.2)
    debugger.close()


def test_a_tensor_learning_rate_keeps_its_identity() -> None:
    model = nn.Linear(3, 1)
    lr = torch.tensor(0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = S.ExponentialLR(optimizer, 0.5)
    trainer = Trainer(optimizer, F.mse_loss, [(torch.randn(4, 3), torch.randn(4, 1))], scheduler=scheduler)
    debugger = Debugger(model, trainer)
    held = optimizer.param_groups[0]["lr"]
    debugger.set(lr=0.2)
    debugger.run(steps=3)
    assert optimizer.param_groups[0]["lr"] is held
    assert held.item() == pytest.approx(0.1 * 0.5**3)
    assert debugger.history["lr"].values.tolist() == pytest.approx([0.2, 0.1, 0.05])
    debugger.close()


@pytest.mark.parametrize("options", [{"clip_norm": 0.05}, {"clip_norm": 100.0}, {"clip_value": 0.002}])
def test_clipping_equals_torchs_own(options: dict[str, float]) -> None:
    def step(model, batch, loss_fn, optimizer):
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        if "clip_norm" in options:
            nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
        else:
            nn.utils.clip_grad_value_(model.parameters(), options["clip_value"])
        optimizer.step()
        return loss

    by_hand = zoo.make("mlp", "sgd")  # Adam would hide a wrong factor
    trainer = Trainer(by_hand.optimizer, by_hand.loss_fn, by_hand.train_loader, step=step)
    plain = Debugger(by_hand.model, trainer)
    plain.run(steps=12)
    case = zoo.make("mlp", "sgd")
    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader), budget=None)
    debugger.set(**options)
    debugger.run(steps=12)
    for ours, theirs in zip(case.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(ours.grad, theirs.grad)
    key, value = next(iter(options.items()))
    assert debugger.history[key].values.tolist() == [value] * 12
    before, after = debugger.history["grad_max/0"].values, debugger.history["grad_max_clipped/0"].values
    assert (after <= before).all()
    plain.close()
    debugger.close()


def test_clipping_leaves_non_finite_gradients_alone() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]

    def step(model, batch, loss_fn, optimizer):
        parameters[0].grad = torch.tensor([float("inf"), 1.0])
        parameters[1].grad = torch.tensor([1.0, 2.0])
        optimizer.step()
        return 1.0

    model = nn.ParameterList(parameters)
    debugger = Debugger(model, Trainer(torch.optim.SGD(parameters, 0.0), None, [0], step=step))
    debugger.set(clip_norm=1.0)
    debugger.run(steps=1)
    assert debugger.state == "paused"
    debugger.step()
    assert parameters[0].grad.tolist() == [float("inf"), 1.0]
    assert parameters[1].grad.tolist() == [1.0, 2.0]
    debugger.close()


@pytest.mark.parametrize("options", [{"clip_norm": 0.5}, {"clip_value": 0.1}])
def test_clipping_sparse_gradients(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 2, sparse=True), nn.Flatten(), nn.Linear(6, 1))
    data = [(torch.tensor([[0, 1, 1], [2, 2, 2]]), torch.randn(2, 1))] * 2
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), F.mse_loss, data)
    debugger = Debugger(model, trainer, budget=None)
    debugger.set(**options)
    debugger.run(epochs=1)
    gradients = [p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in model.parameters()]
    if "clip_norm" in options:
        assert torch.cat([g.flatten() for g in gradients]).norm() <= 0.5 + 1e-5
    else:
        assert max(g.abs().max() for g in gradients) <= 0.1
    assert not debugger.findings
    debugger.close()


def test_dropout_of_all_layers_or_one() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "drop": nn.Dropout(0.1),
            "lstm": nn.LSTM(3, 4, num_layers=2, dropout=0.2),
            "attention": nn.MultiheadAttention(4, 2, dropout=0.3),
        }
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    debugger = Debugger(model, Trainer(optimizer, None, [0], step=lambda *a: 1.0))
    debugger.set(dropout={"lstm": 0.5})
    assert (model["drop"].p, model["lstm"].dropout, model["attention"].dropout) == (0.1, 0.5, 0.3)
    debugger.set(dropout=0.25)
    assert (model["drop"].p, model["lstm"].dropout, model["attention"].dropout) == (0.25, 0.25, 0.25)
    debugger.run(steps=1)
    assert debugger.history["dropout"].values.tolist() == [0.25]
    debugger.close()


def test_changes_act_from_the_next_step_on_while_training_runs() -> None:
    debugger = watched(zoo.make("mlp"))
    debugger.start()
    outcome = debugger.set(lr=0.123, clip_norm=0.7, dropout=0.4)
    debugger._session.wait(lambda _: debugger.status.step > outcome.step + 2, 10)
    debugger.pause()
    for key, value in (("lr", 0.123), ("clip_norm", 0.7), ("dropout", 0.4)):
        steps, values = debugger.history[key]
        assert steps[values == value].min() == outcome.step + 1
    debugger.close()


MISTAKES = [
    ({"learning_rate": 0.1, "dropout": 2}, "unknown knob 'learning_rate': did you mean 'lr'?"),
    ({"learning_rate": 0.1, "dropout": 2}, "dropout=2 is out of range: it must be at least 0 and below 1"),
    ({"lr": "high"}, "lr must be a number, not 'high'"),
    ({"lr": float("nan")}, "lr=nan is out of range"),
    ({"lr": -1e-3, "clip_norm": -1}, "clip_norm=-1 is out of range"),
    ({"clip_norm": 1.0, "clip_value": 1.0}, "can't both be on"),
    ({"clip_norm": 0}, "would stop all learning"),
    ({"lr": {"haed": 0.1}}, "no parameter group 'haed'"),
    ({"dropout": {"3": 0.1}}, "no dropout layer '3'"),
    ({"lr": None}, "lr can't be None"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes_are_told_all_at_once_and_change_nothing(options: dict[str, object], message: str) -> None:
    debugger = watched(zoo.make("mlp"))
    before = debugger._session.knobs.states()
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        debugger.set(**options)
    assert debugger._session.knobs.states() == before
    debugger.close()


def test_a_model_without_dropout_says_so() -> None:
    debugger = watched(zoo.make("mlp in place"))
    with pytest.raises(ConfigurationError, match="the model has no dropout layer"):
        debugger.set(dropout=0.1)
    debugger.close()
