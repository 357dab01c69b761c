"""The batch that a stopped step works on, as its tab shows it. Pure; drawing thread.

Pictures travel as base64 of their bytes, red, green and blue by turns, thinned to what a thumbnail can show.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nbdebug.dashboard import words
from nbdebug.dashboard.figures.panel import Floats, Json
from nbdebug.records.stops import BatchView, Halt

BATCH_TAB: Final = "batch"
EMPTY: Final = "Stop at a breakpoint, or check everything, to see a batch as the model sees it."
UNKNOWN: Final = "This batch can't be shown."
WAITING: Final = "The batch is on its way …"
LARGEST_SIDE = 128
MOST_SAMPLES = 64
MOST_COLUMNS = 64
MOST_IDS = 256
LONGEST_TARGET = 200


def state(stop: Halt | None, seen: BatchView | None = None) -> Json:
    """What the tab shows: either ``hint``, or the batch with its samples in the order given.

    ``seen`` is the one that the latest checks looked at, for where no step is stopped.
    """
    batch = stop.batch if stop is not None else seen
    if batch is None:
        return {"hint": EMPTY if stop is None else UNKNOWN}
    lit = set(stop.origin.samples) if stop is not None and stop.origin is not None else set()
    shown = batch.samples[:MOST_SAMPLES]
    return {
        "hint": "",
        "kind": batch.kind,
        "summary": list(batch.summary),
        "note": _note(batch),
        "samples": [_sample(batch, place, lit) for place in range(len(shown))],
        **_contents(batch, len(shown)),
    }


def _sample(batch: BatchView, place: int, lit: set[int]) -> Json:
    loss = float(batch.losses[place]) if batch.losses is not None and place < batch.losses.size else None
    target = batch.targets[place] if place < len(batch.targets) else ""
    index = batch.samples[place]
    return {
        "index": f"#{words.count(index)}",
        "target": target[:LONGEST_TARGET],
        "loss": "" if loss is None else words.number(loss),
        "bad": index in lit or (loss is not None and not math.isfinite(loss)),
    }


def _contents(batch: BatchView, amount: int) -> dict[str, Json]:
    """Pictures, or the rows of a table or of a sequence, as texts."""
    if batch.kind == "pictures" and batch.pictures is not None:
        small = thinned(batch.pictures[:amount])
        return {"size": list(small.shape[1:3]), "pixels": base64.b64encode(small.tobytes()).decode()}
    rows = batch.rows[:amount] if batch.rows is not None else None
    if batch.kind == "table" and rows is not None:
        return {"columns": _columns(batch, rows), "rows": [_cells(row[:MOST_COLUMNS]) for row in rows]}
    if batch.kind == "sequence" and rows is not None:
        return {"columns": [], "rows": [[_ids(row)] for row in rows]}
    return {}


def thinned(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every n-th pixel of large pictures, so that no side is longer than a thumbnail is."""
    stride = max(1, -(-max(pictures.shape[1:3], default=1) // LARGEST_SIDE))
    return np.ascontiguousarray(pictures[:, ::stride, ::stride], dtype=np.uint8)


def _columns(batch: BatchView, rows: Floats) -> list[str]:
    width = min(rows.shape[1], MOST_COLUMNS)
    return [batch.columns[at] if at < len(batch.columns) else str(at) for at in range(width)]


def _cells(row: Floats) -> list[str]:
    return [words.number(float(value)) for value in row]


def _ids(row: Floats) -> str:
    """The ids of a sequence one after the other, up to where only padding (NaN) follows."""
    known = np.flatnonzero(~np.isnan(row))
    reached = row[: int(known[-1]) + 1] if known.size else row[:0]
    ids = map(float, reached[:MOST_IDS])
    texts = [f"{value:.0f}" if value.is_integer() else words.number(value) for value in ids]
    return " ".join([*texts, *(["…"] if reached.size > MOST_IDS else [])])


def _note(batch: BatchView) -> str:
    notes = [batch.note] if batch.note else []
    hidden = len(batch.samples) - MOST_SAMPLES
    notes += [f"{words.plural(hidden, 'more sample')} not shown"] if hidden > 0 else []
    notes += _cut(batch.rows, batch.kind)
    return " · ".join(notes)


def _cut(rows: Floats | None, kind: str) -> Sequence[str]:
    hidden = rows.shape[1] - MOST_COLUMNS if rows is not None and kind == "table" else 0
    return [f"{words.plural(hidden, 'more column')} not shown"] if hidden > 0 else []
