"""Looks at batches of padded sequences: lengths and padding stay, and packed networks can be called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nbdebug.training.padded import emptied, exchanged, padding
from tests.checks.live.test_second_look import looked

LENGTHS = torch.tensor([7, 6, 6, 4, 3, 2, 2, 1])
REAL = torch.arange(7) < LENGTHS[:, None]


def words(pad: int = 0, seed: int = 0) -> torch.Tensor:
    """Sentences of words 3 to 19, the longest first."""
    found = torch.randint(3, 20, REAL.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(REAL, found, pad)


class Packed(nn.Module):
    """Tags words; counts lengths itself, or is given them; ``sorted_only`` takes none but the longest first."""

    def __init__(self, pad: int = 0, *, sorted_only: bool = True, deaf: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.lstm, self.head = nn.Embedding(20, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 4)
        self.pad, self.sorted_only, self.deaf = pad, sorted_only, deaf

    def forward(self, inputs: Any) -> torch.Tensor:
        tokens, lengths = inputs if isinstance(inputs, (tuple, list)) else (inputs, (inputs != self.pad).sum(1))
        embedded = self.embedding(tokens) if tokens.dim() == 2 else tokens
        packed = pack_padded_sequence(
            embedded * (not self.deaf), lengths.cpu(), batch_first=True, enforce_sorted=self.sorted_only
        )
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=tokens.shape[1])
        return self.head(out)


def loss_of(scores: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores.reshape(-1, 4), tags.reshape(-1), ignore_index=0)


TAGS = torch.where(REAL, words() % 3 + 1, 0)
BATCHES: dict[str, Any] = {
    "lengths counted": words(),
    "lengths given": (words(), LENGTHS),
    "vectors, lengths given": (torch.randn(8, 7, 6, generator=torch.Generator().manual_seed(1)), LENGTHS),
}


@pytest.mark.parametrize("what", BATCHES)
def test_a_packed_network_is_looked_at(what: str) -> None:
    seen = looked(Packed(), (BATCHES[what], TAGS), loss_of)
    assert seen.output_change > 1e-2
    assert seen.exchanged != seen.evaluating != seen.zeroed


def test_one_that_does_not_listen_shows_no_change() -> None:
    seen = looked(Packed(deaf=True), (words(), TAGS), loss_of)
    assert seen.output_change == 0 and seen.exchanged == seen.zeroed == seen.evaluating


def test_sentences_in_any_order_are_exchanged_whole() -> None:
    order = torch.tensor([3, 0, 7, 1, 2, 6, 5, 4])
    tokens, lengths = words()[order], LENGTHS[order]
    other = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])
    found = exchanged([tokens, lengths], 8, other)
    assert torch.equal(found[0], tokens[other]) and torch.equal(found[1], lengths[other])
    seen = looked(Packed(sorted_only=False), ((tokens, lengths), TAGS[order]), loss_of)
    assert seen.output_change > 1e-2


@pytest.mark.parametrize("pad", [0, 1, 25])
def test_exchanging_sorted_ones_keeps_lengths_and_moves_what_is_real(pad: int) -> None:
    tokens = words(pad)
    (found,) = exchanged([tokens], 8, torch.arange(8).flip(0))
    assert torch.equal(found != pad, REAL)
    for place in range(7):
        reach = int(REAL[:, place].sum())
        expected = tokens[:reach, place].tolist()
        assert found[:reach, place].tolist() == expected[1:] + expected[:1]


@pytest.mark.parametrize("pad", [0, 1, 25])
@pytest.mark.parametrize("left", [False, True])
def test_emptying_keeps_padding_and_leaves_nothing_of_a_sample(pad: int, left: bool) -> None:
    tokens, real = (words(pad).flip(1), REAL.flip(1)) if left else (words(pad), REAL)
    (found,) = emptied([tokens], 8)
    assert torch.equal(found != pad, real)
    for place in range(7):
        column = tokens[real[:, place], place]
        assert set(found[real[:, place], place].tolist()) == {int(column.min())}


def test_emptying_keeps_to_values_that_a_column_has() -> None:
    """Each column of categories has its own table, which other numbers would be out of."""
    categories = torch.tensor([[11, 2, 20], [9, 4, 21], [10, 3, 22], [9, 2, 20]])
    assert emptied([categories], 4)[0].tolist() == [[9, 2, 20]] * 4


def test_emptying_others() -> None:
    values, mask, lengths = torch.ones(4, 5, 2), torch.ones(4, 5, dtype=torch.bool), torch.tensor([5, 2, 3, 1])
    found = emptied([values, mask, lengths], 4)
    assert not found[0].any() and found[1] is mask and found[2] is lengths
    assert not emptied([mask], 4)[0].any()
    ages = torch.tensor([40, 31, 70, 22])
    assert emptied([values, ages], 4)[1].tolist() == [22] * 4
    assert emptied([torch.tensor(3.0)], 4)[0] == 0
    assert emptied([words().T], 8)[0].tolist() == torch.zeros(7, 8).tolist()
    assert emptied([torch.zeros(4, 0, dtype=torch.long)], 4)[0].shape == (4, 0)


@pytest.mark.parametrize(
    ("tokens", "real"),
    [
        ([[5, 6, 0], [7, 0, 0]], [[1, 1, 0], [1, 0, 0]]),
        ([[0, 5, 6], [0, 0, 7]], [[0, 1, 1], [0, 0, 1]]),
        ([[5, 6, 7], [7, 5, 6]], None),
        ([[0, 6, 0], [7, 0, 6]], None),
        ([[], []], None),
    ],
)
def test_padding_is_told_by_its_place(tokens: Any, real: Any) -> None:
    found = padding(torch.tensor(tokens, dtype=torch.long))
    assert (found is None) if real is None else found is not None and found.int().tolist() == real
