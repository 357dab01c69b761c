"""Sound programs whose loss looks wrong at first sight: summed, of several parts, below zero."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import (
    Bag,
    UNet,
    mlp,
)
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
suspicious = SHELF.suspicious


# -- losses that look odd --------------------------------------------------------------------------------------------


@suspicious(family="embedding", task="classification")
def labels_smoothed() -> Made:
    model = Bag()
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, *data.loaders(*data.texts()))


@suspicious(family="cnn", task="segmentation")
def overlap_and_cross_entropy_together() -> Made:
    images, masks = data.masks()
    model = UNet()

    def loss_fn(output, target):
        p = torch.sigmoid(output)
        overlap = (2 * (p * target).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)
        return (1 - overlap).mean() + F.binary_cross_entropy_with_logits(output, target)

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, *data.loaders(images, masks, batch=16))


@suspicious(family="mlp", task="multi-label")
def summed_over_labels_averaged_over_samples() -> Made:
    x, y = data.labels_per_sample()
    model = mlp(12, 48, 5)

    def loss_fn(output, target):
        return F.binary_cross_entropy_with_logits(output, target, reduction="none").sum(1).mean()

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, *data.loaders(x, y))


@suspicious(family="mlp", task="regression")
def three_quantiles_at_once() -> Made:
    x, y = data.table(noise=0.5)
    model = mlp(8, 64, 3)
    quantiles = torch.tensor([0.1, 0.5, 0.9])

    def pinball(output, target):
        error = target[:, None] - output  # (samples, quantiles) on purpose
        return torch.maximum(quantiles * error, (quantiles - 1) * error).mean()

    return model, Trainer(Adam(model.parameters(), 5e-3), pinball, *data.loaders(x, y))


@suspicious(family="mlp", task="regression", steps=60)
def density_whose_loss_goes_below_zero() -> Made:
    x, y = data.table(noise=0.02)

    class Gaussian(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 64), nn.SiLU())
            self.mean, self.spread = nn.Linear(64, 1), nn.Linear(64, 1)

        def forward(self, x):
            h = self.body(x)
            return self.mean(h)[:, 0], F.softplus(self.spread(h)[:, 0]) + 1e-3

    def loss_fn(output, target):
        mean, spread = output
        return (spread.log() + 0.5 * ((target - mean) / spread) ** 2).mean()

    model = Gaussian()
    return model, Trainer(Adam(model.parameters(), 1e-2), loss_fn, data.loader(x, y))
