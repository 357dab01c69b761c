"""A network over a table of flats: numbers, standardised, and categories, embedded; predicts a price's logarithm."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Trainer

CARDINALITIES = (12, 5, 3)  # district, kind of house, heating
FAULTS = {
    "validation scaled to 0..1": "train_val_mismatch",
    "error of (N, 1) and (N,)": "loss_shape_broadcast",
    "prices can't be negative": "output_activation_mismatch",
    "sorted by price": "unshuffled_data",
    "deep and sigmoid": "bad_initialization",
    "prices in euros": "unnormalized_target",
}


def flats(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area, rooms, year and distance in their own units; three categories; a price in euros."""
    area = rng.gamma(9, 9, count)
    rooms = np.clip(np.round(area / 28 + rng.normal(0, 0.7, count)), 1, 8)
    year = rng.integers(1900, 2024, count)
    distance = rng.exponential(6, count)
    categories = np.stack([rng.integers(0, size, count) for size in CARDINALITIES], axis=1)
    worth = np.random.default_rng(3).normal(0, 0.35, (3, 12))
    log_price = (
        11.2 + 0.9 * np.log(area / 80) + 0.002 * (year - 1960) - 0.04 * distance + 0.03 * rooms
        + sum(worth[place, categories[:, place]] for place in range(3))
        + 0.25 * (categories[:, 1] == 2) * (distance > 6) + rng.normal(0, 0.1, count)
    )  # fmt: skip
    return np.stack([area, rooms, year, distance], axis=1), categories, np.exp(log_price)


class TabularModel(nn.Module):
    def __init__(self, numbers, cardinalities, *, layers=(64, 32), drop=0.1, act=nn.ReLU, norm=True, floor=False):
        super().__init__()
        self.embeds = nn.ModuleList(nn.Embedding(size, min(8, (size + 1) // 2)) for size in cardinalities)
        sizes = [numbers + sum(embed.embedding_dim for embed in self.embeds), *layers]
        blocks: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            blocks += [nn.Linear(n_in, n_out), act()]
            blocks += [nn.BatchNorm1d(n_out), nn.Dropout(drop)] if norm else []
        self.layers = nn.Sequential(*blocks, nn.Linear(sizes[-1], 1))
        self.floor = floor

    def forward(self, inputs):
        x_cont, x_cat = inputs
        x = torch.cat([embed(x_cat[:, place]) for place, embed in enumerate(self.embeds)] + [x_cont], dim=1)
        x = self.layers(x)
        return x.relu() if self.floor else x


def collate(rows):
    numbers, categories, prices = (torch.stack(column) for column in zip(*rows, strict=True))
    return (numbers, categories), prices


def build(fault: str | None = None, *, seed: int = 0) -> tuple[nn.Module, Trainer]:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    numbers, categories, price = flats(2400, rng)
    train, val = np.arange(2000), np.arange(2000, 2400)
    if fault == "sorted by price":  # as the file came
        train = train[np.argsort(price[train])]

    mean, std = numbers[train].mean(0), numbers[train].std(0)
    scaled = (numbers - mean) / std
    if fault == "validation scaled to 0..1":
        low, high = numbers[val].min(0), numbers[val].max(0)
        scaled[val] = (numbers[val] - low) / (high - low)

    target = np.log(price)
    target = (target - target[train].mean()) / target[train].std()
    if fault == "prices in euros":
        target = price

    columns = [torch.tensor(scaled, dtype=torch.float32), torch.tensor(categories)]
    columns.append(torch.tensor(target, dtype=torch.float32))
    if fault != "error of (N, 1) and (N,)":
        columns[-1] = columns[-1].unsqueeze(1)
    train_set, val_set = (TensorDataset(*(column[rows] for column in columns)) for rows in (train, val))

    model = TabularModel(scaled.shape[1], CARDINALITIES, floor=fault == "prices can't be negative")
    if fault == "deep and sigmoid":
        model = TabularModel(scaled.shape[1], CARDINALITIES, layers=(64,) * 6, act=nn.Sigmoid, norm=False, drop=0)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    if fault == "deep and sigmoid":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def rmse(output, target):
        return (output - target.view_as(output)).pow(2).mean().sqrt().item()

    def squared_error(output, target):
        return (output - target).pow(2).mean()

    trainer = Trainer(
        optimizer,
        squared_error,
        DataLoader(train_set, batch_size=64, shuffle=fault != "sorted by price", collate_fn=collate, drop_last=True),
        DataLoader(val_set, batch_size=128, collate_fn=collate),
        metrics={"rmse": rmse},
    )
    return model, trainer
