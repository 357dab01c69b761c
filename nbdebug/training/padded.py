"""Inputs of sequences of different lengths: which places are real, and how to take their content away or exchange it.

Padding, lengths and masks stay as they are, and at each place only values appear that some sample has there: a model
that packs its sequences, or looks categories up, can be called with the outcome. No thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SHORTEST = 2  # places of padding, that some row must have for it to be known as such


def emptied(tensors: Sequence[torch.Tensor], samples: int) -> list[torch.Tensor]:
    """The same for all samples: zeros; of whole numbers the least real one that any sample has at that place."""
    keeps = _keeps(tensors, _lengths_place(tensors, samples))
    return [each if keep else _without_content(each, samples) for keep, each in zip(keeps, tensors, strict=True)]


def exchanged(tensors: Sequence[torch.Tensor], samples: int, order: torch.Tensor) -> list[torch.Tensor]:
    """Each sample in the place of another, by ``order``; where they come sorted by length, each place by itself.

    Then a sample gets the content of the next one, as far as that reaches, so that lengths are as they were.
    """
    place = _lengths_place(tensors, samples)
    lengths = tensors[place].long() if place is not None else _counted(tensors, samples)
    if lengths is None or not _falls(lengths):
        return [tensor[order.to(tensor.device)] if tensor.dim() else tensor for tensor in tensors]
    return [
        tensor if keep or not tensor.dim() else _rolled(tensor, lengths.to(tensor.device))
        for keep, tensor in zip(_keeps(tensors, place), tensors, strict=True)
    ]


def _keeps(tensors: Sequence[torch.Tensor], lengths: int | None) -> list[bool]:
    """Which tensors say how long samples are, rather than what is in them: lengths, and masks beside others."""
    return [place == lengths or (each.dtype is torch.bool and len(tensors) > 1) for place, each in enumerate(tensors)]


def padding(tokens: torch.Tensor) -> torch.Tensor | None:
    """Which places of whole numbers (N, T) are real: before or behind them each row has one value again and again.

    ``None`` where no row ends or begins with a value, twice or more, that is nowhere else in any row.
    """
    if not tokens.numel():
        return None
    for is_ahead in (False, True):
        turned = tokens.flip(1) if is_ahead else tokens
        for value in torch.unique(turned[:, -1]).tolist():
            real: torch.Tensor = turned != value
            is_run = bool((real[:, 1:] <= real[:, :-1]).all()) and bool(real[:, 0].all())
            if is_run and int((~real).sum(1).max()) >= SHORTEST:
                return real.flip(1) if is_ahead else real
    return None


def _lengths_place(tensors: Sequence[torch.Tensor], samples: int) -> int | None:
    """Which of the tensors holds the samples' lengths: whole numbers, of which the largest is another one's width."""
    widths = {tensor.shape[1] for tensor in tensors if tensor.dim() > 1 and len(tensor) == samples}
    for place, tensor in enumerate(tensors):
        fits = tensor.dim() == 1 and tensor.numel() == samples > 0 and _is_whole(tensor)
        if fits and int(tensor.min()) > 0 and int(tensor.max()) in widths:
            return place
    return None


def _counted(tensors: Sequence[torch.Tensor], samples: int) -> torch.Tensor | None:
    """The lengths as a model would count them itself."""
    for tensor in tensors:
        if tensor.dim() == 2 and len(tensor) == samples and _is_whole(tensor):
            real = padding(tensor)
            if real is not None and bool(real[:, 0].all()):
                return real.sum(1)
    return None


def _falls(lengths: torch.Tensor) -> bool:
    return bool((lengths[1:] <= lengths[:-1]).all()) and bool(lengths[0] > lengths[-1])


def _without_content(tensor: torch.Tensor, samples: int) -> torch.Tensor:
    if not _is_whole(tensor) or not tensor.numel():
        return torch.zeros_like(tensor)
    if not tensor.dim() or len(tensor) != samples:
        return torch.full_like(tensor, int(tensor.min()))
    real = padding(tensor) if tensor.dim() == 2 else None
    if real is None:
        return tensor.amin(0, keepdim=True).expand_as(tensor).clone()
    least = tensor.masked_fill(~real, torch.iinfo(tensor.dtype).max).amin(0, keepdim=True)
    return torch.where(real, least, tensor)


def _rolled(tensor: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """At each place, the samples that reach it, which are the first ones, hand their values round."""
    rows = torch.arange(len(tensor), device=tensor.device)
    if tensor.dim() == 1 or tensor.shape[1] < int(lengths.max()):
        return tensor.roll(-1, 0)
    reach = (lengths[:, None] > torch.arange(tensor.shape[1], device=tensor.device)).sum(0).clamp(min=1)
    following = (rows[:, None] + 1) % reach
    taken = torch.where(rows[:, None] < reach, following, rows[:, None])
    return tensor[taken, torch.arange(tensor.shape[1], device=tensor.device)]


def _is_whole(tensor: torch.Tensor) -> bool:
    return not tensor.dtype.is_floating_point and not tensor.dtype.is_complex and tensor.dtype is not torch.bool
