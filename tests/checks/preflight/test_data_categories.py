"""A category made of the target is named, whatever form it comes in; categories that tell much honestly are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from nbdebug.checks.preflight.levels import Levels
from nbdebug.records.checks import CheckOutcome
from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, judged, told_apart

N = 640


class Categories(nn.Module):
    """Numbers, and categories each with a table of its own (``shared``: one, by offsets; or one-hot)."""

    def __init__(self, numbers: int, kinds: int, outputs: int, way: str = "tables") -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(64, 3) for _ in range(kinds))
        self.shared = nn.Embedding(64 * kinds, 3)
        self.way, self.kinds = way, kinds
        self.net = nn.Sequential(
            nn.Linear(numbers + (64 if way == "one-hot" else 3) * kinds, 16), nn.ReLU(), nn.Linear(16, outputs)
        )

    def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        if self.way == "tables":
            parts = [table(kind[:, place]) for place, table in enumerate(self.tables)]
        elif self.way == "offsets":
            parts = [self.shared(kind + 64 * torch.arange(self.kinds)).flatten(1)]
        else:
            parts = [F.one_hot(kind[:, place], 64).float() for place in range(self.kinds)]
        out: torch.Tensor = self.net(torch.cat([x, *parts], 1))
        return out


def program(kinds: torch.Tensor, y: torch.Tensor, way: str = "tables", outputs: int = 1) -> Program:
    x = torch.randn(len(y), 3)
    model = Categories(3, kinds.shape[1], outputs, way)
    data = TensorDataset(x, kinds, y)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        numbers, kinds, y = batch
        optimizer.zero_grad()
        loss = loss_fn(model(numbers, kinds), y)
        loss.backward()
        optimizer.step()
        return loss

    loss = nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss()
    return model, Trainer(SGD(model.parameters(), 1e-3), loss, DataLoader(data, 64, shuffle=True), step=step)


def prices() -> torch.Tensor:
    return torch.randn(N, 1)


def bands(y: torch.Tensor, count: int) -> torch.Tensor:
    return torch.bucketize(y[:, 0], y[:, 0].quantile(torch.linspace(0, 1, count + 1)[1:-1]))


def beside(column: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.randint(12, (N,)), torch.randint(5, (N,)), column], 1)


def twenty_bands_of_the_price() -> Program:
    y = prices()
    return program(beside(bands(y, 20)), y)


def four_bands_in_another_order() -> Program:
    y = prices()
    return program(beside(torch.tensor([2, 0, 3, 1])[bands(y, 4)]), y)


def bands_by_offsets_into_one_table() -> Program:
    y = prices()
    return program(beside(bands(y, 10)), y, "offsets")


def bands_as_one_hot_rows() -> Program:
    y = prices()
    return program(beside(bands(y, 10)), y, "one-hot")


def bands_of_even_width_of_a_lopsided_price() -> Program:
    y = prices().exp()
    y = (y - y.mean()) / y.std()
    return program(beside(torch.bucketize(y[:, 0], torch.linspace(-0.6, 0.9, 11))), y)


def bands_among_numbers() -> Program:
    y = prices()
    x = torch.cat([torch.randn(N, 4), bands(y, 12).float()[:, None]], 1)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))
    # in another order, so that it neither rises nor falls with the price
    x[:, 4] = torch.randperm(12).float()[x[:, 4].long()]
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.MSELoss(), DataLoader(TensorDataset(x, y), 64))


def ratings_under_other_names() -> Program:
    y = torch.randint(1, 6, (N, 1))
    return program(beside(torch.tensor([0, 3, 1, 4, 0, 2])[y[:, 0]]), y.float())


def the_class_under_another_name() -> Program:
    y = torch.randint(4, (N,))
    return program(beside(torch.tensor([2, 0, 3, 1])[y]), y, outputs=4)


def a_code_given_only_to_the_ill() -> Program:
    y = torch.randint(2, (N,))
    return program(beside(torch.randint(6, (N,)) + 6 * y), y, outputs=2)


def by_category(share: float, kinds: int = 20, noise: str = "normal") -> Program:
    """A category that honestly explains this share of the target's variance."""
    kind = torch.randint(kinds, (N,))
    effects = torch.randn(kinds)
    effects = (effects - effects.mean()) / effects.std()
    rest = torch.randn(N) if noise == "normal" else (torch.rand(N) - 0.5) * 12**0.5
    y = share**0.5 * effects[kind] + (1 - share) ** 0.5 * rest
    return program(beside(kind), y[:, None])


def a_postcode_that_tells_three_fifths() -> Program:
    return by_category(0.6)


def a_category_that_tells_nineteen_twentieths() -> Program:
    return by_category(0.95, 6)


def few_categories_that_tell_nearly_all() -> Program:
    return by_category(0.9995, 5, "even")


def a_number_for_each_row() -> Program:
    y = prices()
    model = Categories(3, 3, 1)
    model.tables[2] = nn.Embedding(N, 3)
    kinds = beside(y[:, 0].argsort().argsort())
    _, trainer = program(kinds, y)
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.MSELoss(), trainer.train_loader, step=trainer.step)


def rooms_that_tell_much() -> Program:
    rooms = torch.randint(1, 8, (N,))
    return program(beside(rooms), (0.5 * rooms + 0.3 * torch.randn(N))[:, None])


def a_smell_that_tells_most_of_the_poisonous() -> Program:
    y = torch.randint(2, (N,))
    smell = torch.where(torch.rand(N) < 0.96, torch.randint(4, (N,)) + 4 * y, torch.randint(8, (N,)))
    return program(beside(smell), y, outputs=2)


def two_categories_that_make_the_class() -> Program:
    first, second = torch.randint(4, (N,)), torch.randint(4, (N,))
    return program(torch.stack([first, second, torch.randint(9, (N,))], 1), (first + second) % 4, outputs=4)


def a_text_whose_first_word_decides() -> Program:
    words = torch.randint(20, (N, 6))
    model = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(24, 2))
    data = TensorDataset(words, words[:, 0] % 2)
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.CrossEntropyLoss(), DataLoader(data, 64))


FAULTS = {
    "target_leakage": (
        *(twenty_bands_of_the_price, four_bands_in_another_order, bands_by_offsets_into_one_table),
        *(bands_as_one_hot_rows, bands_of_even_width_of_a_lopsided_price, bands_among_numbers),
        *(ratings_under_other_names, the_class_under_another_name, a_code_given_only_to_the_ill),
    ),
}
HEALTHY = {
    "target_leakage": (
        *(a_postcode_that_tells_three_fifths, a_category_that_tells_nineteen_twentieths, a_number_for_each_row),
        *(few_categories_that_tell_nearly_all, rooms_that_tell_much, a_smell_that_tells_most_of_the_poisonous),
        *(two_categories_that_make_the_class, a_text_whose_first_word_decides),
    ),
}


test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


def test_the_category_is_named() -> None:
    torch.manual_seed(0)
    finding = judged("target_leakage", *twenty_bands_of_the_price()).findings[0]
    assert "In batch[1], feature 2 is the target cut into bands: its 20 levels" in finding.why


def test_where_nothing_can_be_held_against_the_target_it_is_not_all_clear() -> None:
    torch.manual_seed(0)
    result = judged("target_leakage", *a_text_whose_first_word_decides())
    assert result.outcome is CheckOutcome.SKIPPED
    assert "one target for each" in result.why


def test_each_sample_is_told_by_the_others_of_its_level() -> None:
    generator = torch.Generator().manual_seed(0)
    column = torch.randint(4, (60,), generator=generator)
    target = column + torch.randn(60, generator=generator, dtype=torch.float64)
    classes = (target > 1.5).long()
    levels = Levels.of(column)
    assert levels is not None
    left, wrong = 0.0, 0
    for row in range(60):
        others = [other for other in range(60) if other != row and column[other] == column[row]]
        left += float(target[row] - target[others].mean()) ** 2
        wrong += int(classes[others].bincount(minlength=2).argmax() != classes[row])
    assert levels.left(target) == pytest.approx(left / float((target - target.mean()).square().sum()))
    assert levels.errors(classes) == wrong / min(int(classes.sum()), 60 - int(classes.sum()))


def test_strays_and_gaps_are_those_of_bands_cut_by_hand() -> None:
    target = torch.arange(80, dtype=torch.float64)
    column = torch.arange(80) // 20
    levels = Levels.of(column)
    assert levels is not None
    assert levels.strays(target) == 0
    swapped = column.clone()
    swapped[[5, 45]] = column[[45, 5]]
    strayed = Levels.of(swapped)
    assert strayed is not None
    assert strayed.strays(target) == 2 / 80  # a stray is two changes more
    apart = target + 100 * column
    assert levels.gap(target) < 0.2 < 5 < levels.gap(apart)
