"""Which samples are watched, and how they are read, without moving the data set or the loader. Training thread.

From a data set with places they are read by those places, put together by the loader's own ``collate_fn``: in this
process where training reads there, else in a worker process of our own. Of a list of batches some are taken as they
are. Of anything else, such as a stream, what training itself takes is copied as it comes by: see :class:`Gathering`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from nbdebug.records.errors import ConfigurationError
from nbdebug.training import batches
from nbdebug.training.aside import copied
from nbdebug.training.bystanders import unmoved
from nbdebug.training.rng import preserved, reseed
from nbdebug.training.trainer import length

MOST_BYTES = 256_000_000
USUAL_SIZE = 32
SEED = 0
EVERYTHING = 2**62


@dataclass(frozen=True)
class Held:
    """Samples as they were read: batches on the host, the index of each sample, in their order."""

    batches: tuple[Any, ...]
    indices: NDArray[np.int64]
    about: str


@dataclass(frozen=True)
class Choice:
    """Samples that can be read, as often as one likes: ``groups`` of indices, each read as a batch.

    ``places`` is how many there are to choose from, ``None`` if not known.
    """

    split: str
    groups: tuple[tuple[int, ...], ...]
    read: Callable[[Sequence[tuple[int, ...]]], Iterator[Any]]
    places: int | None

    def batches(self) -> Iterator[tuple[Any, tuple[int, ...]]]:
        """Each batch with its samples' indices; no random number is used up, and the data set is as before."""
        for group, batch in zip(self.groups, self.read(self.groups), strict=True):
            yield batch, _indices_in(batch, group)

    def first(self) -> Choice:
        """Only the first batch of it."""
        return replace(self, groups=self.groups[:1])

    def held(self, most_bytes: int = MOST_BYTES) -> Held:
        """All of them, or as many as there is room for."""
        kept: list[Any] = []
        indices: list[int] = []
        size_bytes = 0
        for batch, group in self.batches():
            kept.append(copied(batch))
            indices += group
            size_bytes += _bytes(batch)
            if size_bytes > most_bytes:
                break
        return Held(tuple(kept), np.array(indices, dtype=np.int64), self.about(len(indices)))

    def about(self, count: int) -> str:
        """``256 of 60,000 training samples``."""
        of = "" if self.places is None or self.places <= count else f" of {self.places:,}"
        return f"{count:,}{of} {WORDS.get(self.split, 'given')} samples"


WORDS = {"train": "training", "val": "validation"}


def _indices_in(batch: Any, group: tuple[int, ...]) -> tuple[int, ...]:
    """The index of each sample in a batch; an item of a data set that is a batch itself has several."""
    count = batches.samples(batch, None)
    if len(group) == count:
        return group
    if len(group) > 1:
        raise ConfigurationError(
            f"collate_fn made {count} samples of {len(group)}, so that it can't be told which is which: watch a data "
            "set whose samples are put together one beside the other along the first dimension"
        )
    return tuple(group[0] * count + at for at in range(count))


@dataclass
class Gathering:
    """Samples that training takes by itself, copied as they come by: one stretch of batches of one epoch."""

    split: str
    count: int
    why: str
    most_bytes: int = MOST_BYTES
    is_done: bool = False
    _kept: list[Any] = field(default_factory=list)
    _first: int = 0
    _samples: int = 0
    _bytes: int = 0

    def come_by(self, batch: Any, place: int) -> None:
        """A batch was taken, the ``place``-th of its epoch, from 0; what comes once more is passed over."""
        if self.is_done:
            return
        if not self._kept:
            self._first = place
        elif place <= self._first:
            self.is_done = True  # another epoch has begun
            return
        if _bytes(batch) > self.most_bytes:
            self.is_done = True  # there is room for none
        elif place == self._first + len(self._kept):
            self._keep(batch)

    def _keep(self, batch: Any) -> None:
        self._kept.append(copied(batch))
        self._samples += batches.samples(batch, None)
        self._bytes += _bytes(batch)
        self.is_done = self._samples >= self.count or self._bytes > self.most_bytes

    def held(self) -> Held | None:
        """What was gathered, ``None`` without anything; ``indices`` count the samples in their order."""
        if not self._kept:
            return None
        words = f"{self._samples:,} {WORDS[self.split]} samples, in the order in which they came"
        return Held(tuple(self._kept), np.arange(self._samples, dtype=np.int64), words)


def choose(loader: Any, split: str, count: int, *, indices: Sequence[int] | None = None) -> Choice | Gathering:
    """``count`` samples of a loader or a data set, spread evenly; or those with these ``indices``.

    Raises:
        ConfigurationError: there are none, or they have no such indices.
    """
    if not isinstance(loader, DataLoader):
        return _of_list_or_set(loader, split, count, indices)
    pool = indices if indices is not None else _pool(loader)
    if pool is None:
        return Gathering(split, count, "its samples have no places that are known beforehand")
    if not callable(getattr(loader.dataset, "__getitem__", None)) or isinstance(loader.dataset, IterableDataset):
        raise ConfigurationError(
            f"the samples of a {type(loader.dataset).__name__} can't be indexed: leave indices out"
        )
    if not len(pool):
        raise ConfigurationError(f"there are no samples to watch: the {WORDS.get(split, 'given')} data set is empty")
    _refuse_wrong(loader.dataset, indices)
    groups = _grouped(_spread(pool, count), loader.batch_size or (USUAL_SIZE if loader.batch_sampler else 1))
    return Choice(split, groups, lambda these: _read(loader, these), len(pool))


def of_data_set(dataset: Any, like: Any, count: int) -> Choice:
    """Samples of a data set that no loader reads, put together as the loader ``like`` does."""
    beside = DataLoader(
        dataset,
        batch_size=getattr(like, "batch_size", None) or USUAL_SIZE,
        collate_fn=like.collate_fn if isinstance(like, DataLoader) else None,
    )
    found = choose(beside, "given", count)
    if isinstance(found, Gathering):
        raise ConfigurationError("the data set can't be indexed: give one with __len__ and __getitem__, or a loader")
    return found


def _of_list_or_set(loader: Any, split: str, count: int, indices: Sequence[int] | None) -> Choice | Gathering:
    if not isinstance(loader, (list, tuple)):
        if indices is not None:
            raise ConfigurationError("these samples can't be indexed: the training loader is not a DataLoader")
        return Gathering(split, count, f"a {type(loader).__name__} says nothing of its samples beforehand")
    if not loader:
        raise ConfigurationError("there are no samples to watch: the list of batches is empty")
    sizes = [batches.samples(batch, None) for batch in loader]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    if indices is not None:
        raise ConfigurationError("a list of batches can't be indexed by samples: leave the indices out")
    chosen, total = [], 0
    for at in _spread(
        range(len(loader)), len(loader) if count >= starts[-1] else -(-count * len(loader) // starts[-1])
    ):
        if total < count:
            chosen.append(at)
            total += sizes[at]
    groups = tuple(tuple(range(starts[at], starts[at + 1])) for at in chosen)
    at_start = {int(starts[at]): at for at in chosen}
    return Choice(split, groups, lambda these: (loader[at_start[group[0]]] for group in these), int(starts[-1]))


def stream(loader: Any) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """All batches of a loader whose samples have no places, with their places in its order.

    Raises:
        ConfigurationError: it can be gone through once only.
    """
    source = loader.dataset if isinstance(loader, DataLoader) else loader
    if hasattr(source, "__next__"):
        raise ConfigurationError(f"a {type(source).__name__} can be gone through only once, and training needs it")
    start = 0
    with unmoved(source, loader), preserved():
        reseed(SEED)
        for batch in _without_workers(loader):
            count = batches.samples(batch, None)
            yield batch, tuple(range(start, start + count))
            start += count


def _without_workers(loader: Any) -> Any:
    if not isinstance(loader, DataLoader):
        return loader
    return DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn)


def _pool(loader: Any) -> Sequence[int] | None:
    """The places of the samples that a loader can give; ``None`` where only it knows."""
    dataset, cls = loader.dataset, type(loader)
    own_way = cls.__iter__ is not DataLoader.__iter__ or cls._get_iterator is not DataLoader._get_iterator
    if own_way or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        return None
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        return None
    sampler = loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return [int(each) for each in sampler.indices]
    if isinstance(sampler, WeightedRandomSampler):
        return [int(each) for each in torch.as_tensor(sampler.weights).nonzero()[:, 0]]
    if type(sampler) in (SequentialSampler, RandomSampler, DistributedSampler):
        count = length(dataset)
        return None if count is None else range(count)
    return None


def _refuse_wrong(dataset: Any, indices: Sequence[int] | None) -> None:
    count = length(dataset)
    if indices is None or count is None:
        return
    wrong = [each for each in indices if not 0 <= each < count]
    if wrong:
        listed = ", ".join(map(str, wrong[:5]))
        raise ConfigurationError(f"there are no samples {listed}: the data set has 0 to {count - 1:,}")


def _spread(pool: Sequence[int], count: int) -> list[int]:
    """So many of them, in even distances; all where there are no more."""
    if count >= len(pool):
        return [int(each) for each in pool]
    return [int(pool[int(at)]) for at in np.linspace(0, len(pool) - 1, count).round()]


def _grouped(indices: Sequence[int], size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(indices[at : at + size]) for at in range(0, len(indices), size))


def _read(loader: Any, groups: Sequence[tuple[int, ...]]) -> Iterator[Any]:
    """As the loader would read them, were its sampler to name them."""
    if loader.num_workers:
        yield from _read_in_a_worker(loader, groups)
        return
    for group in groups:
        with _as_it_was(loader):
            batch = _fetched(loader, group)
        yield batch


def _fetched(loader: Any, group: tuple[int, ...]) -> Any:
    dataset = loader.dataset
    if loader.batch_sampler is None:
        return loader.collate_fn(dataset[group[0]])
    if callable(getattr(dataset, "__getitems__", None)):
        return loader.collate_fn(dataset.__getitems__(list(group)))
    return loader.collate_fn([dataset[at] for at in group])


@contextmanager
def _as_it_was(loader: Any) -> Iterator[None]:
    """The same random numbers at each reading, and none of them the user's."""
    with unmoved(loader.dataset, loader.collate_fn), preserved():
        reseed(SEED)
        yield


def _read_in_a_worker(loader: Any, groups: Sequence[tuple[int, ...]]) -> Iterator[Any]:
    """In a process of our own, as the loader's workers are: what reading leaves behind ends with it."""
    order: dict[str, Any] = {"batch_sampler": list(map(list, groups))}
    if loader.batch_sampler is None:
        order = {"sampler": [group[0] for group in groups], "batch_size": None}
    beside: Any = DataLoader(
        loader.dataset,
        **order,
        num_workers=1,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator().manual_seed(SEED),
    )
    with preserved():
        yield from beside


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(_bytes(part) for part in parts)
