"""What is in the data, in lines under a batch: how often each label comes, how large features are. Pure."""

from __future__ import annotations

import torch

from nbdebug.checks.preflight.look import Look

MOST_LABELS = 12
MOST_SHOWN = 3
MOST_FEATURES = 4_096


def lines(look: Look) -> tuple[str, ...]:
    """Of all batches that were drawn: counts of labels, scales of features, what first meets a layer with weights."""
    found: list[str] = []
    for name, target in look.data.targets.items():
        found += _labels(name, target)
    for name, given in look.data.inputs.items():
        found += _scales(name, given)
    arrivals = look.traces[0].arrivals if look.traces else []
    found += [f"{look.code_name(each.layer)} gets {_range(each.values)}" for each in arrivals[:1]]
    return tuple(found)


def _labels(name: str, target: torch.Tensor) -> list[str]:
    """``batch[1]: 0 × 118, 1 × 122 of 240``; nothing for measured numbers."""
    if target.is_floating_point() or target.is_complex() or not target.numel():
        return []
    values, counts = torch.unique(target, return_counts=True)
    if len(values) > MOST_LABELS:
        order = counts.argsort()
        rare, often = int(order[0]), int(order[-1])
        ends = f"{int(values[rare])} × {int(counts[rare]):,} to {int(values[often])} × {int(counts[often]):,}"
        return [f"{name}: {len(values):,} labels, {ends} of {target.numel():,}"]
    each = ", ".join(f"{int(value)} × {int(count):,}" for value, count in zip(values, counts, strict=True))
    return [f"{name}: {each} of {target.numel():,}"]


def _scales(name: str, given: torch.Tensor) -> list[str]:
    """``batch[0]: mean −0.1 … 2.3, deviation 0.9 (feature 3) … 120 (feature 7) over 240 samples``."""
    if not given.is_floating_point() or given.dim() != 2 or len(given) < 2 or given.shape[1] > MOST_FEATURES:
        return []
    values = given.double()
    means, deviations = values.nanmean(0), values.std(0)
    least, most = int(deviations.nan_to_num(float("inf")).argmin()), int(deviations.nan_to_num(-1.0).argmax())
    return [
        f"{name}: mean {float(means.min()):.3g} … {float(means.max()):.3g}, "
        f"deviation {float(deviations[least]):.3g} (feature {least}) … {float(deviations[most]):.3g} (feature {most}) "
        f"over {len(given):,} samples"
    ]


def _range(values: torch.Tensor) -> str:
    if not values.is_floating_point():
        return f"{str(values.dtype).removeprefix('torch.')}, {tuple(values.shape)}"
    known = values.double()
    return f"{tuple(values.shape)} of mean {float(known.nanmean()):.3g} and deviation {float(known.std()):.3g}"
