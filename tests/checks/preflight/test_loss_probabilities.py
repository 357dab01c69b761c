"""A distribution too many, or one too few, between the last layer and the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Trainer
from nbdebug.records.commands import SwapActivations
from tests.checks.preflight.looking import judged
from tests.checks.preflight.losses import DATA, Loss, PerStep, binary, focal, mlp, picked, said, trained

RULES = (
    *("softmax_before_cross_entropy", "sigmoid_before_bce_with_logits", "nll_on_probabilities", "softmax_wrong_dim"),
    *("single_class_softmax", "output_activation_mismatch"),
)


def classes(loss: Loss, *last: nn.Module) -> tuple[Any, Trainer]:
    return trained(mlp(4, *last), loss, DATA.kind)


def yes(loss: Any, *last: nn.Module) -> tuple[Any, Trainer]:
    return trained(mlp(1, *last), loss, DATA.yes)


def tags(loss: Loss, last: Any = lambda scores: scores) -> tuple[Any, Trainer]:
    return trained(PerStep(last=last), loss, DATA.tags, DATA.series)


def squeezed(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.squeeze(), target.squeeze())


def divergence(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.kl_div(output, F.one_hot(target, 4).float(), reduction="batchmean")


def own_step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = loss_fn(torch.softmax(model(batch["x"]), dim=-1), batch["y"])
    loss.backward()
    optimizer.step()
    return loss


def by_dict() -> tuple[Any, Trainer]:
    batches = [{"x": DATA.x[:24], "y": DATA.kind[:24]}, {"x": DATA.x[24:48], "y": DATA.kind[24:48]}]
    return trained(mlp(4), nn.CrossEntropyLoss(), DATA.kind, batches=batches, step=own_step)


def mixed(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    soft = 0.7 * F.one_hot(target, 4) + 0.3 * F.one_hot(target.flip(0), 4)
    return F.cross_entropy(output, soft)


FAULTS = {
    "softmax_before_cross_entropy": {
        "layer": lambda: classes(nn.CrossEntropyLoss(), nn.Softmax(1)),
        "dict batch, own step": by_dict,
        "log_softmax by hand": lambda: classes(lambda o, t: -picked(o.log_softmax(1), t).mean(), nn.Softmax(1)),
        "nll of log_softmax": lambda: classes(lambda o, t: F.nll_loss(F.log_softmax(o, 1), t), nn.Softmax(1)),
        "logsumexp by hand": lambda: classes(lambda o, t: (o.logsumexp(1) - picked(o, t)).mean(), nn.Softmax(1)),
        "twice by hand": lambda: classes(lambda o, t: -o.softmax(1).log()[range(len(o)), t].mean(), nn.Softmax(1)),
        "soft targets": lambda: classes(mixed, nn.Softmax(1)),
        "sequence": lambda: tags(lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()), lambda s: s.softmax(-1)),
        "no softmax call": lambda: classes(
            lambda o, t: F.cross_entropy(o.exp() / o.exp().sum(1, keepdim=True), t, label_smoothing=0.1)
        ),
    },
    "sigmoid_before_bce_with_logits": {
        "layer": lambda: yes(nn.BCEWithLogitsLoss(), nn.Sigmoid()),
        "softmax, many labels": lambda: trained(mlp(4, nn.Softmax(1)), nn.BCEWithLogitsLoss(), DATA.labels),
        "written out": lambda: yes(lambda o, t: F.binary_cross_entropy_with_logits(1 / (1 + torch.exp(-o)), t)),
        "by hand": lambda: yes(lambda o, t: binary(o.sigmoid(), t), nn.Sigmoid()),
        "bce": lambda: yes(lambda o, t: F.binary_cross_entropy(torch.sigmoid(o), t), nn.Sigmoid()),
        "logsigmoid": lambda: yes(nn.BCEWithLogitsLoss(), nn.LogSigmoid()),
        "squeezed": lambda: yes(
            lambda o, t: F.binary_cross_entropy_with_logits(o.sigmoid().squeeze(1), t.squeeze(1), reduction="sum")
        ),
    },
    "nll_on_probabilities": {
        "probabilities": lambda: classes(nn.NLLLoss(), nn.Softmax(1)),
        "scores": lambda: classes(nn.NLLLoss()),
        "sequence": lambda: tags(lambda o, t: F.nll_loss(o.transpose(1, 2), t), lambda s: s.softmax(-1)),
        "no distribution": lambda: classes(lambda o, t: F.nll_loss(-F.relu(o) * 0.1, t)),
        "scores by hand": lambda: classes(lambda o, t: -picked(o, t).mean()),
        "divergence": lambda: classes(divergence, nn.Softmax(1)),
    },
    "softmax_wrong_dim": {
        "over the batch": lambda: classes(nn.NLLLoss(), nn.LogSoftmax(0)),
        "over the batch, by hand": lambda: classes(
            lambda o, t: -(F.one_hot(t, 4) * (o.softmax(0) + 1e-8).log()).sum(1).mean()
        ),
        "over the batch, picked": lambda: classes(lambda o, t: -(picked(o.softmax(0), t) + 1e-8).log().mean()),
        "over time": lambda: tags(lambda o, t: F.nll_loss(o.flatten(0, 1), t.flatten()), lambda s: s.log_softmax(1)),
        "guessed dimension": lambda: tags(lambda o, t: F.nll_loss(o.transpose(1, 2), t), nn.LogSoftmax()),
        "squares": lambda: trained(
            mlp(4), lambda o, t: F.mse_loss(o.softmax(0), F.one_hot(t, 4).float()), DATA.kind
        ),
    },
    "single_class_softmax": {
        "cross entropy": lambda: yes(nn.CrossEntropyLoss()),
        "samples taken for classes": lambda: yes(squeezed),
        "softmax before bce": lambda: yes(nn.BCELoss(), nn.Softmax(1)),
        "softmax before squares": lambda: yes(nn.MSELoss(), nn.Softmax(dim=-1)),
        "log_softmax by hand": lambda: yes(lambda o, t: -(t * o.log_softmax(1)).mean()),
    },
    "output_activation_mismatch": {
        "relu before regression": lambda: trained(mlp(1, nn.ReLU()), nn.MSELoss(), DATA.number),
        "sigmoid before regression": lambda: trained(mlp(1, nn.Sigmoid()), nn.L1Loss(), DATA.number),
        "tanh by hand": lambda: trained(mlp(1, nn.Tanh()), lambda o, t: ((t - o) ** 2).mean(), DATA.number),
        "tanh before logits": lambda: yes(nn.BCEWithLogitsLoss(), nn.Tanh()),
        "relu before logits": lambda: yes(nn.BCEWithLogitsLoss(), nn.ReLU()),
        "sigmoid before cross entropy": lambda: classes(nn.CrossEntropyLoss(), nn.Sigmoid()),
        "relu before cross entropy": lambda: classes(nn.CrossEntropyLoss(), nn.ReLU()),
        "no sigmoid before bce": lambda: yes(nn.BCELoss()),
        "softmax for many labels": lambda: trained(mlp(4, nn.Softmax(1)), nn.BCELoss(), DATA.labels),
        "softplus for both signs": lambda: trained(mlp(1), lambda o, t: F.huber_loss(F.softplus(o), t), DATA.number),
    },
}  # fmt: skip
HEALTHY = {
    "cross entropy": lambda: classes(nn.CrossEntropyLoss()),
    "smoothed": lambda: classes(nn.CrossEntropyLoss(label_smoothing=0.1)),
    "soft targets": lambda: classes(mixed),
    "log_softmax twice is the same": lambda: classes(nn.CrossEntropyLoss(), nn.LogSoftmax(1)),
    "nll of log_softmax": lambda: classes(nn.NLLLoss(), nn.LogSoftmax(1)),
    "nll of log of softmax": lambda: classes(lambda o, t: F.nll_loss((o.softmax(1) + 1e-8).log(), t)),
    "focal": lambda: classes(focal),
    "by hand, picked": lambda: classes(lambda o, t: -o.log_softmax(1)[range(len(o)), t].mean()),
    "by hand, gathered": lambda: classes(lambda o, t: -(picked(o.softmax(1), t) + 1e-8).log().mean()),
    "by hand, logsumexp": lambda: classes(lambda o, t: (o.logsumexp(1) - picked(o, t)).mean()),
    "by hand, one-hot": lambda: classes(lambda o, t: -(F.one_hot(t, 4) * o.log_softmax(1)).sum(1).mean()),
    "distribution object": lambda: classes(lambda o, t: -torch.distributions.Categorical(logits=o).log_prob(t).mean()),
    "hinge": lambda: classes(lambda o, t: F.relu(1 + o - picked(o, t)[:, None]).mean()),
    "last class dropped from a distribution": lambda: trained(
        mlp(5), lambda o, t: F.nll_loss(o.log_softmax(1)[:, :4], t), DATA.kind
    ),
    "soft-capped scores": lambda: classes(lambda o, t: F.cross_entropy(30 * torch.tanh(o / 30), t)),
    "scores clamped": lambda: classes(lambda o, t: F.cross_entropy(o.clamp(-15, 15), t)),
    "squares of probabilities": lambda: classes(lambda o, t: F.mse_loss(o.softmax(1), F.one_hot(t, 4).float())),
    "logits": lambda: yes(nn.BCEWithLogitsLoss()),
    "clamped logits": lambda: yes(lambda o, t: F.binary_cross_entropy_with_logits(o.clamp(-10, 10), t)),
    "probabilities": lambda: yes(nn.BCELoss(), nn.Sigmoid()),
    "probabilities by hand": lambda: yes(lambda o, t: binary(o.sigmoid(), t)),
    "tanh made into a probability": lambda: yes(lambda o, t: F.binary_cross_entropy((o.tanh() + 1) / 2, t)),
    "gated scores": lambda: yes(nn.BCEWithLogitsLoss(), nn.SiLU(), nn.Linear(1, 1)),
    "many labels": lambda: trained(mlp(4), nn.BCEWithLogitsLoss(), DATA.labels),
    "regression": lambda: trained(mlp(1), nn.MSELoss(), DATA.number),
    "relu for positive numbers": lambda: trained(mlp(1, nn.ReLU()), nn.MSELoss(), DATA.number.abs()),
    "scaled tanh": lambda: trained(mlp(1), lambda o, t: F.mse_loss(10 * torch.tanh(o), t), DATA.number),
    "sigmoid for shares": lambda: trained(mlp(1, nn.Sigmoid()), nn.MSELoss(), DATA.number.sigmoid()),
    "scaled by a buffer": lambda: trained(
        mlp(1, nn.Tanh(), nn.BatchNorm1d(1, affine=False)), nn.MSELoss(), DATA.number
    ),
    "tags": lambda: tags(lambda o, t: F.cross_entropy(o.transpose(1, 2), t)),
    "tags, log_softmax": lambda: tags(lambda o, t: F.nll_loss(o.transpose(1, 2), t), lambda s: s.log_softmax(2)),
    "place in a series": lambda: trained(
        PerStep(1, lambda s: s.squeeze(-1).log_softmax(1)), nn.NLLLoss(), DATA.tags[:, 0], DATA.series
    ),
    "softmax over time inside": lambda: trained(
        PerStep(4, lambda s: (s.softmax(1) * s).sum(1)), nn.CrossEntropyLoss(), DATA.kind, DATA.series
    ),
    "one step under attention": lambda: trained(
        PerStep(4, lambda s: (s[:, :1].softmax(1) * s[:, :1]).sum(1)), nn.CrossEntropyLoss(), DATA.kind, DATA.series
    ),
    "contrast with the batch": lambda: trained(
        mlp(8), lambda o, t: F.cross_entropy(o @ o.T / 0.1, torch.arange(len(o))), DATA.kind
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Implicit dimension", "ignore:Using a target size")
@pytest.mark.parametrize(("cause", "case"), [(cause, case) for cause, cases in FAULTS.items() for case in cases])
def test_a_planted_fault_is_named(cause: str, case: str) -> None:
    assert cause in said(cause, FAULTS[cause][case]())


@pytest.mark.parametrize("case", HEALTHY)
def test_a_sound_loss_is_left_alone(case: str) -> None:
    assert {rule: said(rule, HEALTHY[case]()) for rule in RULES} == {rule: [] for rule in RULES}


def test_a_layer_that_can_be_exchanged_is_left_out_by_command() -> None:
    finding = judged("sigmoid_before_bce_with_logits", *yes(nn.BCEWithLogitsLoss(), nn.Sigmoid())).findings[0]
    assert finding.remedies[0].command == SwapActivations("identity", ("3",))
    assert finding.layers == ("3",)


def test_a_softmax_layer_is_left_out_by_code_in_the_users_names() -> None:
    finding = judged("softmax_before_cross_entropy", *classes(nn.CrossEntropyLoss(), nn.Softmax(1))).findings[0]
    assert finding.remedies[0].code == "model[3] = torch.nn.Identity()"


def test_a_loss_that_is_only_read_is_not_judged() -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            F.cross_entropy(output.softmax(1), target)
        return F.cross_entropy(output, target)

    assert said("softmax_before_cross_entropy", classes(loss)) == []
