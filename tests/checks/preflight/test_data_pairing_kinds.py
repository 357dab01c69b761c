"""Pairs that don't belong together, over kinds of data and ways of reading; hard but honest kinds are left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nbdebug import Debugger
from nbdebug.checks.preflight.registry import checks
from nbdebug.checks.preflight.views import View, pooled, views
from nbdebug.records.checks import CheckOutcome
from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, told_apart
from tests.checks.preflight.test_data_pairing import checked

N = 640
Pairs = tuple[torch.Tensor, torch.Tensor]


def net(x: torch.Tensor, outputs: int) -> nn.Module:
    """Small enough to step at once; what it can learn does not matter here."""
    pool = nn.AdaptiveAvgPool2d(4) if x.dim() == 4 else nn.Identity()
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(16 * x.shape[1] if x.dim() == 4 else x.shape[1], outputs))


def program(x: torch.Tensor, y: torch.Tensor, **loader: Any) -> Program:
    model = net(x, int(y.max()) + 1)
    data = DataLoader(TensorDataset(x, y), 32, shuffle=True, **loader)
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.CrossEntropyLoss(), data)


def apart(make: Callable[[], Pairs]) -> Program:
    x, y = make()
    return program(x, y[torch.randperm(len(y))])


# -- kinds of data ------------------------------------------------------------------------------------------------


def stripes(size: int = 32) -> Pairs:
    """Textures: stripes in one of four directions, of two tints, anywhere."""
    y = torch.randint(8, (N,))
    angle = (y % 4) * torch.pi / 4 + 0.08 * torch.randn(N)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    wave = rows * angle.sin()[:, None, None] + columns * angle.cos()[:, None, None]
    bands = (0.9 * wave + 6.28 * torch.rand(N, 1, 1)).sin()
    tint = torch.tensor([[1.0, 0.6, 0.3], [0.3, 0.6, 1.0]])[(y < 4).long()]
    return bands[:, None] * tint[:, :, None, None] + 0.5 * torch.randn(N, 3, size, size), y


def scattered(kind: Callable[[torch.Tensor, int, int, int], None], classes: int, noise: float = 0.3) -> Pairs:
    y, x = torch.randint(classes, (N,)), noise * torch.randn(N, 3, 32, 32)
    for i in range(N):
        row, column = torch.randint(4, 27, (2,)).tolist()
        kind(x[i], int(y[i]), row, column)
    return x, y


def crosses_upright_or_not() -> Pairs:
    def draw(x: torch.Tensor, y: int, row: int, column: int) -> None:
        for by in range(-3, 4):
            x[:, row + by, column + by * (1 - y)] += 1.5
            x[:, row + by * (1 - y), column + by * (2 * y - 1)] += 1.5

    return scattered(draw, 2)


def small_objects_anywhere() -> Pairs:
    looks = torch.randn(3, 3, 4, 4)

    def draw(x: torch.Tensor, y: int, row: int, column: int) -> None:
        x[:, row : row + 4, column : column + 4] += looks[y]

    return scattered(draw, 3, 0.5)


def how_many_spots() -> Pairs:
    def draw(x: torch.Tensor, y: int, row: int, column: int) -> None:
        for _ in range(y + 1):
            top, left = torch.randint(29, (2,)).tolist()
            x[:, top : top + 3, left : left + 3] = 2

    return scattered(draw, 4)


def which_is_to_the_left() -> Pairs:
    def draw(x: torch.Tensor, y: int, row: int, column: int) -> None:
        places = torch.randperm(26)[:2].sort().values.tolist()
        for colour, left in enumerate(places if y else places[::-1]):
            top = int(torch.randint(26, ()))
            x[colour, top : top + 5, left : left + 5] += 2

    return scattered(draw, 2, 0.2)


def two_of_one_colour_or_of_two() -> Pairs:
    def draw(x: torch.Tensor, y: int, row: int, column: int) -> None:
        first = int(torch.randint(3, ()))
        second = first if y else (first + 1 + int(torch.randint(2, ()))) % 3
        for colour, half in ((first, 0), (second, 16)):
            top, left = torch.randint(26, ()).item(), half + torch.randint(11, ()).item()
            x[colour, top : top + 5, left : left + 5] += 2

    return scattered(draw, 2, 0.2)


def same_on_both_sides_or_not() -> Pairs:
    y, x = torch.randint(2, (N,)), torch.rand(N, 3, 32, 32)
    x[y == 1, :, :, 16:] = x[y == 1, :, :, :16].flip(-1)
    return x, y


def a_faint_trace_in_noise() -> Pairs:
    y = torch.randint(10, (N,))
    trace = F.interpolate(torch.randn(10, 3, 4, 4), 32, mode="bilinear")
    return torch.randn(N, 3, 32, 32) + 0.06 * trace[y], y


def small_objects_in_large_pictures() -> Pairs:
    x, y = small_objects_anywhere()
    return F.pad(x, (16, 16, 16, 16)) + 0.5 * torch.randn(N, 3, 64, 64), y


def colours_last() -> Pairs:
    x, y = stripes()
    return x.permute(0, 2, 3, 1).contiguous(), y


def exclusive_or_among_twelve() -> Pairs:
    x = torch.randn(N, 12)
    return x, (x[:, 3] * x[:, 8] > 0).long()


def parity_of_three_among_eight() -> Pairs:
    x = torch.rand(N, 8)
    return x, ((x[:, 1:4] > 0.5).sum(1) % 2).long()


def a_weak_column_among_many() -> Pairs:
    x = torch.randn(2_400, 20)
    return x, (0.3 * x[:, 4] + torch.randn(2_400) > 0).long()


def a_board_of_squares() -> Pairs:
    x = 2 * torch.rand(N, 4)
    return x, ((x[:, 0].floor() + x[:, 1].floor()) % 2).long()


# -- ways of reading ----------------------------------------------------------------------------------------------


class Flats(Dataset[Any]):
    """Rows ``(numbers, kind, price)``, the price of some rows further on; its own random numbers with each."""

    def __init__(self, shift: int) -> None:
        self.x, self.kind = torch.randn(N, 4), torch.randint(3, (N,))
        self.y = (self.x.sum(1) + self.kind + 0.1 * torch.randn(N)).roll(shift)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.kind[index], self.y[index]


class Priced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(3, 2), nn.Linear(6, 1)

    def forward(self, given: Any) -> torch.Tensor:
        x, kind = given
        out: torch.Tensor = self.head(torch.cat([self.embed(kind), x], 1))
        return out


def regrouped(rows: Any) -> Any:
    x, kind, y = (torch.stack(column) for column in zip(*rows, strict=True))
    return (x, kind), y[:, None]


def regrouped_and_shaken(rows: Any) -> Any:
    (x, kind), y = regrouped(rows)
    noise = torch.randn_like(x) * random.random() + torch.from_numpy(np.random.standard_normal(x.shape)).float()
    return (x + 0.02 * noise, kind), y


def flats(shift: int, collate: Callable[[Any], Any] = regrouped, **loader: Any) -> Program:
    model = Priced()
    return model, Trainer(
        SGD(model.parameters(), 1e-3), nn.MSELoss(), DataLoader(Flats(shift), 32, collate_fn=collate, **loader)
    )


def a_row_down_and_regrouped() -> Program:
    return flats(1, shuffle=True)


def two_rows_up_and_shaken() -> Program:
    return flats(-2, regrouped_and_shaken, shuffle=True)


def a_row_down_by_a_batch_sampler() -> Program:
    order = torch.randperm(N).split(32)
    model = Priced()
    loader = DataLoader(Flats(1), batch_sampler=[each.tolist() for each in order], collate_fn=regrouped)
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.MSELoss(), loader)


def regrouped_as_they_belong() -> Program:
    return flats(0, regrouped_and_shaken, shuffle=True)


def named(make: Callable[[], Pairs], how: Callable[[Callable[[], Pairs]], Program]) -> Callable[[], Program]:
    def made() -> Program:
        return how(make)

    made.__name__ = make.__name__
    return made


def together(make: Callable[[], Pairs]) -> Program:
    return program(*make())


SHUFFLED = (stripes, crosses_upright_or_not, how_many_spots, which_is_to_the_left, exclusive_or_among_twelve)
HONEST = (
    *(stripes, crosses_upright_or_not, small_objects_anywhere, how_many_spots, which_is_to_the_left),
    *(two_of_one_colour_or_of_two, same_on_both_sides_or_not, a_faint_trace_in_noise, small_objects_in_large_pictures),
    *(exclusive_or_among_twelve, parity_of_three_among_eight, a_board_of_squares),
    a_weak_column_among_many,
)
FAULTS = {
    "input_label_mismatch": (
        *(named(make, apart) for make in SHUFFLED),
        *(a_row_down_and_regrouped, two_rows_up_and_shaken, a_row_down_by_a_batch_sampler),
    ),
}
HEALTHY = {"input_label_mismatch": (*(named(make, together) for make in HONEST), regrouped_as_they_belong)}


TESTS = told_apart(FAULTS, HEALTHY, judge=checked, fault_seeds=[0])
test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = TESTS


@pytest.mark.parametrize(("shift", "make"), [(-1, a_row_down_and_regrouped), (2, two_rows_up_and_shaken)])
def test_by_how_many_rows_prices_are_off_is_said(shift: int, make: Callable[[], Program]) -> None:
    torch.manual_seed(0)
    assert checked("input_label_mismatch", *make()).findings[0].remedies[0].code.startswith(f"y = y.roll({shift})")


def test_reading_rows_leaves_random_numbers_as_they_were() -> None:
    torch.manual_seed(0)
    drawn: list[int] = []

    def collate(rows: Any) -> Any:
        drawn.append(len(rows))
        return regrouped_and_shaken(rows)

    model, trainer = flats(1, collate, shuffle=True)
    debugger = Debugger(model, trainer, journal=None)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        debugger.preflight(skip=[check.name for check in checks() if check.name != "input_label_mismatch"])
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    finally:
        debugger.close()
    assert 8 in drawn  # it did read rows, a few at a time


def test_where_it_can_not_be_told_it_is_not_all_clear() -> None:
    torch.manual_seed(0)
    bits = torch.randint(2, (N, 40)).float()
    result = checked("input_label_mismatch", *program(bits, bits.sum(1).long() % 2))
    assert result.outcome is CheckOutcome.SKIPPED
    assert "can't tell: simple learners see no relation" in result.why


@pytest.mark.parametrize("shape", [(3, 32, 32), (32, 32, 3), (1, 224, 160), (12, 64, 64)])
def test_pooled_pictures_keep_their_means(shape: tuple[int, ...]) -> None:
    pictures = torch.rand(4, *shape)
    small = pooled(pictures)
    assert 128 <= small[0].numel() <= 1_024
    assert torch.allclose(small.mean((1, 2, 3)), pictures.mean((1, 2, 3)), atol=0.02)
    tidy = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).float()
    assert torch.equal(pooled(tidy), tidy)


def test_views_draw_no_random_numbers() -> None:
    before = torch.get_rng_state()
    pictures = torch.arange(8 * 3 * 32 * 32).reshape(8, 3, 32, 32).float().sin()
    assert set(views(pictures, closely=True)) == {View.PLAIN, View.SPECTRUM, View.FILTERED}
    assert torch.equal(before, torch.get_rng_state())
