"""The batch size of a training loader, which can be another than the one it was made with. Training thread only.

The epoch's order is the sampler's and stays; from the next batch on it is grouped by the new size. Worker processes
fetch ahead, so with them a new size is taken up with the next epoch. The user's own loader is never written to: its
epochs are gone through by a copy of it that has another batch sampler.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from nbdebug.training.trainer import length

WITH_WORKERS = "from the next epoch on, since its worker processes have fetched ahead"


class Regrouping:
    """A loader's epochs in batches of the size ``asked`` for, its own where none is."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.asked: int | None = None
        self._twin: Any = None

    @property
    def size(self) -> Any:
        """The batch size in force."""
        return self.asked or self.loader.batch_sampler.batch_size

    def epoch(self) -> Iterator[Any]:
        """The iterator of an epoch that begins now."""
        own = self.loader.batch_sampler
        if self.loader.num_workers and self.size == own.batch_size:
            return iter(self.loader)
        if self._twin is None or not self.loader.persistent_workers or self._twin.batch_size != self.size:
            grouped: Any = Groups(own, self)
            if self.loader.num_workers:
                grouped = BatchSampler(own.sampler, self.size, own.drop_last)
            self._twin = copy.copy(self.loader)
            vars(self._twin).update(batch_sampler=grouped, batch_size=self.size, _iterator=None)
        return iter(self._twin)

    def let_go(self) -> None:
        """Of worker processes that would live on."""
        self._twin = None


class Groups:
    """A batch sampler, as torch's own is, but that the size may change between two batches."""

    def __init__(self, own: Any, regrouping: Regrouping) -> None:
        self.own = own
        self.regrouping = regrouping

    def __iter__(self) -> Iterator[list[Any]]:
        order = iter(self.own.sampler)
        size = self.regrouping.size
        while group := list(islice(order, size)):
            if self.own.drop_last and len(group) < size:
                return
            yield group
            size = self.regrouping.size

    def __len__(self) -> int:
        return batches_in(len(self.own.sampler), self.regrouping.size, self.own.drop_last)


def batches_in(samples: int, size: int, drop_last: bool) -> int:
    """How many batches so many samples give."""
    return samples // size if drop_last else -(-samples // size)


class Batching(Regrouping):
    """The same for a loader of any kind. ``fixed`` says why another batch size can't be had, empty if it can."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.fixed = _why_fixed(loader)

    @property
    def size(self) -> int | None:
        """The batch size in force; ``None`` where it is fixed."""
        return None if self.fixed else super().size

    @property
    def at_once(self) -> bool:
        """Whether a new size acts within an epoch."""
        return not self.fixed and not self.loader.num_workers

    @property
    def when(self) -> str:
        """When a new size acts, if not with the next batch."""
        return "" if self.fixed or self.at_once else WITH_WORKERS

    def ask(self, size: int | None) -> None:
        """Ask for a size; ``None``, and a loader of a fixed one, leave everything as it is."""
        if size is not None and not self.fixed:
            self.asked = size if size != self.loader.batch_sampler.batch_size else None

    def epoch(self) -> Iterator[Any]:
        """The iterator of an epoch that begins now."""
        return iter(self.loader) if self.fixed else super().epoch()

    def batches(self, taken: int, points: tuple[tuple[int, int], ...]) -> int | None:
        """Batches of an epoch of which some are taken, ``None`` if not known; ``points`` as :class:`DataPosition`'s."""
        samples = None if self.fixed else length(self.loader.sampler)
        if samples is None or (not points and self.asked is None):
            return length(self.loader)
        size, ends = self.size, [*(start for start, _ in points[1:]), taken]
        seen = sum((end - start) * each for (start, each), end in zip(points, ends, strict=False))
        if points and not self.at_once:
            size = points[0][1]
        assert size is not None
        return taken + batches_in(max(samples - seen, 0), size, self.loader.drop_last)

    def mistakes(self, size: Any) -> list[str]:
        """Why this size can't be set."""
        if self.fixed:
            return [f"batch_size can't be set: {self.fixed}"]
        if isinstance(size, bool) or not isinstance(size, int):
            return [f"batch_size must be a whole number, not {size!r}"]
        if size < 1:
            return [f"batch_size={size} is out of range: it must be at least 1"]
        samples = length(self.loader.sampler)
        if self.loader.drop_last and samples is not None and size > samples:
            return [
                f"batch_size={size} is more than the {samples:,} samples that there are: with drop_last no batch would "
                "be left; give a smaller one"
            ]
        return []


def _why_fixed(loader: Any) -> str:
    if not isinstance(loader, DataLoader):
        kind = "a list of batches" if isinstance(loader, (list, tuple)) else f"a {type(loader).__name__}"
        return f"train_loader is {kind}, which makes its batches itself; a DataLoader's can be changed"
    if isinstance(loader.dataset, IterableDataset):
        return "its dataset is a stream (IterableDataset), which has no order that could be grouped anew"
    if loader.batch_sampler is None:
        return "the loader puts no batches together (batch_size=None)"
    if type(loader.batch_sampler) is not BatchSampler:
        return f"the loader has a batch sampler of its own ({type(loader.batch_sampler).__name__}), which decides"
    cls: Any = type(loader)
    if cls.__iter__ is not DataLoader.__iter__ or cls._get_iterator is not DataLoader._get_iterator:
        return f"the loader's class, {cls.__name__}, goes through the data in a way of its own"
    return ""


def size_at(batch: int, points: tuple[tuple[int, int], ...]) -> int | None:
    """The size of an epoch's batch by its number from 0; ``None`` where it was not noted."""
    return next((size for start, size in reversed(points) if start <= batch), None)
