"""Labels that don't fit the loss, and classes that are rare, are named; labels that only look odd are left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, judged, told_apart

N = 400


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def program(model: nn.Module, loss: Any, *tensors: torch.Tensor, **options: Any) -> Program:
    loader = DataLoader(TensorDataset(*tensors), 32, shuffle=True)
    return model, Trainer(SGD(model.parameters(), 1e-3), loss, loader, **options)


def on_features(outputs: int, loss: Any, target: torch.Tensor, **options: Any) -> Program:
    return program(mlp(6, outputs), loss, torch.randn(len(target), 6), target, **options)


def numbers(count: int, size: int = N) -> torch.Tensor:
    return torch.randint(count, (size,))


def tagger(target: torch.Tensor, tags: int = 3, **options: Any) -> Program:
    words = torch.randint(1, 30, target.shape)
    model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, tags))

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.transpose(1, 2), target, **options)

    return program(model, loss, words, target)


# -- label_encoding_error -----------------------------------------------------------------------------------------


def from_one() -> Program:
    return on_features(5, nn.CrossEntropyLoss(), numbers(5) + 1)


def from_one_with_an_output_to_spare() -> Program:
    return on_features(6, nn.CrossEntropyLoss(), numbers(5) + 1)


def minus_one_as_a_class() -> Program:
    return on_features(3, nn.CrossEntropyLoss(), numbers(3) - 1)


def minus_one_picked_by_hand() -> Program:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -output.log_softmax(1)[torch.arange(len(target)), target].mean()

    return on_features(3, loss, numbers(3) - 1)


def more_classes_than_outputs() -> Program:
    return on_features(4, lambda output, target: F.nll_loss(output.log_softmax(1), target), numbers(7))


def rows_of_zeros() -> Program:
    rows = F.one_hot(numbers(4), 4).float()
    rows[rows[:, 3] == 1] = 0
    return on_features(4, nn.CrossEntropyLoss(), rows)


def several_classes_under_a_softmax() -> Program:
    return on_features(5, nn.CrossEntropyLoss(), (torch.rand(N, 5) < 0.5).float())


def plus_and_minus_one_as_yes_and_no() -> Program:
    return on_features(1, nn.BCEWithLogitsLoss(), 2.0 * torch.randint(2, (N, 1)) - 1)


def one_and_two_as_yes_and_no() -> Program:
    return on_features(
        1, lambda output, target: F.binary_cross_entropy_with_logits(output[:, 0], target), 1.0 + numbers(2)
    )


def masks_of_255() -> Program:
    x = torch.rand(64, 1, 8, 8)
    model = nn.Conv2d(1, 1, 3, padding=1)
    return program(model, nn.BCEWithLogitsLoss(), x, 255.0 * (x > 0.5))


def masks_divided_twice() -> Program:
    x = torch.rand(64, 1, 8, 8)
    model = nn.Conv2d(1, 1, 3, padding=1)
    return program(model, nn.BCEWithLogitsLoss(), x, (x > 0.5).float() / 255)


def zeros_for_a_margin() -> Program:
    return on_features(1, nn.SoftMarginLoss(), torch.randint(2, (N, 1)).float())


def all_of_one_class() -> Program:
    return on_features(3, nn.CrossEntropyLoss(), torch.full((N,), 2))


def a_class_in_between_that_never_comes() -> Program:
    return on_features(4, nn.CrossEntropyLoss(), torch.tensor([0, 1, 3])[numbers(3)])


def all_tags_but_one_ignored() -> Program:
    return tagger(torch.where(torch.rand(N, 7) < 0.3, 0, -100))


def shifted_back_in_the_loss() -> Program:
    return on_features(5, lambda output, target: F.cross_entropy(output, target - 1), numbers(5) + 1)


def ignored_labels_of_255() -> Program:
    x = torch.rand(64, 1, 8, 8)
    target = torch.where(torch.rand(64, 8, 8) < 0.1, 255, (x[:, 0] > 0.5).long())
    return program(nn.Conv2d(1, 2, 3, padding=1), nn.CrossEntropyLoss(ignore_index=255), x, target)


def padded_tags() -> Program:
    tags = torch.randint(3, (N, 9))
    return tagger(torch.where(torch.arange(9) < torch.randint(2, 9, (N, 1)), tags, -100))


def smoothed_rows() -> Program:
    return on_features(4, nn.CrossEntropyLoss(), 0.9 * F.one_hot(numbers(4), 4) + 0.025)


def mixed_up_pairs() -> Program:
    a, b, share = F.one_hot(numbers(4), 4), F.one_hot(numbers(4), 4), torch.rand(N, 1)
    return on_features(4, nn.CrossEntropyLoss(), share * a + (1 - share) * b)


def soft_yes_and_no() -> Program:
    return on_features(1, nn.BCEWithLogitsLoss(), torch.rand(N, 1))


def smoothed_yes_and_no() -> Program:
    return on_features(1, nn.BCEWithLogitsLoss(), 0.05 + 0.9 * torch.randint(2, (N, 1)))


def labels_made_to_order_by_a_discriminator() -> Program:
    model = mlp(6, 1)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), torch.ones(len(batch[0]), 1))
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(TensorDataset(torch.randn(N, 6)), 32, shuffle=True)
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.BCEWithLogitsLoss(), loader, step=step)


def outputs_of_a_large_vocabulary() -> Program:
    return on_features(1000, nn.CrossEntropyLoss(), 7 * numbers(10))


def a_rare_class_not_met_yet() -> Program:
    y = numbers(3)
    y[torch.randperm(N)[:9]] = 4
    return on_features(5, nn.CrossEntropyLoss(), y)


def one_hot_rows() -> Program:
    return on_features(4, nn.CrossEntropyLoss(), F.one_hot(numbers(4), 4).double().float())


def several_labels_a_sample() -> Program:
    return on_features(5, nn.BCEWithLogitsLoss(), (torch.rand(N, 5) < 0.2).float())


def whole_numbers_as_floats() -> Program:
    return on_features(4, lambda output, target: F.cross_entropy(output, target.long()), numbers(4).float())


def signs_for_a_margin() -> Program:
    return on_features(1, nn.SoftMarginLoss(), 2.0 * torch.randint(2, (N, 1)) - 1)


def negative_labels_masked_by_hand() -> Program:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        picked = output.log_softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
        return -(picked * (target >= 0)).sum() / (target >= 0).sum()

    return on_features(3, loss, numbers(4) - 1)


# -- class_imbalance ----------------------------------------------------------------------------------------------


def rare(share: float, size: int = 800) -> torch.Tensor:
    y = torch.zeros(size, dtype=torch.long)
    y[torch.randperm(size)[: int(share * size)]] = 1
    return y


def one_in_fifty() -> Program:
    return on_features(1, nn.BCEWithLogitsLoss(), rare(0.02)[:, None].float())


def one_in_thirty_as_two_outputs() -> Program:
    return on_features(2, nn.CrossEntropyLoss(), rare(0.03))


def nearly_all_of_one_of_five() -> Program:
    return on_features(5, nn.CrossEntropyLoss(), torch.where(torch.rand(1000) < 0.94, 0, numbers(5, 1000)))


def rare_one_hot_rows_in_a_mapping() -> Program:
    x, y = torch.randn(800, 6), F.one_hot(rare(0.02), 2).float()
    model = mlp(6, 2)
    items = [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]
    loader = DataLoader(items, 40, shuffle=True)  # type: ignore[arg-type]
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.CrossEntropyLoss(), loader)


def made_up_for_by_weights() -> Program:
    return on_features(2, nn.CrossEntropyLoss(weight=torch.tensor([0.5, 25.0])), rare(0.02))


def made_up_for_by_a_positional_weight() -> Program:
    weight = torch.tensor([0.5, 25.0])
    return on_features(2, lambda output, target: F.cross_entropy(output, target, weight), rare(0.02))


def made_up_for_by_pos_weight() -> Program:
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(49.0))
    return on_features(1, loss, rare(0.02)[:, None].float())


def made_up_for_by_the_sampler() -> Program:
    y = rare(0.02)
    sampler = WeightedRandomSampler(torch.tensor([0.02, 0.98])[y], len(y), generator=torch.Generator().manual_seed(0))
    model = mlp(6, 2)
    loader = DataLoader(TensorDataset(torch.randn(len(y), 6), y), 32, sampler=sampler)
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.CrossEntropyLoss(), loader)


def focal() -> Program:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        each = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        return ((1 - (-each).exp()) ** 2 * each).mean()

    return on_features(1, loss, rare(0.02)[:, None].float())


def three_to_one() -> Program:
    return on_features(1, nn.BCEWithLogitsLoss(), rare(0.25)[:, None].float())


def nine_to_one() -> Program:
    return on_features(2, nn.CrossEntropyLoss(), rare(0.1))


def a_long_tail_of_twenty() -> Program:
    shares = 1 / torch.arange(1, 21).float()
    return on_features(20, nn.CrossEntropyLoss(), torch.multinomial(shares, 2000, replacement=True))


def one_rare_class_among_even_ones() -> Program:
    return on_features(6, nn.CrossEntropyLoss(), torch.where(torch.rand(1000) < 0.01, 5, numbers(5, 1000)))


def background_in_masks() -> Program:
    x = torch.rand(64, 1, 8, 8)
    model = nn.Conv2d(1, 1, 3, padding=1)
    return program(model, nn.BCEWithLogitsLoss(), x, (x > 0.97).float())


def a_bias_at_the_shares() -> Program:
    model = mlp(6, 1)
    with torch.no_grad():
        model[2].weight.mul_(0.01)
        model[2].bias.fill_(-3.9)
    return program(model, nn.BCEWithLogitsLoss(), torch.randn(800, 6), rare(0.02)[:, None].float())


def measured_by_recall() -> Program:
    metrics = {"recall": lambda output, target: 0.0}
    return on_features(2, nn.CrossEntropyLoss(), rare(0.02), metrics=metrics)


def a_dozen_samples() -> Program:
    return on_features(2, nn.CrossEntropyLoss(), rare(0.1, 12))


FAULTS: dict[str, tuple[Callable[[], Program], ...]] = {
    "label_encoding_error": (
        *(from_one, from_one_with_an_output_to_spare, minus_one_as_a_class, more_classes_than_outputs, rows_of_zeros),
        *(several_classes_under_a_softmax, plus_and_minus_one_as_yes_and_no, one_and_two_as_yes_and_no, masks_of_255),
        *(masks_divided_twice, zeros_for_a_margin, all_of_one_class, a_class_in_between_that_never_comes),
        *(all_tags_but_one_ignored, minus_one_picked_by_hand),
    ),
    "class_imbalance": (
        *(one_in_fifty, one_in_thirty_as_two_outputs, nearly_all_of_one_of_five, rare_one_hot_rows_in_a_mapping),
    ),
}
HEALTHY: dict[str, tuple[Callable[[], Program], ...]] = {
    "label_encoding_error": (
        *(shifted_back_in_the_loss, ignored_labels_of_255, padded_tags, smoothed_rows, mixed_up_pairs),
        *(soft_yes_and_no, smoothed_yes_and_no, labels_made_to_order_by_a_discriminator, one_hot_rows),
        *(outputs_of_a_large_vocabulary, a_rare_class_not_met_yet, several_labels_a_sample, whole_numbers_as_floats),
        *(signs_for_a_margin, negative_labels_masked_by_hand, one_in_fifty),
    ),
    "class_imbalance": (
        *(made_up_for_by_weights, made_up_for_by_a_positional_weight, made_up_for_by_pos_weight, focal, nine_to_one),
        *(made_up_for_by_the_sampler, three_to_one, a_long_tail_of_twenty, one_rare_class_among_even_ones),
        *(background_in_masks, a_bias_at_the_shares, measured_by_recall, a_dozen_samples, several_labels_a_sample),
    ),
}


test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


@pytest.mark.parametrize(
    ("make", "title", "code"),
    [
        (from_one, "Labels start at 1", "target = target - 1"),
        (plus_and_minus_one_as_yes_and_no, "Labels lie outside 0 … 1", "target = (target + 1) / 2"),
        (masks_of_255, "Labels lie outside 0 … 1", "target = target / 255"),
        (one_and_two_as_yes_and_no, "Labels lie outside 0 … 1", "target = (target - 1) / 1"),
        (several_classes_under_a_softmax, "Label rows hold several classes", "loss_fn = nn.BCEWithLogitsLoss()"),
    ],
)
def test_the_remedy_maps_the_labels(make: Callable[[], Program], title: str, code: str) -> None:
    torch.manual_seed(0)
    finding = judged("label_encoding_error", *make()).findings[0]
    assert (finding.title, finding.remedies[0].code) == (title, code)


def test_an_output_to_spare_at_the_end_is_told_for_completeness() -> None:
    torch.manual_seed(0)
    result = judged("label_encoding_error", *on_features(4, nn.CrossEntropyLoss(), numbers(3)))
    assert [finding.severity for finding in result.findings] == ["info"]


def test_classes_of_a_handful_are_told_for_completeness() -> None:
    torch.manual_seed(0)
    y = numbers(3, 300)
    y[y == 2] = 1
    y[:2] = 2
    result = judged("class_imbalance", *on_features(3, nn.CrossEntropyLoss(), y))
    assert [(finding.cause, finding.severity) for finding in result.findings] == [("too_few_samples", "info")]
    assert "class 2 (2) has next to none" in result.findings[0].why


def test_two_of_each_of_ten_classes_are_told_though_shares_can_not_be() -> None:
    torch.manual_seed(0)
    result = judged("class_imbalance", *on_features(10, nn.CrossEntropyLoss(), numbers(10, 20)))
    assert [str(finding.cause) for finding in result.findings] == ["too_few_samples"]


def test_the_weight_that_is_advised_makes_classes_even() -> None:
    torch.manual_seed(0)
    binary = judged("class_imbalance", *one_in_fifty()).findings[0]
    assert binary.remedies[0].code == "nn.BCEWithLogitsLoss(pos_weight=torch.tensor(49))"


@pytest.mark.parametrize(("size", "enough", "told"), [(400, 1_000, 1), (4_000, 1_000, 1), (4_000, 9_000, 0)])
def test_one_label_all_over_an_epoch_is_a_fault_and_in_some_batches_may_be_chance(
    size: int, enough: float, told: int
) -> None:
    torch.manual_seed(0)
    made = on_features(2, nn.CrossEntropyLoss(), torch.zeros(size).long())
    result = judged("label_encoding_error", *made, single_class_samples=enough)
    assert [str(finding.cause) for finding in result.findings] == ["label_encoding_error"] * told
