"""What is wrong with the values of inputs and targets is named; data that only look odd are left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader, TensorDataset

from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, judged, told_apart, warned

N = 256


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def program(model: nn.Module, loss: Any, *tensors: torch.Tensor, val: Any = None, **options: Any) -> Program:
    loader = DataLoader(TensorDataset(*tensors), 32, shuffle=True)
    beside = DataLoader(TensorDataset(*val), 32) if val is not None else None
    return model, Trainer(SGD(model.parameters(), 1e-3), loss, loader, beside, **options)


def classes(x: torch.Tensor, count: int = 4) -> torch.Tensor:
    return torch.randint(count, (len(x),))


def spoilt(x: torch.Tensor, value: float = float("nan"), row: int = 5) -> torch.Tensor:
    x = x.clone()
    x[row].view(-1)[0] = value
    return x


# -- nan_in_data --------------------------------------------------------------------------------------------------


def nan_in_a_table() -> Program:
    x = torch.randn(N, 6)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), spoilt(x), classes(x))


def infinite_target() -> Program:
    x = torch.randn(N, 6)
    return program(mlp(6, 1), nn.MSELoss(), x, spoilt(x[:, :1], float("inf")))


def nan_in_a_mapping_and_an_own_step() -> Program:
    x = torch.randn(N, 6)
    items = [{"size": a, "price": b} for a, b in zip(spoilt(x), x.sum(1), strict=True)]
    model = mlp(6, 1)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = ((model(batch["size"])[:, 0] - batch["price"]) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(items, 32, shuffle=True)  # type: ignore[arg-type]
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.MSELoss(), loader, step=step)


def nan_in_validation_alone() -> Program:
    x = torch.randn(N, 6)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), x, classes(x), val=(spoilt(x[:64]), classes(x[:64])))


def gaps_filled_in_the_network() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(torch.cat([torch.nan_to_num(x), torch.isnan(x).float()], 1))

    x = torch.randn(N, 6)
    return program(Net(), nn.CrossEntropyLoss(), spoilt(x), classes(x))


def missing_targets_left_out_of_the_loss() -> Program:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        known = ~torch.isnan(target)
        return F.mse_loss(output[known], target[known])

    x = torch.randn(N, 6)
    return program(mlp(6, 2), loss, x, spoilt(x[:, :2]))


def missing_targets_found_by_comparison() -> Program:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        known = target == target
        return F.mse_loss(output[known], target[known])

    x = torch.randn(N, 6)
    return program(mlp(6, 2), loss, x, spoilt(x[:, :2]))


def mask_added_to_scores() -> Program:
    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.head = nn.Linear(3, 1), nn.Linear(3, 4)

        def forward(self, x: Any) -> torch.Tensor:
            weight = (self.score(x[0])[..., 0] + x[1]).softmax(1)
            return self.head((weight[..., None] * x[0]).sum(1))

    x = torch.randn(N, 5, 3)
    mask = torch.zeros(N, 5).masked_fill(torch.rand(N, 5) < 0.3, -torch.inf)
    mask[:, 0] = 0
    batches = [((a, b), c) for a, b, c in zip(x.split(32), mask.split(32), classes(x).split(32), strict=True)]
    model = Pool()
    return model, Trainer(SGD(model.parameters(), 1e-2), nn.CrossEntropyLoss(), batches)


def huge_but_finite() -> Program:
    x = 1e30 * torch.randn(N, 6)
    return program(nn.Sequential(nn.BatchNorm1d(6), mlp(6, 4)), nn.CrossEntropyLoss(), x, classes(x))


# -- constant_input -----------------------------------------------------------------------------------------------


def one_row_for_all() -> Program:
    x = torch.randn(1, 6).expand(N, -1)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), x, classes(x))


def black_pictures() -> Program:
    x = torch.zeros(N, 1, 8, 8)
    return program(nn.Sequential(nn.Flatten(), mlp(64, 1)), nn.MSELoss(), x, torch.randn(N, 1))


def one_sample_a_batch() -> Program:
    batches = [(torch.randn(1, 6).expand(16, -1), torch.randint(4, (16,))) for _ in range(16)]
    model = mlp(6, 4)
    return model, Trainer(SGD(model.parameters(), 1e-2), nn.CrossEntropyLoss(), batches)


def variation_lost_in_rounding() -> Program:
    x = 1e6 + torch.randn(N, 6)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), x, classes(x))


def the_same_words_in_all_texts() -> Program:
    words = torch.randint(30, (1, 9)).expand(N, -1).clone()
    model = nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.Linear(72, 3))
    return program(model, nn.CrossEntropyLoss(), words, classes(words, 3))


def a_mask_that_is_always_true() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(6, 4)

        def forward(self, given: Any) -> torch.Tensor:
            return self.net(given[0] * given[1])

    x = torch.randn(N, 6)
    batches = [((a, torch.ones_like(a)), b) for a, b in zip(x.split(32), classes(x).split(32), strict=True)]
    model = Net()
    return model, Trainer(SGD(model.parameters(), 1e-2), nn.CrossEntropyLoss(), batches)


def pictures_with_a_black_border() -> Program:
    x = F.pad(torch.rand(N, 1, 4, 4), (6, 6, 6, 6))
    return program(nn.Sequential(nn.Flatten(), mlp(256, 4)), nn.CrossEntropyLoss(), x, classes(x))


def words_of_rare_occurrence() -> Program:
    x = (torch.rand(N, 400) < 0.004).float()
    return program(mlp(400, 4), nn.CrossEntropyLoss(), x, classes(x))


def a_fixed_seed_and_one_target() -> Program:
    x, y = torch.randn(1, 6).expand(N, -1), torch.randn(1, 3).expand(N, -1)
    return program(mlp(6, 3), nn.MSELoss(), x, y)  # an input that stands for nothing, one thing to draw


def small_changes_around_zero() -> Program:
    x = 1e-4 * torch.randn(N, 6)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), x, classes(x))


def one_varying_column_among_still_ones() -> Program:
    x = torch.ones(N, 5)
    x[:, 2] = torch.randn(N)
    return program(mlp(5, 4), nn.CrossEntropyLoss(), x, classes(x))


def batches_of_one_sample() -> Program:
    x = torch.randn(N, 6)
    model = mlp(6, 4)
    loader = DataLoader(TensorDataset(x, classes(x)), 1)
    return model, Trainer(SGD(model.parameters(), 1e-2), nn.CrossEntropyLoss(), loader)


# -- unnormalized_input -------------------------------------------------------------------------------------------


def table_with_units() -> torch.Tensor:
    return torch.stack([60 + 20 * torch.randn(N), torch.rand(N), 40_000 + 9_000 * torch.randn(N)], 1)


def a_table_as_it_comes() -> Program:
    x = table_with_units()
    return program(mlp(3, 4), nn.CrossEntropyLoss(), x, classes(x))


def bytes_into_a_convolution() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, height, width, channels)
            return self.head(F.relu(self.conv(x.permute(0, 3, 1, 2).float())).mean((2, 3)))

    x = torch.randint(256, (N, 8, 8, 3), dtype=torch.uint8)
    return program(Net(), nn.CrossEntropyLoss(), x, classes(x))


class Last(nn.Module):
    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(features, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
        return out


def raw_counts_into_a_recurrent_layer() -> Program:
    x = 1000 + 50 * torch.randn(N, 12, 1)
    return program(Last(), nn.CrossEntropyLoss(), x, classes(x))


def units_as_small_as_micrometres_in_metres() -> Program:
    x = 1e-5 * torch.randn(N, 6)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), x, classes(x))


def units_into_a_norm_layer() -> Program:
    x = table_with_units()
    return program(nn.Sequential(nn.BatchNorm1d(3), mlp(3, 4)), nn.CrossEntropyLoss(), x, classes(x))


def standardised_by_buffers() -> Program:
    class Net(nn.Module):
        def __init__(self, x: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("mean", x.mean(0))
            self.register_buffer("std", x.std(0))
            self.net = mlp(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.net((x - self.mean) / self.std)
            return out

    x = table_with_units()
    return program(Net(x), nn.CrossEntropyLoss(), x, classes(x))


def standardised_in_the_step() -> Program:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        x, y = batch
        optimizer.zero_grad()
        loss = loss_fn(model((x.float() / 255 - 0.5) / 0.25), y)
        loss.backward()
        optimizer.step()
        return loss

    x = torch.randint(256, (N, 3, 8, 8), dtype=torch.uint8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    return program(model, nn.CrossEntropyLoss(), x, classes(x), step=step)


def bytes_into_a_convolution_and_a_norm() -> Program:
    x = 255 * torch.rand(N, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    return program(model, nn.CrossEntropyLoss(), x, classes(x))


def shares_between_zero_and_one() -> Program:
    x = torch.rand(N, 6)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), x, classes(x))


def token_ids() -> Program:
    x = torch.randint(5_000, (N, 10))
    model = nn.Sequential(nn.EmbeddingBag(5_000, 16), nn.Linear(16, 4))
    return program(model, nn.CrossEntropyLoss(), x, classes(x))


def counts_of_words() -> Program:
    rates = torch.logspace(-2.5, 1.6, 60)
    x = torch.poisson(rates.expand(N, -1)) * (torch.rand(N, 60) < 0.3)
    model = nn.Sequential(nn.Linear(60, 16), nn.ReLU(), nn.Linear(16, 4))
    return program(model, nn.CrossEntropyLoss(), x, classes(x))


def one_column_of_yes_and_no_among_z_scores() -> Program:
    x = torch.cat([torch.randn(N, 4), (torch.rand(N, 2) < 0.02).float()], 1)
    return program(mlp(6, 4), nn.CrossEntropyLoss(), x, classes(x))


def positions_through_sines() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(16, 1)

        def forward(self, t: torch.Tensor) -> torch.Tensor:
            angle = t[:, :1] / 1000 ** (torch.arange(8) / 8)
            out: torch.Tensor = self.net(torch.cat([angle.sin(), angle.cos()], 1))
            return out

    x = 1000 * torch.rand(N, 1)
    return program(Net(), nn.MSELoss(), x, torch.randn(N, 1))


def frequencies_scaled_up_on_purpose() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 32), nn.Linear(32, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(torch.sin(self.first(60 * x)))
            return out

    x = 2 * torch.rand(N, 2) - 1
    return program(Net(), nn.MSELoss(), x, torch.randn(N, 1))


def weights_made_for_bytes() -> Program:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[1].weight /= 128
    x = 255 * torch.rand(N, 1, 8, 8)
    return program(model, nn.CrossEntropyLoss(), x, classes(x))


def small_pictures_from_zero_to_sixteen() -> Program:
    x = (16 * torch.rand(N, 1, 8, 8) * torch.linspace(0.001, 1, 8)).floor()
    return program(nn.Sequential(nn.Flatten(), mlp(64, 4)), nn.CrossEntropyLoss(), x, classes(x))


# -- unnormalized_target ------------------------------------------------------------------------------------------


def prices() -> Program:
    return program(mlp(6, 1), nn.MSELoss(), torch.randn(N, 6), 250_000 + 60_000 * torch.randn(N, 1))


def visitors_by_hand() -> Program:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output[:, 0] - target).abs().mean()

    return program(mlp(6, 1), loss, torch.randn(N, 6), 5000 + 900 * torch.randn(N))


def coordinates_in_pixels() -> Program:
    x = torch.rand(N, 1, 8, 8)
    model = nn.Sequential(nn.Flatten(), mlp(64, 4))
    return program(model, F.smooth_l1_loss, x, 600 * torch.rand(N, 4))


def charges_in_coulombs() -> Program:
    return program(mlp(6, 1), nn.MSELoss(), torch.randn(N, 6), 1e-6 * torch.randn(N, 1))


def two_targets_of_two_units() -> Program:
    y = torch.stack([15 * torch.randn(N), 0.01 * torch.randn(N)], 1)
    return program(mlp(6, 2), nn.MSELoss(), torch.randn(N, 6), y)


def standardised_in_the_loss() -> Program:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output[:, 0], (target - 250_000) / 60_000)

    return program(mlp(6, 1), loss, torch.randn(N, 6), 250_000 + 60_000 * torch.randn(N))


def rescaled_in_the_network() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.net(x) * 900 + 5000
            return out

    return program(Net(), nn.MSELoss(), torch.randn(N, 6), 5000 + 900 * torch.randn(N, 1))


def logarithms_of_prices() -> Program:
    return program(mlp(6, 1), nn.MSELoss(), torch.randn(N, 6), (250_000 * torch.rand(N, 1) + 1e5).log())


def an_exponential_output() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.net(x).exp()
            return out

    return program(Net(), nn.L1Loss(), torch.randn(N, 6), 300 * torch.rand(N, 1))


def class_numbers_up_to_hundreds() -> Program:
    return program(mlp(6, 500), nn.CrossEntropyLoss(), torch.randn(N, 6), torch.randint(500, (N,)))


def counts_under_a_poisson_loss() -> Program:
    return program(mlp(6, 1), nn.PoissonNLLLoss(), torch.randn(N, 6), torch.poisson(torch.full((N, 1), 200.0)))


def returns_of_a_share() -> Program:
    return program(mlp(6, 1), nn.MSELoss(), torch.randn(N, 6), 0.01 * torch.randn(N, 1))


def years_of_age() -> Program:
    return program(mlp(6, 1), nn.MSELoss(), torch.randn(N, 6), 12 + 4 * torch.randn(N, 1))


FAULTS: dict[str, tuple[Callable[[], Program], ...]] = {
    "nan_in_data": (nan_in_a_table, infinite_target, nan_in_a_mapping_and_an_own_step, nan_in_validation_alone),
    "constant_input": (
        *(one_row_for_all, black_pictures, one_sample_a_batch, variation_lost_in_rounding),
        the_same_words_in_all_texts,
    ),
    "unnormalized_input": (
        *(a_table_as_it_comes, bytes_into_a_convolution, raw_counts_into_a_recurrent_layer),
        units_as_small_as_micrometres_in_metres,
    ),
    "unnormalized_target": (
        *(prices, visitors_by_hand, coordinates_in_pixels, charges_in_coulombs, two_targets_of_two_units),
    ),
}
HEALTHY: dict[str, tuple[Callable[[], Program], ...]] = {
    "nan_in_data": (
        *(gaps_filled_in_the_network, missing_targets_left_out_of_the_loss, missing_targets_found_by_comparison),
        *(mask_added_to_scores, huge_but_finite, shares_between_zero_and_one),
    ),
    "constant_input": (
        *(a_mask_that_is_always_true, pictures_with_a_black_border, words_of_rare_occurrence),
        *(a_fixed_seed_and_one_target, small_changes_around_zero, one_varying_column_among_still_ones),
        batches_of_one_sample,
    ),
    "unnormalized_input": (
        *(units_into_a_norm_layer, standardised_by_buffers, standardised_in_the_step, shares_between_zero_and_one),
        *(bytes_into_a_convolution_and_a_norm, token_ids, counts_of_words, one_column_of_yes_and_no_among_z_scores),
        *(positions_through_sines, frequencies_scaled_up_on_purpose, weights_made_for_bytes),
        small_pictures_from_zero_to_sixteen,
    ),
    "unnormalized_target": (
        *(standardised_in_the_loss, rescaled_in_the_network, logarithms_of_prices, an_exponential_output),
        *(class_numbers_up_to_hundreds, counts_under_a_poisson_loss, returns_of_a_share, years_of_age),
    ),
}


test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


def test_which_sample_and_which_feature_is_said() -> None:
    torch.manual_seed(0)
    x = torch.randn(96, 6)
    x[40, 3] = float("nan")
    model = mlp(6, 4)
    loader = DataLoader(TensorDataset(x, classes(x)), 32)
    result = judged("nan_in_data", model, Trainer(SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), loader))
    assert "the first is nan in the input batch[0] of batch 1, sample 8, feature 3" in result.findings[0].why.replace(
        "NaN", "nan"
    )


def test_a_value_in_validation_alone_is_no_reason_to_stop() -> None:
    torch.manual_seed(0)
    assert judged("nan_in_data", *nan_in_validation_alone()).findings[0].severity == "warning"


def test_a_column_that_never_changes_is_told_for_completeness() -> None:
    torch.manual_seed(0)
    x = torch.randn(N, 5)
    x[:, 3] = 7.0
    result = judged("constant_input", *program(mlp(5, 4), nn.CrossEntropyLoss(), x, classes(x)))
    assert [finding.severity for finding in result.findings] == ["info"]
    assert "feature 3 has one value" in result.findings[0].why


def test_the_features_that_are_apart_are_named() -> None:
    torch.manual_seed(0)
    finding = judged("unnormalized_input", *a_table_as_it_comes()).findings[0]
    assert "Feature 2 of what model[0]" in finding.why
    assert "feature 1" in finding.why


def test_adam_or_sgd_is_judged_alike() -> None:
    torch.manual_seed(0)
    model, trainer = prices()
    other = Trainer(Adam(model.parameters(), 1e-2), trainer.loss_fn, trainer.train_loader)
    assert warned(judged("unnormalized_target", model, other)) == ["unnormalized_target"]
