"""Gradient flow against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.frames import GradientState
from tests.training import zoo


@pytest.mark.parametrize("name", zoo.MODELS)
def test_mean_and_max_are_those_of_autograd(name: str) -> None:
    case = zoo.make(name)
    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader), budget=None)
    debugger.step()
    for layer, module in case.model.named_modules():
        own = [p for p in module._parameters.values() if p is not None and p.grad is not None]
        if not own:
            continue
        every = torch.cat([p.grad.flatten() for p in own]).abs()
        assert debugger.history[f"grad_mean/{layer}"].values[-1] == pytest.approx(every.mean().item(), rel=1e-5)
        assert debugger.history[f"grad_max/{layer}"].values[-1] == every.max().item()
    norm = torch.cat([p.grad.flatten() for p in case.model.parameters() if p.grad is not None]).norm()
    assert debugger.history["grad_norm"].values[-1] == pytest.approx(norm.item(), rel=1e-5)
    debugger.close()


def test_missing_zero_and_frozen_gradients_are_told_apart() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.frozen, self.blocked = (nn.Linear(2, 2) for _ in range(4))
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.used(self.frozen(x)) + 0 * self.blocked(x)

    model = Model()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    debugger = Debugger(model, Trainer(optimizer, F.mse_loss, [(torch.ones(3, 2), torch.zeros(3, 2))]), budget=None)
    debugger.step()
    flow = debugger._view(10).gradients
    assert flow is not None
    states = dict(zip(flow.layers, flow.state, strict=True))
    assert states == {
        "used": GradientState.PRESENT,
        "unused": GradientState.MISSING,
        "frozen": GradientState.FROZEN,
        "blocked": GradientState.PRESENT,
    }
    assert flow.mean[flow.layers.index("blocked")] == 0
    assert "grad_mean/unused" not in debugger.history
    debugger.close()


def test_gradients_of_a_parameter_that_no_optimizer_holds_are_seen() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model[1].parameters(), 0.1)
    debugger = Debugger(model, Trainer(optimizer, F.mse_loss, [(torch.ones(3, 2), torch.zeros(3, 1))]), budget=None)
    debugger.step()
    assert debugger.history["grad_max/0"].values[-1] == max(p.grad.abs().max().item() for p in model[0].parameters())
    debugger.close()


def test_non_finite_gradients_are_shown_as_such() -> None:
    model = nn.Linear(2, 1)

    def step(model, batch, loss_fn, optimizer):
        model.weight.grad = torch.tensor([[float("nan"), 1.0]])
        model.bias.grad = torch.tensor([2.0])
        optimizer.step()
        return 1.0

    debugger = Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.0), None, [0], step=step), budget=None)
    debugger.step()
    assert torch.tensor(debugger.history["grad_mean/Linear"].values).isnan().all()
    assert torch.tensor(debugger.history["grad_max/Linear"].values).isnan().all()
    debugger.close()


def test_half_precision_gradients_are_shown_in_true_units() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    true: list[float] = []

    def step(model, batch, loss_fn, optimizer):
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        true.append(torch.autograd.grad(loss, model.weight, retain_graph=True)[0].abs().max().item())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    data = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(3)]
    trainer = Trainer(optimizer, F.mse_loss, data, step=step, state={"scaler": scaler})
    debugger = Debugger(model, trainer, budget=None)
    debugger.set(clip_norm=100.0)
    debugger.run(epochs=1)
    assert debugger.history["grad_max/Linear"].values.max() == pytest.approx(max(true), rel=1e-3)
    assert debugger.history["grad_norm"].values.max() < 100
    debugger.close()
