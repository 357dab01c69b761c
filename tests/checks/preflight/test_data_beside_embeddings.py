"""Numbers that come to a layer beside embeddings are judged as those that come alone; what learns is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from nbdebug.checks.preflight.mixtures import mixtures
from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, judged, look_at, told_apart

N = 192
Join = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def first_learnt(learnt: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([learnt, x], 1)


class Flats(nn.Module):
    """A table's categories, embedded, beside its numbers, as ``join`` puts them together."""

    def __init__(self, numbers: int, join: Join = first_learnt, *, norm: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.first, self.head = nn.Linear(3 + numbers, 16), nn.Linear(16, 1)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.join = join

    def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.norm(self.first(self.join(self.embed(kind), x))).relu())
        return out


def program(model: nn.Module, x: torch.Tensor) -> Program:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        numbers, kind, y = batch
        optimizer.zero_grad()
        loss = loss_fn(model(numbers, kind), y)
        loss.backward()
        optimizer.step()
        return loss

    data = TensorDataset(x, torch.randint(5, (N,)), torch.randn(N, 1))
    return model, Trainer(SGD(model.parameters(), 1e-3), nn.MSELoss(), DataLoader(data, 32), step=step)


def scaled() -> torch.Tensor:
    return torch.randn(N, 4)


def with_cents() -> torch.Tensor:
    return torch.cat([scaled(), 70_000 + 9_000 * torch.randn(N, 1)], 1)


def a_column_in_cents() -> Program:
    return program(Flats(5), with_cents())


def a_column_in_cents_before_a_norm() -> Program:
    return program(Flats(5, norm=True), with_cents())


def numbers_first_and_by_another_name() -> Program:
    return program(Flats(5, lambda learnt, x: torch.concat((x, learnt), dim=-1)), with_cents())


def joined_twice() -> Program:
    return program(Flats(5, lambda learnt, x: torch.cat([torch.cat([learnt, x[:, 3:]], 1), x[:, :3]], 1)), with_cents())


def joined_and_dropped_out() -> Program:
    return program(Flats(5, lambda learnt, x: nn.functional.dropout(torch.hstack([learnt, x.float()]))), with_cents())


def one_column_as_it_comes() -> Program:
    return program(Flats(1), 1990 + 12 * torch.randn(N, 1))


def one_chosen_column_that_is_apart() -> Program:
    return program(Flats(2, lambda learnt, x: torch.cat([learnt, x[:, 3:5]], 1)), with_cents())


def beside_what_a_layer_made() -> Program:
    class Deep(Flats):
        def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
            hidden = self.embed(kind).relu() * 0.5
            out: torch.Tensor = self.head(self.first(torch.cat([hidden, x], dim=1)).relu())
            return out

    return program(Deep(5), with_cents())


def standardised_beside_embeddings() -> Program:
    return program(Flats(4), scaled())


def yes_and_no_beside_embeddings() -> Program:
    return program(Flats(4), torch.randint(2, (N, 4)).float())


def counts_beside_embeddings() -> Program:
    return program(Flats(4), torch.poisson(torch.full((N, 4), 0.3)))


def standardised_on_the_way() -> Program:
    units = with_cents()
    mean, std = units.mean(0), units.std(0)
    return program(Flats(5, lambda learnt, x: torch.cat([learnt, (x - mean) / std], 1)), units)


def the_column_in_cents_is_left_out() -> Program:
    return program(Flats(4, lambda learnt, x: torch.cat([learnt, x[:, :4]], 1)), with_cents())


def normed_on_the_way() -> Program:
    norm = nn.BatchNorm1d(5)
    return program(Flats(5, lambda learnt, x: torch.cat([learnt, norm(x)], 1)), with_cents())


def all_of_it_normed() -> Program:
    norm = nn.LayerNorm(8)
    return program(Flats(5, lambda learnt, x: norm(torch.cat([learnt, x], 1))), 300 * torch.randn(N, 5))


def small_numbers_where_embeddings_speak_too() -> Program:
    return program(Flats(1), 1e-3 * torch.randn(N, 1))


FAULTS = {
    "unnormalized_input": (
        *(a_column_in_cents, a_column_in_cents_before_a_norm, numbers_first_and_by_another_name, joined_twice),
        *(joined_and_dropped_out, one_column_as_it_comes, one_chosen_column_that_is_apart, beside_what_a_layer_made),
    ),
}
HEALTHY = {
    "unnormalized_input": (
        *(standardised_beside_embeddings, yes_and_no_beside_embeddings, counts_beside_embeddings, normed_on_the_way),
        *(standardised_on_the_way, the_column_in_cents_is_left_out, all_of_it_normed),
        small_numbers_where_embeddings_speak_too,
    ),
}


test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


@pytest.mark.parametrize(
    ("make", "feature"), [(a_column_in_cents, 7), (numbers_first_and_by_another_name, 4), (joined_twice, 4)]
)
def test_the_feature_is_named_by_its_place_in_the_layer(make: Callable[[], Program], feature: int) -> None:
    torch.manual_seed(0)
    finding = judged("unnormalized_input", *make()).findings[0]
    assert f"Feature {feature} of what model.first gets is of the size of 6.98e+04" in finding.why


def test_what_is_read_is_what_came_to_the_layer() -> None:
    torch.manual_seed(0)
    model, trainer = joined_twice()
    seen: list[torch.Tensor] = []
    handle = model.first.register_forward_hook(lambda module, args, output: seen.append(args[0].detach().clone()))
    look = look_at(model, trainer)
    handle.remove()
    (mixture,) = mixtures(look)
    assert torch.equal(mixture.values[:32], seen[0][:, list(mixture.places)])
    assert mixture.places == (3, 4, 5, 6, 7)
    assert mixture.answer is not None
