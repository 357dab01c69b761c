"""Samples over time: a fixed set of them, what the model made of it at each pass, and what that tells of each one.

A pass is one look at the whole set in evaluation mode, between two steps. What follows from the passes, which samples
are hard, forgotten or probably mislabelled, is judged in :mod:`nbdebug.records.sample_judging`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from html import escape

import numpy as np
from numpy.typing import NDArray

from nbdebug.records import sample_judging as judging
from nbdebug.records.stops import BatchView

Singles = NDArray[np.float32]
MOST_SHOWN = 12


class Task(StrEnum):
    """What is foretold of a sample: one of several classes, a few numbers, a label at each place, something else."""

    CLASSES = "classes"
    VALUES = "values"
    PLACES = "places"
    OTHER = "other"


@dataclass(frozen=True)
class SampleSet:
    """The samples that are watched, ``n`` of them, the same at each pass.

    ``indices`` ``(n,)`` are those of the data set, or places in the stream of samples where it has none. ``targets``
    are ``(n,)`` classes, ``(n, values)`` numbers, or empty; ``words`` say them. ``view`` shows all samples in their
    order. ``about`` says where they come from, ``loss`` how the loss of one is taken, ``number`` counts the sets of a
    session.
    """

    number: int
    run: str
    split: str
    task: Task
    indices: NDArray[np.int64]
    targets: Singles
    classes: int = 0
    words: tuple[str, ...] = ()
    view: BatchView | None = None
    about: str = ""
    loss: str = ""


@dataclass(frozen=True)
class SamplePass:
    """What the model made of the set after ``step``, each ``(n,)``; NaN where it is not known.

    ``losses`` are taken sample by sample. ``predicted`` are classes, or numbers ``(n, values)``, ``confidence`` the
    probability of the class foretold, ``margins`` by how much the target's probability is above the greatest other,
    ``right`` the share of what was foretold that is right: 0 or 1 for a class.
    """

    run: str
    number: int
    step: int
    epoch: int
    losses: Singles
    predicted: Singles
    confidence: Singles
    margins: Singles
    right: Singles


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as it stands: its ``index``, the latest loss and prediction, and what the passes tell of it.

    ``place`` is its place in the set. ``forgotten`` counts the times that it was right, and wrong at the next pass;
    ``margin`` is the mean of its margins over the passes that count.
    """

    place: int
    index: int
    loss: float
    target: str
    predicted: str
    confidence: float
    forgotten: int
    margin: float

    def __str__(self) -> str:
        told = f"{self.target} foretold as {self.predicted}" if self.predicted else self.target
        sure = f" ({100 * self.confidence:.0f} % sure)" if np.isfinite(self.confidence) else ""
        return f"#{self.index:,}  loss {self.loss:.4g}  {told}{sure}".rstrip()


@dataclass(frozen=True)
class Picked:
    """Some samples, the foremost first; ``why`` says by what. Prints as a list, and shows as a table."""

    why: str
    samples: tuple[Sample, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """Their indices."""
        return tuple(sample.index for sample in self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, at: int) -> Sample:
        return self.samples[at]

    def __str__(self) -> str:
        more = len(self.samples) - MOST_SHOWN
        lines = [f"  {sample}" for sample in self.samples[:MOST_SHOWN]] + ([f"  and {more} more"] if more > 0 else [])
        return "\n".join([f"{self.why}: {len(self.samples) or 'none'}", *lines])

    def _repr_html_(self) -> str:
        heads = ("sample", "loss", "target", "foretold", "sure", "forgotten", "margin")
        rows = "".join(
            f"<tr><th>#{each.index}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(each)) + "</tr>"
            for each in self.samples
        )
        head = "".join(f"<th>{name}</th>" for name in heads)
        return f"<p>{escape(self.why)}: {len(self.samples) or 'none'}</p><table><tr>{head}</tr>{rows}</table>"


def _cells(sample: Sample) -> tuple[str, ...]:
    sure = f"{100 * sample.confidence:.0f} %" if np.isfinite(sample.confidence) else ""
    margin = f"{sample.margin:.2f}" if np.isfinite(sample.margin) else ""
    return f"{sample.loss:.4g}", sample.target, sample.predicted, sure, str(sample.forgotten or ""), margin


@dataclass(frozen=True)
class Samples:
    """The samples that are watched, over the passes of one line of runs, up to where the model stands.

    ``note`` says why there is nothing yet, or what can't be told; ``shown`` is how many of the worst are listed.
    Prints in words.
    """

    set: SampleSet | None = None
    passes: tuple[SamplePass, ...] = ()
    note: str = ""
    shown: int = 10

    @property
    def indices(self) -> NDArray[np.int64]:
        """``(n,)``: the samples' indices."""
        return self.set.indices if self.set is not None else np.zeros(0, dtype=np.int64)

    @property
    def steps(self) -> NDArray[np.int64]:
        """``(passes,)``: after which steps the passes were made."""
        return np.array([each.step for each in self.passes], dtype=np.int64)

    @cached_property
    def losses(self) -> Singles:
        """``(passes, n)``: the loss of each sample at each pass."""
        return self._over(lambda each: each.losses)

    @cached_property
    def right(self) -> Singles:
        """``(passes, n)``: the share of what was foretold that was right; NaN where that means nothing."""
        return self._over(lambda each: each.right)

    @cached_property
    def margins(self) -> Singles:
        """``(passes, n)``: the target's probability less the greatest other; NaN where there are no classes."""
        return self._over(lambda each: each.margins)

    @cached_property
    def _predicted(self) -> Singles:
        return self._over(lambda each: each.predicted if each.predicted.ndim == 1 else each.predicted[:, 0])

    @cached_property
    def _confidence(self) -> Singles:
        return self._over(lambda each: each.confidence)

    @property
    def accuracy(self) -> Singles:
        """``(passes,)``: the share that was right at each pass."""
        known = np.isfinite(self.right)
        count = known.sum(axis=1)
        total = np.where(known, self.right, 0.0).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)

    @cached_property
    def forgetting(self) -> NDArray[np.int64]:
        """``(n,)``: how often each was right at one pass, and wrong at the next (Toneva et al. 2019)."""
        return judging.forgetting(self.right)

    @cached_property
    def mean_margins(self) -> Singles:
        """``(n,)``: the mean margin over the passes in which the model knew most samples (Pleiss et al. 2020)."""
        return judging.mean_margins(self._seen)

    # -- which samples ------------------------------------------------------------------------------------------

    def worst(self, most: int | None = None) -> Picked:
        """Those with the largest loss at the latest pass; what is not a number first."""
        if not self.passes:
            return self._picked("largest loss", [])
        losses = self.losses[-1].astype(np.float64)
        order = np.lexsort((-losses, ~np.isnan(losses)))
        count = self.shown if most is None else max(most, 0)
        return self._picked("largest loss", order[:count].tolist())

    @property
    def hard(self) -> Picked:
        """Those whose loss is among the highest throughout; of classes only what is mostly wrong."""
        return self._picked("hard: a high loss throughout", judging.hard(self._seen, self.losses))

    @property
    def forgotten(self) -> Picked:
        """Those that were right once and are wrong now, what was forgotten most often first."""
        return self._picked("forgotten: once right, wrong now", judging.forgotten(self._seen, self.forgetting))

    @property
    def mislabelled(self) -> Picked:
        """Those for which the model was surely and steadily for another class, once it knew most of the others.

        Only a suspicion: what is rare or hard to tell looks alike. Without classes, or before most are learnt: none.
        """
        return self._picked("probably mislabelled", judging.mislabelled(self._seen))

    # -- the latest pass, or another ----------------------------------------------------------------------------

    def confusion(self, at: int = -1) -> NDArray[np.int64]:
        """``(classes, classes)``: how many samples of each class (rows) were foretold as which, at a pass.

        Raises:
            LookupError: there is no such pass, or no classes.
        """
        if self.set is None or self.set.task is not Task.CLASSES:
            raise LookupError(f"there are no classes: {self.note or 'the model foretells something else'}")
        return judging.confusion(self.set.targets, self.passes[at].predicted, self.set.classes)

    def residuals(self, at: int = -1) -> Singles:
        """``(n, values)``: what was foretold less what is true, at a pass.

        Raises:
            LookupError: there is no such pass, or the model foretells no few numbers.
        """
        if self.set is None or self.set.task is not Task.VALUES:
            raise LookupError(f"there are no numbers to compare: {self.note or 'the model foretells something else'}")
        return np.asarray(self.passes[at].predicted - self.set.targets, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.passes)

    def __str__(self) -> str:
        if self.set is None or not self.passes:
            return f"no samples watched: {self.note}" if self.note else "no samples watched yet"
        return "\n".join(map(str, (self.sentence, *self._lists())))

    def _repr_html_(self) -> str:
        if self.set is None or not self.passes:
            return f"<p>{escape(str(self))}</p>"
        return f"<p><b>{escape(self.sentence)}</b></p>" + "".join(each._repr_html_() for each in self._lists())

    @property
    def sentence(self) -> str:
        """What is watched, and how it stands, in a line."""
        if self.set is None or not self.passes:
            return str(self)
        known = float(self.accuracy[-1])
        right = f", {100 * known:.3g} % right" if np.isfinite(known) else ""
        passes = f"{len(self.passes)} pass{'es' if len(self.passes) != 1 else ''}"
        mean = float(np.mean(self.losses[-1], dtype=np.float64))
        text = (
            f"{self.set.about}, {passes}, the latest after step {self.passes[-1].step:,}: mean loss {mean:.4g}{right}"
        )
        return f"{text}; {self.note}" if self.note else text

    def _lists(self) -> tuple[Picked, ...]:
        return (self.worst(), self.hard, self.forgotten, self.mislabelled) if len(self.passes) > 1 else (self.worst(),)

    @cached_property
    def _seen(self) -> judging.Seen:
        has_classes = self.set is not None and self.set.task is Task.CLASSES
        has_right = has_classes or (self.set is not None and self.set.task is Task.PLACES)
        targets = self.set.targets if self.set is not None and has_classes else np.zeros(0, dtype=np.float32)
        return judging.Seen(targets, self._predicted, self._confidence, self.margins, self.right, has_right)

    def _over(self, look: Callable[[SamplePass], Singles]) -> Singles:
        count = len(self.indices)
        return np.array([look(each) for each in self.passes], dtype=np.float32).reshape(len(self.passes), count)

    def _picked(self, why: str, places: list[int]) -> Picked:
        return Picked(why, tuple(self.sample(place) for place in places))

    def sample(self, place: int) -> Sample:
        """The one at this place of the set, as of the latest pass."""
        assert self.set is not None
        latest = self.passes[-1]
        return Sample(
            place,
            int(self.set.indices[place]),
            float(latest.losses[place]),
            self.set.words[place] if place < len(self.set.words) else "",
            told(self.set, latest, place),
            float(latest.confidence[place]),
            int(self.forgetting[place]),
            float(self.mean_margins[place]),
        )


def told(of: SampleSet, at: SamplePass, place: int) -> str:
    """What the model foretold of a sample, in words."""
    if of.task is Task.CLASSES:
        value = float(at.predicted[place])
        return f"{value:.0f}" if np.isfinite(value) else "NaN"
    if of.task is Task.VALUES:
        return ", ".join(f"{value:.4g}" for value in at.predicted[place].tolist())
    share = float(at.right[place])
    return f"{100 * share:.3g} % right" if of.task is Task.PLACES and np.isfinite(share) else ""
