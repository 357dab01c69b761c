"""Splits that differ or share samples, and targets among the inputs, are named; what is natural is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, judged, told_apart

Tensors = tuple[torch.Tensor, ...]
N = 320


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def split(train: Tensors, val: Tensors | None, outputs: int = 4, model: Any = None, loss: Any = None) -> Program:
    x, y = train
    model = model or mlp(x[0].numel(), outputs)
    loss = loss or (nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss())
    loader = DataLoader(TensorDataset(*train), 32, shuffle=True)
    beside = DataLoader(TensorDataset(*val), 32) if val is not None else None
    return model, Trainer(SGD(model.parameters(), 1e-3), loss, loader, beside)


def labels(size: int, count: int = 4) -> torch.Tensor:
    return torch.randint(count, (size,))


def pictures(size: int) -> torch.Tensor:
    return torch.rand(size, 3, 8, 8) * torch.rand(size, 1, 1, 1)


# -- train_val_mismatch -------------------------------------------------------------------------------------------


def validation_not_divided_by_255() -> Program:
    return split((pictures(N), labels(N)), (255 * pictures(96), labels(96)))


def validation_not_standardised() -> Program:
    x, val = torch.randn(N, 6), 50 + 9 * torch.randn(96, 6)
    return split((x, labels(N)), (val, labels(96)))


def validation_in_negative() -> Program:
    x, val = torch.rand(N, 1, 8, 8) ** 3, 1 - torch.rand(96, 1, 8, 8) ** 3
    return split((x, labels(N)), (val, labels(96)))


def validation_lies_on_its_side() -> Program:
    pool = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), mlp(32, 4))
    return split((torch.rand(N, 1, 6, 10), labels(N)), (torch.rand(96, 1, 10, 6), labels(96)), model=pool)


def a_class_held_back() -> Program:
    y = labels(N)
    return split((torch.randn(N, 6), y.clamp(max=2)), (torch.randn(96, 6), labels(96)))


def targets_only_scaled_in_training() -> Program:
    return split((torch.randn(N, 6), torch.randn(N, 1)), (torch.randn(96, 6), 40 + 12 * torch.randn(96, 1)), 1)


def validation_within_training() -> Program:
    x, y = torch.randn(N, 6), labels(N)
    return split((x, y), (x[:96], y[:96]))


def a_quarter_of_validation_within_training() -> Program:
    x, y = pictures(N), labels(N)
    val = torch.cat([pictures(72), x[:24]])
    return split((x, y), (val, labels(96)))


def columns_in_other_units() -> Program:
    units = torch.tensor([1.0, 20.0, 0.05, 8.0])
    x = torch.randn(N, 4)
    return split((x, labels(N)), (torch.randn(96, 4) * units, labels(96)))


def a_plain_split() -> Program:
    return split((torch.randn(N, 6), labels(N)), (torch.randn(64, 6), labels(64)))


def training_augmented() -> Program:
    x = pictures(N)
    x = (x * (0.7 + 0.6 * torch.rand(N, 1, 1, 1)) + 0.05 * torch.randn_like(x)) * (torch.rand(N, 1, 8, 8) < 0.85)
    return split((x, labels(N)), (pictures(96), labels(96)))


def later_times_in_validation() -> Program:
    series = torch.linspace(0, 4, N + 96 + 12) + 0.3 * torch.randn(N + 96 + 12)
    x = series.unfold(0, 12, 1)[: N + 96]
    y = series[12 : 12 + N + 96, None]
    return split((x[:N], y[:N]), (x[N:], y[N:]), 1)


def training_balanced_and_validation_as_it_comes() -> Program:
    y = (torch.rand(160) < 0.04).long()
    y[:6] = 1
    return split((torch.randn(N, 6), labels(N, 2)), (torch.randn(160, 6), y), 2)


def few_validation_samples() -> Program:
    return split((torch.randn(N, 6), labels(N, 10)), (torch.randn(20, 6), labels(20, 10)), 10)


def one_drifting_column() -> Program:
    x, val = torch.randn(N, 6), torch.randn(96, 6)
    val[:, 2] += 2.5
    return split((x, labels(N)), (val, labels(96)))


def the_same_boxes_ticked() -> Program:
    return split((torch.randint(3, (N, 4)).float(), labels(N)), (torch.randint(3, (96, 4)).float(), labels(96)))


def larger_crops_in_validation() -> Program:
    pool = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), mlp(32, 4))
    return split((torch.rand(N, 1, 8, 8), labels(N)), (torch.rand(96, 1, 10, 10), labels(96)), model=pool)


def sentences_of_a_small_language() -> Program:
    def text(size: int) -> torch.Tensor:
        first = torch.randint(8, (size, 1))
        return torch.cat([(first + k * torch.randint(1, 3, (size, 1))) % 20 for k in range(8)], 1)

    model = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(64, 4))
    return split((text(N), labels(N)), (text(96), labels(96)), model=model)


def heavy_tails() -> Program:
    def amounts(size: int) -> torch.Tensor:
        return torch.randn(size, 6).exp() ** 1.5

    return split((amounts(N), labels(N)), (amounts(96), labels(96)))


# -- target_leakage -----------------------------------------------------------------------------------------------


def table(extra: torch.Tensor, y: torch.Tensor, outputs: int, loss: Any = None) -> Program:
    x = torch.cat([torch.randn(len(y), 5), extra.reshape(-1, 1)], 1)
    return split((x, y), None, outputs, loss=loss)


def the_answer_in_a_column() -> Program:
    y = labels(N, 2)
    return table(3 * y + 0.01 * torch.randn(N), y, 2)


def the_class_number_in_a_column() -> Program:
    y = labels(N)
    return table(y / 4.0, y, 4)


def the_answer_in_a_column_of_yes_and_no() -> Program:
    y = torch.randint(2, (N, 1)).float()
    return table(1 - y, y, 1, nn.BCEWithLogitsLoss())


def the_price_in_another_currency() -> Program:
    y = torch.randn(N, 1)
    return table(0.9 * y + 0.001 * torch.randn(N, 1), y, 1)


def the_logarithm_of_the_price() -> Program:
    y = torch.rand(N, 1) * 5 + 0.01
    return table(y.log(), y, 1)


def windows(reach: int) -> Program:
    series = torch.randn(N + 20).cumsum(0) / 8
    x = series.unfold(0, 12, 1)[:N, :, None]
    y = series[12 - reach : 12 - reach + N, None]
    model = Last()
    return split((x, y), None, 1, model=model)


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
        return out


def a_window_that_holds_its_target() -> Program:
    return windows(1)


def a_window_before_its_target() -> Program:
    return windows(0)


def a_slow_wave() -> Program:
    time = 100 * torch.rand(N, 1)
    steps = torch.arange(13) / 40
    wave = ((time + steps) / 3).sin()
    return split((wave[:, :12, None], wave[:, 12:]), None, 1, model=Last())


def clear_clouds() -> Program:
    y = labels(N)
    x = torch.randn(N, 5) + 40 * F.one_hot(y, 5)
    return split((x, y), None)


def one_feature_and_no_noise() -> Program:
    x = torch.randn(N, 1)
    return split((x, 2 * x + 1), None, 1)


def a_good_predictor() -> Program:
    y = torch.randn(N, 1)
    return table(y + 0.1 * torch.randn(N, 1), y, 1)


def an_autoencoder() -> Program:
    x = torch.randn(N, 6)
    return split((x, x.clone()), None, 6)


def the_digit_in_all_pixels() -> Program:
    y = labels(N, 2)
    return split((y.float()[:, None].expand(-1, 30) + 0.001 * torch.randn(N, 30), y), None, 2)  # colour alone


def bits_and_their_and() -> Program:
    x = torch.randint(2, (N, 6)).float()
    return split((x, (x[:, 0] * x[:, 1]).long()), None, 2)


FAULTS: dict[str, tuple[Callable[[], Program], ...]] = {
    "train_val_mismatch": (
        *(validation_not_divided_by_255, validation_not_standardised, validation_in_negative, a_class_held_back),
        *(validation_lies_on_its_side, targets_only_scaled_in_training, validation_within_training),
        *(a_quarter_of_validation_within_training, columns_in_other_units),
    ),
    "target_leakage": (
        *(the_answer_in_a_column, the_class_number_in_a_column, the_answer_in_a_column_of_yes_and_no),
        *(the_price_in_another_currency, the_logarithm_of_the_price, a_window_that_holds_its_target),
    ),
}
HEALTHY: dict[str, tuple[Callable[[], Program], ...]] = {
    "train_val_mismatch": (
        *(a_plain_split, training_augmented, later_times_in_validation, training_balanced_and_validation_as_it_comes),
        *(few_validation_samples, one_drifting_column, the_same_boxes_ticked, larger_crops_in_validation),
        *(sentences_of_a_small_language, heavy_tails),
    ),
    "target_leakage": (
        *(a_window_before_its_target, a_slow_wave, clear_clouds, one_feature_and_no_noise, a_good_predictor),
        *(an_autoencoder, the_digit_in_all_pixels, bits_and_their_and, a_plain_split),
    ),
}


test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


def test_the_feature_that_leaks_is_named() -> None:
    torch.manual_seed(0)
    assert (
        "In batch[0], feature 5 takes one value" in judged("target_leakage", *the_answer_in_a_column()).findings[0].why
    )
    window = judged("target_leakage", *a_window_that_holds_its_target()).findings[0]
    assert "position [11, 0] is the target" in window.why


def test_one_loader_for_both_is_told_for_completeness() -> None:
    torch.manual_seed(0)
    model, trainer = a_plain_split()
    both = Trainer(trainer.optimizer, trainer.loss_fn, trainer.train_loader, trainer.train_loader)
    result = judged("train_val_mismatch", model, both)
    assert [finding.severity for finding in result.findings] == ["info"]
