"""What the loss compares: samples with their own targets, without padding, without a few far ones that rule it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Trainer
from tests.checks.preflight.losses import BATCH, DATA, SAMPLES, PerStep, binary, mlp, said, trained

made = torch.Generator().manual_seed(1)
LENGTHS = torch.randint(2, 8, (SAMPLES,), generator=made)
INSIDE = torch.arange(10) < LENGTHS[:, None]
TAGS = (DATA.tags + 1) * INSIDE
SERIES = DATA.series * INSIDE[..., None]
FLAT = DATA.number[:, 0]
PICTURES = torch.randn(SAMPLES, 1, 5, 5, generator=made)


def regression(loss: Any, y: torch.Tensor, *last: nn.Module) -> tuple[Any, Trainer]:
    return trained(mlp(1, *last), loss, y)


def pictures(loss: Any, y: torch.Tensor) -> tuple[Any, Trainer]:
    torch.manual_seed(0)
    return trained(nn.Conv2d(1, 1, 3, padding=1), loss, y, PICTURES)


def one_loss_each(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    each = F.cross_entropy(output, target[:, 0].long(), reduction="none")
    return (each * target[:, 1:]).mean()


def own_step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> dict[str, Any]:
    optimizer.zero_grad()
    output = model(batch["x"])
    loss = torch.sqrt(((output - batch["y"]) ** 2).mean())
    loss.backward()
    optimizer.step()
    return {"loss": loss, "output": output, "target": batch["y"]}


def by_dict() -> tuple[Any, Trainer]:
    batches = [{"x": DATA.x[:24], "y": FLAT[:24]}, {"x": DATA.x[24:48], "y": FLAT[24:48]}]
    return trained(mlp(1), nn.MSELoss(), FLAT, batches=batches, step=own_step)


OUTER = {
    "column against row": lambda: regression(nn.MSELoss(), FLAT),
    "row against column": lambda: regression(nn.L1Loss(), DATA.number, nn.Flatten(0)),
    "by hand": lambda: regression(lambda o, t: (o - t).abs().mean(), FLAT),
    "own step, dict batch": by_dict,
    "binary by hand": lambda: trained(mlp(1, nn.Sigmoid()), binary, DATA.yes[:, 0]),
    "channel lost": lambda: pictures(lambda o, t: ((o - t) ** 2).mean(), PICTURES[:, 0]),
    "weights of samples": lambda: trained(
        mlp(4), one_loss_each, torch.cat([DATA.kind[:, None].float(), DATA.yes], 1)
    ),
}  # fmt: skip
ALIGNED = {
    "columns": lambda: regression(nn.MSELoss(), DATA.number),
    "rows": lambda: regression(nn.MSELoss(), FLAT, nn.Flatten(0)),
    "squeezed in the loss": lambda: regression(lambda o, t: F.mse_loss(o.squeeze(1), t), FLAT),
    "quantiles": lambda: trained(mlp(3), lambda o, t: (t[:, None] - o).abs().mean(), FLAT),
    "target is one number": lambda: regression(lambda o, t: F.mse_loss(o, torch.ones(1)), FLAT),
    "pairs within the batch": lambda: regression(lambda o, t: F.relu(1 - (o - o.T) * (t - t.T)).mean(), DATA.number),
    "ensemble": lambda: trained(mlp(3), lambda o, t: ((o.T[..., None] - t) ** 2).mean(), DATA.number),
    "batch of one": lambda: trained(mlp(1), nn.MSELoss(), FLAT, batches=[(DATA.x[:1], FLAT[:1])] * 2),
    "weights of samples": lambda: trained(
        mlp(4),
        lambda o, t: (F.cross_entropy(o, t[:, 0].long(), reduction="none") * t[:, 1]).mean(),
        torch.cat([DATA.kind[:, None].float(), DATA.yes], 1),
    ),
    "a picture's channel": lambda: pictures(nn.MSELoss(), PICTURES),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", OUTER)
def test_each_sample_against_all_targets(case: str) -> None:
    assert said("loss_shape_broadcast", OUTER[case]()) == ["loss_shape_broadcast"]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", ALIGNED)
def test_broadcasting_on_purpose(case: str) -> None:
    assert said("loss_shape_broadcast", ALIGNED[case]()) == []


def series(loss: Any, y: torch.Tensor = TAGS, x: torch.Tensor = SERIES, out: int = 6) -> tuple[Any, Trainer]:
    return trained(PerStep(out), loss, y, x)


def entropy(output: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    return F.cross_entropy(output.transpose(1, 2), target, **options)


def by_hand(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -output.log_softmax(-1).gather(-1, target[..., None])[..., 0]


def masked(each: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (each * mask).sum() / mask.sum()


def where_input_ends(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output[..., 0], target)


WEIGHTS = torch.tensor([0.0, 1, 1, 1, 1, 1])
PADDED = {
    "classes": lambda: series(entropy),
    "flattened": lambda: series(lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten())),
    "another value ignored": lambda: series(lambda o, t: entropy(o, t, ignore_index=5)),
    "filled on the left": lambda: series(entropy, TAGS.flip(1), SERIES.flip(1)),
    "by hand": lambda: series(lambda o, t: by_hand(o, t).mean()),
    "a mask of ones": lambda: series(lambda o, t: masked(entropy(o, t, reduction="none"), torch.ones_like(t).float())),
    "the common tag is the filling": lambda: series(entropy, DATA.tags * INSIDE, SERIES),
    "numbers": lambda: series(where_input_ends, DATA.series[..., 1] * INSIDE, SERIES, 1),
}  # fmt: skip
NOT_PADDED = {
    "ignored": lambda: series(lambda o, t: entropy(o, t, ignore_index=0)),
    "marked as ignored": lambda: series(entropy, torch.where(INSIDE, DATA.tags, -100)),
    "masked": lambda: series(lambda o, t: masked(entropy(o, t, reduction="none"), (t != 0).float())),
    "masked by hand": lambda: series(lambda o, t: masked(by_hand(o, t), (t != 0).float())),
    "picked": lambda: series(lambda o, t: F.cross_entropy(o[t != 0], t[t != 0])),
    "picked afterwards": lambda: series(lambda o, t: entropy(o, t, reduction="none")[t != 0].mean()),
    "selected afterwards": lambda: series(lambda o, t: entropy(o, t, reduction="none").masked_select(t != 0).mean()),
    "weight of zero": lambda: series(lambda o, t: entropy(o, t, weight=WEIGHTS)),
    "numbers, masked": lambda: series(
        lambda o, t: F.mse_loss(o[..., 0] * (t != 0), t), DATA.series[..., 1] * INSIDE, SERIES, 1
    ),
    "nothing filled up": lambda: series(entropy, DATA.tags, DATA.series),
    "ends in silence, as inside": lambda: series(entropy, torch.where(DATA.tags > 2, DATA.tags, 0), DATA.series),
    "one mark at the end": lambda: series(entropy, torch.cat([DATA.tags[:, 1:], torch.full((SAMPLES, 1), 5)], 1)),
    "a class for a series": lambda: trained(PerStep(4, lambda s: s[:, -1]), nn.CrossEntropyLoss(), DATA.kind, SERIES),
    "a table": lambda: trained(mlp(4), nn.CrossEntropyLoss(), DATA.kind),
    "steps of an order that are reached": lambda: trained(
        mlp(5), nn.BCEWithLogitsLoss(), (torch.randint(6, (SAMPLES, 1)) > torch.arange(5)).float()
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PADDED)
def test_padding_that_counts(case: str) -> None:
    assert said("padding_in_loss", PADDED[case]()) == ["padding_in_loss"]


@pytest.mark.parametrize("case", NOT_PADDED)
def test_padding_that_does_not_count(case: str) -> None:
    assert said("padding_in_loss", NOT_PADDED[case]()) == []


def far(count: int, factor: float) -> torch.Tensor:
    """Numbers, some of them far out."""
    target = DATA.number.clone()
    target[:: SAMPLES // count][:count] *= factor
    return target


HEAVY = {
    "a few far out": lambda: regression(nn.MSELoss(), far(3, 1e3)),
    "by hand": lambda: regression(lambda o, t: (o - t).pow(2).mean(), far(2, 300)),
    "norm": lambda: regression(lambda o, t: torch.square(t - o).mean().sqrt(), far(2, 300)),
}
LIGHT = {
    "normal": lambda: regression(nn.MSELoss(), DATA.number),
    "huber": lambda: regression(nn.HuberLoss(), far(3, 1e3)),
    "absolute": lambda: regression(lambda o, t: (o - t).abs().mean(), far(3, 1e3)),
    "log-normal": lambda: regression(nn.MSELoss(), DATA.number.mul(0.5).exp()),
    "two groups": lambda: regression(nn.MSELoss(), DATA.number + 500 * DATA.yes),
    "mostly zero": lambda: regression(nn.MSELoss(), torch.where(DATA.number > 2, DATA.number, 0)),
    "uniform": lambda: regression(nn.MSELoss(), torch.rand(SAMPLES, 1, generator=made)),
}


@pytest.mark.parametrize("case", HEAVY)
def test_targets_far_out_under_a_squared_error(case: str) -> None:
    assert said("target_outliers", HEAVY[case]()) == ["target_outliers"]


@pytest.mark.parametrize("case", LIGHT)
def test_targets_that_a_squared_error_can_bear(case: str) -> None:
    assert said("target_outliers", LIGHT[case]()) == []


def test_batches_have_more_than_one_sample() -> None:
    assert BATCH > 1  # what the cases above rely on
