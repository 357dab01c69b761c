"""The loss's sign, size and parts, and the metrics beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Trainer
from nbdebug.records.checks import CheckResult
from tests.checks.preflight.looking import judged, warned
from tests.checks.preflight.losses import DATA, Loss, PerStep, battery, binary, mlp, picked, said, trained


def sgd(rate: float, **options: Any) -> Any:
    return lambda parameters: torch.optim.SGD(parameters, rate, **options)


def adam(rate: float, **options: Any) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, rate, **options)


def classes(loss: Loss, *last: nn.Module, **options: Any) -> tuple[Any, Trainer]:
    return trained(mlp(4, *last), loss, DATA.kind, **options)


def numbers(loss: Loss, **options: Any) -> tuple[Any, Trainer]:
    return trained(mlp(1), loss, DATA.number, **options)


class Vae(nn.Module):
    """An autoencoder with a random code."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, log = self.inner(x).chunk(2, 1)
        return self.outer(mean + torch.randn_like(mean) * (log / 2).exp()), mean, log


def elbo(output: Any, target: torch.Tensor) -> torch.Tensor:
    made, mean, log = output
    likelihood = F.mse_loss(made, target, reduction="sum")
    return likelihood - 0.5 * (1 + log - mean.pow(2) - log.exp()).sum()


SUMMED = {
    "option": lambda: numbers(nn.MSELoss(reduction="sum"), optimizer=sgd(0.05)),
    "sum of each": lambda: classes(lambda o, t: F.cross_entropy(o, t, reduction="none").sum(), optimizer=sgd(0.1)),
    "under adam": lambda: classes(nn.CrossEntropyLoss(reduction="sum")),
    "momentum, sequence": lambda: trained(
        PerStep(), lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten(), reduction="sum"), DATA.tags, DATA.series,
        optimizer=sgd(0.01, momentum=0.9),
    ),
}  # fmt: skip
SUMMED_BY_HAND = {
    "squares": lambda: numbers(lambda o, t: ((o - t) ** 2).sum(), optimizer=sgd(0.05)),
    "likelihood": lambda: classes(lambda o, t: -picked(o.log_softmax(1), t).sum(), optimizer=sgd(0.1)),
    "loop": lambda: numbers(
        lambda o, t: sum((a - b).pow(2).sum() for a, b in zip(o, t, strict=True)), optimizer=sgd(0.1)
    ),
}  # fmt: skip
MEAN = {
    "mean": lambda: classes(nn.CrossEntropyLoss(), optimizer=sgd(0.1)),
    "sum divided by samples": lambda: classes(
        lambda o, t: F.cross_entropy(o, t, reduction="sum") / len(t), optimizer=sgd(0.1)
    ),
    "sum over labels": lambda: trained(
        mlp(4), lambda o, t: F.binary_cross_entropy_with_logits(o, t, reduction="none").sum(1).mean(), DATA.labels
    ),
    "masked mean": lambda: classes(
        lambda o, t: (F.cross_entropy(o, t, reduction="none") * (t > 0)).sum() / (t > 0).sum(), optimizer=sgd(0.1)
    ),
    "rate chosen for a sum": lambda: numbers(nn.MSELoss(reduction="sum"), optimizer=sgd(1e-3)),
    "bound of an autoencoder": lambda: trained(Vae(), elbo, DATA.x),
    "all data at once": lambda: trained(
        mlp(1), nn.MSELoss(reduction="sum"), DATA.number, batches=[(DATA.x, DATA.number)]
    ),
    "one sample": lambda: trained(
        mlp(1), nn.MSELoss(reduction="sum"), DATA.number, batches=[(DATA.x[:1], DATA.number[:1])] * 3
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SUMMED)
def test_a_sum_is_told_by_the_call_and_by_doubling(case: str) -> None:
    assert said("loss_reduction_sum", SUMMED[case]()) == ["loss_reduction_sum"]
    assert warned(battery("loss_reduction_sum", SUMMED[case]())) == ["loss_reduction_sum"]


@pytest.mark.parametrize("case", SUMMED_BY_HAND)
def test_a_sum_by_hand_is_told_by_doubling(case: str) -> None:
    assert warned(battery("loss_reduction_sum", SUMMED_BY_HAND[case]())) == ["loss_reduction_sum"]


@pytest.mark.parametrize("case", MEAN)
def test_a_mean_is_left_alone(case: str) -> None:
    assert said("loss_reduction_sum", MEAN[case]()) == []
    assert warned(battery("loss_reduction_sum", MEAN[case]())) == []


def reversed_step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = loss_fn(model(batch[0]), batch[1])
    (-loss / 2).backward()
    optimizer.step()
    return loss


UPHILL = {
    "minus": lambda: classes(lambda o, t: -F.cross_entropy(o, t)),
    "maximize": lambda: classes(nn.CrossEntropyLoss(), optimizer=sgd(0.1, maximize=True)),
    "own step": lambda: numbers(nn.MSELoss(), step=reversed_step),
    "one minus": lambda: numbers(lambda o, t: 1 - F.mse_loss(o, t)),
    "inverse": lambda: numbers(lambda o, t: 1 / (1e-3 + F.l1_loss(o, t))),
    "masked": lambda: classes(lambda o, t: -(F.cross_entropy(o, t, reduction="none") * (t > 0)).sum() / (t > 0).sum()),
}  # fmt: skip
UPHILL_BY_HAND = {
    "likelihood, no minus": lambda: classes(lambda o, t: picked(o.log_softmax(1), t).mean(), optimizer=adam(0.01)),
    "distribution object": lambda: classes(
        lambda o, t: torch.distributions.Categorical(logits=o).log_prob(t).mean(), optimizer=adam(1e-2)
    ),
    "one-hot": lambda: classes(
        lambda o, t: (F.one_hot(t, 4) * o.log_softmax(1)).sum(1).mean(), optimizer=adam(1e-2)
    ),
    "binary": lambda: trained(mlp(1, nn.Sigmoid()), lambda o, t: -binary(o, t), DATA.yes, optimizer=adam(1e-2)),
    "squares": lambda: numbers(lambda o, t: -((t - o) ** 2).mean(), optimizer=adam(3e-2)),
}  # fmt: skip


def adversary(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A task, and a second one that is to fail: as for domains that shall not be told apart."""
    return F.cross_entropy(output, target) - 0.1 * F.cross_entropy(output.flip(1), target % 2)


DOWNHILL = {
    "cross entropy": lambda: classes(nn.CrossEntropyLoss()),
    "scaled": lambda: classes(lambda o, t: 3 * F.cross_entropy(o, t) / 7 - 1),
    "two minuses": lambda: numbers(lambda o, t: -(F.mse_loss(o, t).neg())),
    "minus of a profit": lambda: numbers(lambda o, t: -1 / (1 + F.mse_loss(o, t))),
    "maximised likelihood": lambda: classes(lambda o, t: -F.cross_entropy(o, t), optimizer=sgd(0.1, maximize=True)),
    "adversary": lambda: classes(adversary),
    "against constants": lambda: numbers(lambda o, t: -F.binary_cross_entropy_with_logits(o, torch.zeros_like(o))),
    "critic": lambda: numbers(lambda o, t: -o.mean() + o.square().mean()),
    "likelihood": lambda: classes(lambda o, t: -picked(o.log_softmax(1), t).mean(), optimizer=adam(1e-2)),
    "squares": lambda: numbers(lambda o, t: (t - o).square().mean(), optimizer=adam(3e-2)),
    "binary": lambda: trained(mlp(1, nn.Sigmoid()), binary, DATA.yes, optimizer=adam(1e-2)),
    "correlation": lambda: numbers(lambda o, t: -(o * (t - t.mean())).mean() / o.std(), optimizer=adam(1e-2)),
    "density below zero": lambda: numbers(lambda o, t: 5 * ((o - t) ** 2).mean() - 100, optimizer=adam(1e-2)),
}  # fmt: skip


@pytest.mark.parametrize("case", UPHILL)
def test_training_uphill_is_told_by_signs(case: str) -> None:
    assert said("loss_sign_error", UPHILL[case]()) == ["loss_sign_error"]


@pytest.mark.parametrize("case", UPHILL_BY_HAND)
def test_training_uphill_by_hand_is_told_by_steps(case: str) -> None:
    assert said("loss_sign_error", UPHILL_BY_HAND[case]()) == []  # first steps alone do not tell
    assert warned(battery("loss_sign_error", UPHILL_BY_HAND[case]())) == ["loss_sign_error"]


@pytest.mark.parametrize("case", DOWNHILL)
def test_training_downhill(case: str) -> None:
    assert said("loss_sign_error", DOWNHILL[case]()) == []
    assert warned(battery("loss_sign_error", DOWNHILL[case]())) == []


class TwoHeads(nn.Module):
    """Classes and a number from one body."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.body, self.kind, self.size = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.body(x).relu()
        return self.kind(h), self.size(h)


def both(share: Any) -> Loss:
    def loss(output: Any, target: torch.Tensor) -> torch.Tensor:
        part = F.mse_loss(output[1], target[:, None].float())
        return F.cross_entropy(output[0], target) + share(part)

    return loss


def heads(share: Any) -> CheckResult:
    return judged("loss_part_dropped", *trained(TwoHeads(), both(share), DATA.kind))


@pytest.mark.parametrize("share", [lambda p: p.item(), lambda p: p.detach(), lambda p: 0, lambda p: p.data])
def test_a_head_whose_loss_gets_lost(share: Any) -> None:
    result = heads(share)
    assert warned(result) == ["loss_part_dropped"]
    assert result.findings[0].layers == ("size",)


@pytest.mark.parametrize("share", [lambda p: p, lambda p: 0.01 * p, lambda p: p.sqrt()])
def test_a_part_that_counts(share: Any) -> None:
    assert heads(share).findings == ()


def test_a_part_that_hardly_counts_is_told_quietly() -> None:
    result = heads(lambda part: 1e-9 * part)
    assert [str(each.severity) for each in result.findings] == ["info"]


def test_an_error_that_is_only_read_is_told_quietly() -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        F.l1_loss(output, target)
        return F.mse_loss(output, target)

    result = judged("loss_part_dropped", *numbers(loss))
    assert [str(each.severity) for each in result.findings] == ["info"]


def scaled(model: nn.Sequential, factor: float) -> nn.Sequential:
    with torch.no_grad():
        model[2].weight *= factor
    return model


def test_a_first_loss_far_above_guessing() -> None:
    loud = trained(scaled(mlp(4), 1e4), nn.CrossEntropyLoss(), DATA.kind)
    assert said("initial_loss", loud) == ["initial_loss"]
    assert said("initial_loss", trained(scaled(mlp(1), 1e4), nn.MSELoss(), DATA.number)) == ["initial_loss"]


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0, 30.0])
def test_a_first_loss_near_guessing(factor: float) -> None:
    assert said("initial_loss", trained(scaled(mlp(4), factor), nn.CrossEntropyLoss(), DATA.kind)) == []
    assert said("initial_loss", trained(scaled(mlp(1), factor), nn.MSELoss(), DATA.number)) == []


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


class Counting:
    """A metric that keeps count."""

    def __init__(self) -> None:
        self.right = self.seen = 0

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> float:
        self.right += int((output.argmax(1) == target).sum())
        self.seen += len(target)
        return self.right / self.seen


def of_yes(metric: Any, *last: nn.Module) -> tuple[Any, Trainer]:
    loss = nn.BCELoss() if last else nn.BCEWithLogitsLoss()
    return trained(mlp(1, *last), loss, DATA.yes, metrics={"accuracy": metric})


def of_classes(**metrics: Any) -> tuple[Any, Trainer]:
    return classes(nn.CrossEntropyLoss(), metrics=metrics)


WRONG = {
    "the first sample's answer for all": lambda: of_classes(accuracy=lambda o, t: (o.argmax(1)[0] == t).float().mean()),
    "threshold of a half on logits": lambda: of_yes(lambda o, t: ((o > 0.5) == t).float().mean()),
    "rounded logits": lambda: of_yes(lambda o, t: (o.round() == t).float().mean()),
    "broadcast": lambda: of_yes(lambda o, t: ((o[:, 0] > 0) == t).float().mean()),
    "least likely class": lambda: of_classes(accuracy=lambda o, t: (o.argmin(1) == t).float().mean()),
    "argmax over the batch": lambda: of_classes(accuracy=lambda o, t: (o.argmax(0) == t[:4]).float().mean()),
    "always wrong": lambda: of_yes(lambda o, t: (o.round().clamp(2, 3) == t).float().mean()),
    "error by broadcasting": lambda: numbers(nn.MSELoss(), metrics={"mae": lambda o, t: (o[:, 0] - t).abs().mean()}),
}  # fmt: skip
RIGHT = {
    "accuracy": lambda: of_classes(accuracy=accuracy),
    "error rate": lambda: of_classes(error=lambda o, t: 1 - accuracy(o, t)),
    "count": lambda: of_classes(correct=lambda o, t: (o.argmax(1) == t).sum()),
    "with a state": lambda: of_classes(accuracy=Counting()),
    "top two": lambda: of_classes(top2=lambda o, t: (o.topk(2, 1).indices == t[:, None]).any(1).float().mean()),
    "top of all": lambda: of_classes(top4=lambda o, t: (o.topk(4, 1).indices == t[:, None]).any(1).float().mean()),
    "loss again": lambda: of_classes(nll=lambda o, t: F.cross_entropy(o, t)),
    "confidence": lambda: of_classes(confidence=lambda o, t: o.softmax(1).amax(1).mean()),
    "raises": lambda: of_classes(strange=lambda o, t: o.no_such_thing),
    "logits above zero": lambda: of_yes(lambda o, t: ((o > 0) == t).float().mean()),
    "probabilities above a half": lambda: of_yes(lambda o, t: ((o > 0.5) == t).float().mean(), nn.Sigmoid()),
    "recall": lambda: of_yes(lambda o, t: ((o > 0) * t).sum() / t.sum()),
    "mean error": lambda: numbers(nn.MSELoss(), metrics={"mae": lambda o, t: (o - t).abs().mean()}),
    "overlap of probabilities": lambda: trained(
        mlp(1, nn.Sigmoid()), nn.BCELoss(), (DATA.x[:, :1] > -1.2).float(),
        metrics={"dice": lambda o, t: 2 * (o * t).sum() / (o.sum() + t.sum())},
    ),
    "bias": lambda: numbers(nn.MSELoss(), metrics={"bias": lambda o, t: (o - t).mean()}),
    "share explained": lambda: numbers(
        nn.MSELoss(), metrics={"r2": lambda o, t: 1 - (o - t).square().sum() / (t - t.mean()).square().sum()}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_metric_that_can_not_tell_right_from_wrong(case: str) -> None:
    assert warned(battery("metric_error", WRONG[case]())) == ["metric_error"]


@pytest.mark.parametrize("case", RIGHT)
def test_a_metric_that_can(case: str) -> None:
    assert battery("metric_error", RIGHT[case]()).findings == ()


def test_a_metric_with_a_state_keeps_it() -> None:
    metric = Counting()
    model, trainer = of_classes(accuracy=metric)
    assert battery("metric_error", (model, trainer)).measured
    assert metric.seen == 0
