"""The tab of watched samples: cards in several orders, what was foretold against what is true. Pure; drawing thread.

What the samples look like is a part of its own, which stays as long as the set does; what passes tell is another.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from nbdebug.dashboard import words
from nbdebug.dashboard.batch import thinned
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.samples import Picked, Samples, SampleSet, Task, told

SAMPLES_TAB: Final = "samples"
WAITING: Final = "The samples are on their way …"
EMPTY: Final = (
    "At the ends of epochs some training samples are looked at, as far as the budget allows. "
    "debugger.watch_samples() watches others, or more often."
)
MOST_PASSES = 32  # on the slider
MOST_CARDS = 24  # of each order
MOST_CLASSES = 12
MOST_POINTS = 256
MOST_CELLS = 32
LONGEST_TEXT = 60
ORDERS: Final = (
    ("worst", "worst", "no pass yet"),
    ("hard", "hard", "None: a hard one has one of the highest losses throughout, over three passes at least."),
    ("forgotten", "forgotten", "None: a forgotten one was right at one pass and is wrong now."),
    (
        "mislabelled",
        "probably mislabelled",
        "None: a suspect is one for which the model was surely and steadily for another class, once it knew most.",
    ),
)


def state(found: Samples) -> Json:
    """What passes tell: either ``hint``, or cards, their orders, and the picture of each pass on the slider."""
    if found.set is None or not found.passes:
        return {"hint": found.note or EMPTY}
    picked = {"worst": found.worst(MOST_CARDS), **{name: getattr(found, name) for name, _, _ in ORDERS[1:]}}
    shown = _shown(len(found.passes))
    right = found.accuracy
    places = sorted({sample.place for each in picked.values() for sample in each.samples[:MOST_CARDS]})
    return {
        "hint": "",
        "about": found.sentence,
        "loss": found.set.loss,
        "number": found.set.number,
        "task": str(found.set.task),
        "passes": [[found.passes[at].step, found.passes[at].epoch] for at in shown],
        "right": [_number(float(right[at])) for at in shown],
        "orders": [_order(name, title, hint, picked[name], found.set) for name, title, hint in ORDERS],
        "cards": {str(place): _card(found, place, shown) for place in places},
        "picture": _picture(found, shown),
    }


def looks(of: SampleSet | None) -> Json:
    """How the samples look: pictures, or rows of numbers."""
    view = of.view if of is not None else None
    if of is None or view is None:
        return {"number": of.number if of is not None else 0, "kind": "other"}
    head: dict[str, Any] = {
        "number": of.number,
        "kind": view.kind,
        "summary": [*view.summary, *filter(None, [view.note])],
    }
    if view.kind == "pictures" and view.pictures is not None:
        small = thinned(view.pictures)
        return {**head, "size": list(small.shape[1:3]), "pixels": base64.b64encode(small.tobytes()).decode()}
    if view.rows is None:
        return head
    rows = view.rows[:, :MOST_CELLS]
    whole = bool((np.isnan(rows) | (rows == np.rint(rows))).all())
    kind = "ids" if view.kind == "sequence" and whole else view.kind
    return {**head, "kind": kind, "columns": list(view.columns[:MOST_CELLS]), "rows": [_row(row) for row in rows]}


def _row(row: Any) -> list[Json]:
    return [_number(float(value)) for value in row]


def _shown(count: int) -> list[int]:
    """Passes in even distances, the first and the latest among them."""
    if count <= MOST_PASSES:
        return list(range(count))
    return sorted({int(at) for at in np.linspace(0, count - 1, MOST_PASSES).round()})


def _order(name: str, title: str, hint: str, picked: Picked, of: SampleSet) -> Json:
    count = len(picked) if name != "worst" else len(of.indices)
    return {
        "name": name,
        "title": title,
        "count": count,
        "hint": "" if len(picked) else hint,
        "places": [sample.place for sample in picked.samples[:MOST_CARDS]],
    }


def _card(found: Samples, place: int, shown: Sequence[int]) -> Json:
    sample, of = found.sample(place), found.set
    assert of is not None
    passes = [found.passes[at] for at in shown]
    return {
        "index": f"#{words.count(sample.index)}",
        "target": sample.target[:LONGEST_TEXT],
        "told": [told(of, each, place)[:LONGEST_TEXT] for each in passes],
        "sure": [_number(float(each.confidence[place])) for each in passes],
        "losses": [_number(float(each.losses[place])) for each in passes],
        "right": [_number(float(each.right[place])) for each in passes],
        "forgotten": sample.forgotten,
        "margin": _number(sample.margin),
    }


def _number(value: float) -> Json:
    """Four digits; what is not finite as text."""
    return float(f"{value:.4g}") if math.isfinite(value) else words.number(value)


# -- what was foretold against what is true ---------------------------------------------------------------------------


def _picture(found: Samples, shown: Sequence[int]) -> Json:
    assert found.set is not None
    if found.set.task is Task.CLASSES:
        return _confusion(found, shown)
    if found.set.task is Task.VALUES:
        return _residuals(found, found.set, shown)
    return None


def _confusion(found: Samples, shown: Sequence[int]) -> Json:
    """A table for each pass, of all classes, or of those that are most often confused and the others together."""
    tables = [found.confusion(at) for at in shown]
    count = tables[-1].shape[0]
    names = [str(each) for each in range(count)]
    if count > MOST_CLASSES:
        wrong = tables[-1] - np.diag(np.diag(tables[-1]))
        kept = sorted(np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[: MOST_CLASSES - 1].tolist())
        tables, names = [_folded(table, kept) for table in tables], [*(names[at] for at in kept), "others"]
    return {"kind": "confusion", "names": names, "tables": [table.reshape(-1).tolist() for table in tables]}


def _folded(table: Any, kept: Sequence[int]) -> Any:
    """Rows and columns of these classes; what is left is one class."""
    into = np.full(table.shape[0], len(kept))
    into[list(kept)] = np.arange(len(kept))
    small = np.zeros((len(kept) + 1, len(kept) + 1), dtype=np.int64)
    np.add.at(small, (into[:, None], into[None, :]), table)
    return small


def _residuals(found: Samples, of: SampleSet, shown: Sequence[int]) -> Json:
    """What is true beside what was foretold, of the first of several numbers."""
    places = np.linspace(0, len(of.indices) - 1, min(len(of.indices), MOST_POINTS)).round().astype(int)
    several = of.targets.shape[1] > 1
    return {
        "kind": "values",
        "note": f"the first of {of.targets.shape[1]} numbers" if several else "",
        "places": places.tolist(),
        "truth": [_number(float(value)) for value in of.targets[places, 0]],
        "told": [[_number(float(value)) for value in found.passes[at].predicted[places, 0]] for at in shown],
    }
