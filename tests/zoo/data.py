"""Data that can be learnt in a few dozen steps, drawn from torch's global generator: same seed, same data."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, random_split


@cache
def _digits() -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    return torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1), torch.tensor(bunch.target)


def digits(size: int = 1000, *, raw: bool = False) -> tuple[Tensor, Tensor]:
    """Handwritten digits (n, 1, 8, 8) with their classes; standardised, or ``raw`` in 0 … 16."""
    images, labels = _digits()
    chosen = torch.randperm(len(labels))[:size]
    pictures = images[chosen]
    return (pictures if raw else (pictures - 4.9) / 6.0), labels[chosen]


def blobs(size: int = 800, *, classes: int = 4, features: int = 10, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Gaussian clouds around one centre for each class."""
    centres = torch.randn(classes, features) * 1.5
    y = torch.randint(classes, (size,))
    x = centres[y] + spread * torch.randn(size, features)
    return standardise(x), y


def moons(size: int = 800, *, noise: float = 0.12) -> tuple[Tensor, Tensor]:
    """Two half circles, one into the other: (n, 2) and 0 or 1."""
    y = torch.randint(2, (size,))
    angle = math.pi * torch.rand(size)
    first = torch.stack([angle.cos(), angle.sin()], 1)
    second = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    x = torch.where(y[:, None] == 0, first, second) + noise * torch.randn(size, 2)
    return standardise(x), y


def table(size: int = 800, *, features: int = 8, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """A smooth function of a few features, standardised: (n, features) and (n,)."""
    x = torch.randn(size, features)
    weight = torch.linspace(1.0, -1.0, features)
    y = x @ weight + torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + noise * torch.randn(size)
    return x, standardise(y)


def house_prices(size: int = 800) -> tuple[Tensor, Tensor]:
    """Features as they come (area, rooms, year, distance, income) and prices in thousands."""
    area, rooms = 40 + 160 * torch.rand(size), torch.randint(1, 8, (size,)).float()
    year, distance = torch.randint(1900, 2020, (size,)).float(), 30 * torch.rand(size)
    income = 20_000 + 60_000 * torch.rand(size)
    price = 2.5 * area + 15 * rooms + 0.8 * (year - 1900) - 4 * distance + income / 500 + 10 * torch.randn(size)
    return torch.stack([area, rooms, year, distance, income], 1), price


def answers(size: int = 800, *, features: int = 10, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """Yes or no by a nonlinear function of the features; ``share`` of them yes. Targets are 0 or 1, as floats (n,)."""
    x = torch.randn(size, features)
    score = x[:, 0] + 0.8 * x[:, 1] * x[:, 2] - x[:, 3] + 0.5 * x[:, 4] + 0.1 * torch.randn(size)
    return x, (score > score.quantile(1 - share)).float()


def labels_per_sample(size: int = 800, *, features: int = 12, labels: int = 5) -> tuple[Tensor, Tensor]:
    """Several yes or no at once: (n, features) and (n, labels) floats, each yes for about a third."""
    x = torch.randn(size, features)
    score = x @ torch.randn(features, labels) / math.sqrt(features) + 0.1 * torch.randn(size, labels)
    return x, (score > 0.4).float()


def pictures(size: int = 600, *, side: int = 16, channels: int = 1, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """A horizontal bar, a vertical bar, a cross or a disc somewhere: (n, channels, side, side), standardised."""
    y = torch.randint(4, (size,))
    row, column = (torch.randint(3, side - 3, (size, 1, 1)) for _ in range(2))
    i, j = torch.arange(side).view(1, -1, 1), torch.arange(side).view(1, 1, -1)
    across, down = (i - row).abs() <= 1, (j - column).abs() <= 1
    disc = (i - row) ** 2 + (j - column) ** 2 <= 9
    shapes = torch.stack([(across & (j >= 0)), (down & (i >= 0)), across | down, disc], 1)
    picture = shapes[torch.arange(size), y].float().unsqueeze(1).expand(-1, channels, -1, -1)
    return standardise(picture + noise * torch.randn(size, channels, side, side), over=None), y


def masks(size: int = 400, *, side: int = 16) -> tuple[Tensor, Tensor]:
    """A bright disc in noise and where it is: (n, 1, side, side) twice, the second of 0 and 1."""
    row, column = (torch.randint(4, side - 4, (size, 1, 1)) for _ in range(2))
    radius = torch.randint(3, 6, (size, 1, 1))
    i, j = torch.arange(side).view(1, -1, 1), torch.arange(side).view(1, 1, -1)
    mask = ((i - row) ** 2 + (j - column) ** 2 <= radius**2).float().unsqueeze(1)
    return standardise(mask + 0.4 * torch.randn_like(mask), over=None), mask


def waves(size: int = 600, *, length: int = 30, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Sines of a frequency for each class, at any phase: (n, length, 1) and classes."""
    y = torch.randint(classes, (size,))
    time = torch.arange(length) / length
    phase = 2 * math.pi * torch.rand(size, 1)
    wave = torch.sin(2 * math.pi * (1 + 2 * y[:, None]) * time + phase) + 0.2 * torch.randn(size, length)
    return standardise(wave, over=None).unsqueeze(-1), y


def forecasts(size: int = 600, *, length: int = 20) -> tuple[Tensor, Tensor]:
    """Windows of a noisy sum of two sines and the value that comes next: (n, length, 1) and (n,)."""
    start = 100 * torch.rand(size, 1)
    time = start + torch.arange(length + 1)
    series = torch.sin(time / 2) + 0.5 * torch.sin(time / 5) + 0.05 * torch.randn(size, length + 1)
    series = series / 0.79  # its deviation
    return series[:, :-1].unsqueeze(-1), series[:, -1]


def sentences(size: int = 500, *, length: int = 16, vocabulary: int = 20) -> Tensor:
    """Character sequences in which one of two characters follows each: (n, length + 1), values from 1 on."""
    follower = torch.stack([torch.randperm(vocabulary - 1), torch.randperm(vocabulary - 1)]) + 1
    tokens = [torch.randint(1, vocabulary, (size,))]
    for _ in range(length):
        which = (torch.rand(size) < 0.25).long()
        tokens.append(follower[which, tokens[-1] - 1])
    return torch.stack(tokens, 1)


def texts(size: int = 600, *, length: int = 16, vocabulary: int = 60, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Texts about one of ``classes`` topics, each with words of its own among common ones: (n, length) and classes."""
    y = torch.randint(classes, (size,))
    own = 1 + y[:, None] * 10 + torch.randint(10, (size, length))
    common = torch.randint(1 + classes * 10, vocabulary, (size, length))
    return torch.where(torch.rand(size, length) < 0.3, own, common), y


def tagged(size: int = 500, *, length: int = 16, vocabulary: int = 30, tags: int = 4) -> tuple[Tensor, Tensor]:
    """Words with a tag each, which the word and the one before it decide: (n, length) twice."""
    words = torch.randint(1, vocabulary, (size, length))
    before = torch.cat([torch.ones(size, 1, dtype=torch.long), words[:, :-1]], 1)
    return words, (words % (tags // 2)) * 2 + (before > vocabulary // 2).long()


def lengths(size: int, *, longest: int, shortest: int = 3) -> Tensor:
    """Random lengths of sequences, as a mask (n, longest) that is true inside."""
    return torch.arange(longest)[None, :] < torch.randint(shortest, longest + 1, (size, 1))


def standardise(x: Tensor, *, over: int | None = 0) -> Tensor:
    """Zero mean and unit deviation, of each feature or (``over=None``) of all values together."""
    if over is None:
        return (x - x.mean()) / x.std()
    return (x - x.mean(over, keepdim=True)) / x.std(over, keepdim=True)


def split(*tensors: Tensor, val: float = 0.2) -> tuple[Any, Any]:
    """A training and a validation set, split at random."""
    whole = TensorDataset(*tensors)
    held = int(len(whole) * val)
    train, rest = random_split(whole, [len(whole) - held, held])
    return train, rest


def loaders(*tensors: Tensor, batch: int = 32, val: float = 0.2, **options: Any) -> tuple[Any, Any]:
    """A shuffling training loader and a validation loader over a random split."""
    train, rest = split(*tensors, val=val)
    return DataLoader(train, batch, shuffle=True, drop_last=True, **options), DataLoader(rest, batch)


def loader(*tensors: Tensor, batch: int = 32, shuffle: bool = True, **options: Any) -> Any:
    """A single shuffling loader over all of it."""
    return DataLoader(TensorDataset(*tensors), batch, shuffle=shuffle, **options)
