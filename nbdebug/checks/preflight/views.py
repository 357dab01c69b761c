"""Inputs as rows of numbers, in views in which simple learners see what a network would have to find. Pure.

Draws from generators of its own only.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch.nn import functional as F

MOST_COLUMNS, MOST_POOLED = 512, 1_024
MOST_VALUES = 100_000  # of a sample, of which a spectrum is taken
MOST_MULTIPLIED, FILTERS, CHANNELS_LAST = 12, 32, 4


class View(StrEnum):
    """As they are (large pictures pooled), their spectra, what random filters find anywhere, products of columns."""

    PLAIN = "plain"
    SPECTRUM = "spectrum"
    FILTERED = "filtered"
    PRODUCTS = "products"


def views(values: torch.Tensor, *, closely: bool = False) -> dict[View, torch.Tensor]:
    """Of ``(n, ...)``, each ``(n, columns)``. The last two take time, and are made where one is to look ``closely``."""
    small = pooled(values)
    made = {View.PLAIN: columns(small.reshape(len(values), -1))}
    if values.dim() > 2 and values[0].numel() <= MOST_VALUES:
        spectrum = torch.fft.rfftn(values, dim=tuple(range(1, values.dim()))).abs()
        made[View.SPECTRUM] = columns(spectrum.reshape(len(values), -1))
    if closely and values.dim() == 4:
        made[View.FILTERED] = _filtered(_channels_first(values))
    if closely and values.dim() == 2 and 2 <= values.shape[1] <= MOST_MULTIPLIED:
        made[View.PRODUCTS] = _products(values)
    return made


def pooled(values: torch.Tensor) -> torch.Tensor:
    """Pictures ``(n, channels, height, width)`` of no more than 1,024 numbers; anything else as it is."""
    if values.dim() != 4 or values[0].numel() <= MOST_POOLED:
        return values
    values = _channels_first(values)
    channels, height, width = values.shape[1:]
    shrink = (MOST_POOLED / (channels * height * width)) ** 0.5
    size = (max(1, int(height * shrink)), max(1, int(width * shrink)))
    return F.adaptive_avg_pool2d(values.float(), size)


def columns(flat: torch.Tensor) -> torch.Tensor:
    """As many columns, evenly spaced, as learners can do with."""
    return flat[:, :: max(1, -(-flat.shape[1] // MOST_COLUMNS))]


def _channels_first(values: torch.Tensor) -> torch.Tensor:
    last = values.shape[-1] <= CHANNELS_LAST < min(values.shape[1:3])
    return values.movedim(-1, 1) if last else values


def _filtered(pictures: torch.Tensor) -> torch.Tensor:
    """Means and largest answers of random filters, wherever in the picture: small objects and textures."""
    generator = torch.Generator().manual_seed(0)
    pictures = pictures.float()
    while pictures.shape[-1] * pictures.shape[-2] > 48 * 48:
        pictures = F.avg_pool2d(pictures, 2)
    pictures = (pictures - pictures.mean()) / pictures.std().clamp(min=1e-12)
    found = []
    for size in (3, 5):
        weight = torch.randn(FILTERS, pictures.shape[1], size, size, generator=generator).to(pictures.device)
        answers = F.conv2d(pictures, weight / weight[0].numel() ** 0.5, padding=size // 2)
        found += [answers.relu().mean((2, 3)), answers.amax((2, 3)), answers.abs().mean((2, 3)).log1p()]
    return torch.cat(found, 1)


def _products(table: torch.Tensor) -> torch.Tensor:
    """Products of two and of three standardised columns, and of their signs: what exclusive or and parity go by."""
    scaled = (table - table.mean(0)) / table.std(0).clamp(min=1e-12)
    signs = scaled.sign()
    places = range(table.shape[1])
    pairs = [(one, two) for one in places for two in places if one < two]
    triples = [(*pair, three) for pair in pairs for three in places if pair[1] < three]
    made = [each[:, pair].prod(1) for each in (scaled, signs) for pair in map(list, pairs)]
    made += [signs[:, list(triple)].prod(1) for triple in triples]
    return torch.stack(made, 1)
