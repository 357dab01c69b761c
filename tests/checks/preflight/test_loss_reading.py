"""What is read off the calls between the network and the loss: ranges, factors, and what is to be learnt."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.checks.preflight.intervals import bounds
from nbdebug.checks.preflight.lossward import batch_sources, meetings, weights
from nbdebug.checks.preflight.task import Kind, Task
from nbdebug.checks.preflight.trace import StepTrace
from tests.checks.preflight.looking import look_at
from tests.checks.preflight.losses import DATA, PerStep, binary, mlp, picked, trained

INF = math.inf
SHAPES: dict[str, tuple[Any, tuple[float, float]]] = {
    "linear": (lambda z: z, (-INF, INF)),
    "sigmoid": (torch.sigmoid, (0, 1)),
    "relu": (F.relu, (0, INF)),
    "tanh scaled and moved": (lambda z: 3 * z.tanh() + 1, (-2, 4)),
    "one minus sigmoid": (lambda z: 1 - z.sigmoid(), (0, 1)),
    "sigmoid written out": (lambda z: 1 / (1 + torch.exp(-z)), (0, 1)),
    "mapped to plus and minus": (lambda z: (z.sigmoid() - 0.5) * 2, (-1, 1)),
    "divided": (lambda z: z.tanh() / -4, (-0.25, 0.25)),
    "clamped": (lambda z: z.clamp(-2, 5), (-2, 5)),
    "clamped below": (lambda z: z.clamp(min=0.5), (0.5, INF)),
    "hardtanh": (F.hardtanh, (-1, 1)),
    "exponential": (torch.exp, (0, INF)),
    "softplus of a square": (lambda z: F.softplus(z**2), (math.log(2), INF)),
    "logarithm of a softmax": (lambda z: z.softmax(1).log(), (-INF, 0)),
    "absolute tanh": (lambda z: z.tanh().abs(), (0, 1)),
    "mean over places": (lambda z: z.sigmoid().mean(1, keepdim=True), (0, 1)),
    "sum of positive": (lambda z: z.sigmoid().sum(1, keepdim=True), (0, INF)),
    "product of two": (lambda z: z.sigmoid() * z.tanh(), (-1, 1)),
    "stacked": (lambda z: torch.cat([z.sigmoid(), -z.sigmoid()], 1), (-1, 1)),
    "relu six": (F.relu6, (0, 6)),
    "elu": (lambda z: F.elu(z, 0.5), (-0.5, INF)),
    "weighed by the unknown": (lambda z: z.sigmoid() * torch.ones(1), (-INF, INF)),
    "in place": (lambda z: (z * 1).sigmoid_(), (0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_the_range_of_an_output(case: str) -> None:
    shaped, expected = SHAPES[case]
    trace = traced(lambda o, t: F.mse_loss(shaped(o), torch.zeros_like(shaped(o))), mlp(3))
    assert bounds(trace, trace.losses[0].input_number, trace.losses[0].call.index) == pytest.approx(expected)


@pytest.mark.parametrize("case", SHAPES)
def test_no_output_is_ever_outside_of_its_range(case: str) -> None:
    shaped, (low, high) = SHAPES[case]
    values = shaped(100 * torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
    assert float(values.min()) >= low - 1e-6
    assert float(values.max()) <= high + 1e-6


def traced(
    loss: Any, model: nn.Module | None = None, y: torch.Tensor = DATA.kind, x: torch.Tensor = DATA.x
) -> StepTrace:
    return look_at(*trained(model or mlp(4), loss, y, x)).trace


FACTORS = {
    "itself": (lambda ce: ce, 1.0),
    "minus": (lambda ce: -ce, -1.0),
    "scaled": (lambda ce: 3 * ce / 2 + 1, 1.5),
    "from one": (lambda ce: 1 - 2 * ce, -2.0),
    "inverse": (lambda ce: 1 / ce, -1.0),
    "inverse, negative": (lambda ce: -1 / ce, 1.0),
    "part of a sum": (lambda ce: torch.zeros(()) + 0.1 * ce, 0.1),
    "stacked": (lambda ce: torch.stack([ce, 2 * ce]).sum(), None),
    "root": (lambda ce: ce.sqrt(), 1.0),
    "by what may be negative": (lambda ce: ce * torch.tensor(-1.0), None),
}


@pytest.mark.parametrize("case", FACTORS)
def test_the_factor_with_which_a_loss_is_minimised(case: str) -> None:
    made, expected = FACTORS[case]
    found = meetings(traced(lambda o, t: made(F.cross_entropy(o, t))))[0].coefficient
    if expected is None:
        assert math.isnan(found) or found > 0
    else:
        assert found == pytest.approx(expected)


def test_what_weighs_a_loss_is_no_comparison() -> None:
    trace = traced(lambda o, t: (F.cross_entropy(o, t, reduction="none") * (t > 0)).mean())
    assert [each.loss.name for each in meetings(trace)] == ["cross_entropy"]
    assert [each.name for each in weights(trace)] == ["mul"]
    assert meetings(trace)[0].coefficient == 1


def test_only_shape_is_no_descent() -> None:
    trace = traced(lambda o, t: F.mse_loss(o, torch.zeros_like(o)))
    assert batch_sources(trace, trace.losses[0].target_number or 0) == set()


def test_a_failed_loss_is_kept_with_what_it_got() -> None:
    trace = traced(lambda o, t: F.cross_entropy(o, t + 100))
    assert trace.failed_loss is not None and trace.failed_loss.target is not None
    assert trace.failed_loss.name == "cross_entropy" and int(trace.failed_loss.target.min()) >= 100
    assert isinstance(trace.error, IndexError)


TASKS = {
    "picked": (lambda o, t: -o.log_softmax(1)[torch.arange(len(o)), t].mean(), DATA.kind, Kind.CLASSES, 4),
    "gathered": (lambda o, t: -picked(o.log_softmax(1), t).mean(), DATA.kind, Kind.CLASSES, 4),
    "one-hot": (lambda o, t: -(F.one_hot(t, 4) * o.log_softmax(1)).sum(1).mean(), DATA.kind, Kind.CLASSES, 4),
    "labels": (lambda o, t: binary(o.sigmoid(), t), DATA.labels, Kind.MULTI_LABEL, 0),
    "hinge": (lambda o, t: F.relu(1 - o * (2 * t - 1)).mean(), DATA.labels, Kind.MULTI_LABEL, 0),
    "squares": (lambda o, t: ((o - t) ** 2).mean(), DATA.labels * 3, Kind.REGRESSION, 0),
    "torch's, logged beside": (
        lambda o, t: ((o - t) ** 2).mean() + 0 * F.l1_loss(o.detach(), t), DATA.labels * 3, Kind.REGRESSION, 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TASKS)
def test_what_a_hand_written_loss_is_for(case: str) -> None:
    loss, y, kind, classes = TASKS[case]
    task = look_at(*trained(mlp(4), loss, y)).task
    assert (task.kind, task.classes, task.loss) == (kind, classes, None)
    assert task.by_hand is not None and task.output is not None and task.target is not None
    assert len(task.output) == len(task.target) == 24


def test_rows_of_a_hand_written_loss_of_a_sequence() -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -output.log_softmax(-1).gather(-1, target[..., None]).mean()

    look = look_at(*trained(PerStep(), loss, DATA.tags, DATA.series))
    task: Task = look.task
    assert (task.kind, task.classes) == (Kind.CLASSES, 5)
    assert task.output is not None and task.target is not None
    assert task.output.shape == (240, 5) and torch.equal(task.target, DATA.tags[:24].flatten())
    assert task.output.exp().sum(1) == pytest.approx(torch.ones(240))
