"""How watched samples look, all of them beside one another, and what their targets are in words. Training thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nbdebug.records.samples import Task
from nbdebug.records.stops import BatchView
from nbdebug.tools.batch_view import batch_view, shown_tensor
from nbdebug.tools.batch_words import number
from nbdebug.tools.sample_pass import Made
from nbdebug.training.batches import samples

MOST_PIXELS = 256 * 32 * 32  # of all pictures together
SMALLEST_SIDE = 16


def joined_view(batches: Sequence[Any]) -> BatchView:
    """All samples of these batches, in their order, scaled alike; thumbnails where there are many pictures."""
    parts = [batch_view(batch, most=samples(batch, None)) for batch in batches]
    words = tuple(word for part, batch in zip(parts, batches, strict=True) for word in _words(part, batch))
    tensors = [shown_tensor(batch) for batch in batches]
    first = parts[0]
    alike = all(each is not None and each.shape[1:] == tensors[0].shape[1:] for each in tensors)  # type: ignore[union-attr]
    if alike:
        joined = torch.cat([each for each in tensors if each is not None])
        found = batch_view((joined, None), most=len(joined))
        first = replace(found, summary=first.summary, pictures=_small(found.pictures))
    elif first.rows is not None and all(part.rows is not None for part in parts):
        first = replace(first, **_padded(parts))
    else:
        first = BatchView("other", first.summary, (), (), note="the samples are not of one shape")
    return replace(first, samples=tuple(range(len(words))), targets=words, losses=None)


def _words(part: BatchView, batch: Any) -> tuple[str, ...]:
    count = samples(batch, None)
    return part.targets if len(part.targets) == count else ("",) * count


def _small(pictures: Any) -> Any:
    if pictures is None or pictures.shape[0] * pictures.shape[1] * pictures.shape[2] <= MOST_PIXELS:
        return pictures
    count, height, width = pictures.shape[:3]
    side = max(SMALLEST_SIDE, math.isqrt(MOST_PIXELS // count))
    every = math.ceil(max(height, width) / side)
    return np.ascontiguousarray(pictures[:, ::every, ::every])


def _padded(parts: Sequence[BatchView]) -> dict[str, Any]:
    """Rows of several lengths, the shorter ones filled up with NaN."""
    rows = [part.rows for part in parts if part.rows is not None]
    width = max(each.shape[1] for each in rows)
    filled = [np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=np.nan) for each in rows]
    return {"rows": np.concatenate(filled), "columns": tuple(map(str, range(width)))}


def words_of(made: Made, view: BatchView | None) -> tuple[str, ...]:
    """What is true of each sample, in words."""
    if made.task is Task.CLASSES:
        return tuple(f"{value:.0f}" for value in made.targets)
    if made.task is Task.VALUES:
        return tuple(", ".join(number(value) for value in row) for row in made.targets.tolist())
    return view.targets if view is not None else ()
