"""Batches of the training loader for a while, after which the place in the data is as it was. Training thread only.

A loader that can be gone through twice at once is, so that the place is never left. Where it can't, the place is come
back to, as after a rewind; and where that can't be relied on either, the batches taken are kept and given once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from nbdebug.records.errors import CommandError
from nbdebug.training.data import END, DataCursor, generator_state, generators_in, set_generator
from nbdebug.training.trainer import Trainer

MOST_KEPT_BYTES = 512_000_000


class Take:
    """Gives the next batch, epoch after epoch, by ``fetch``, which says with it whether an epoch ended before it.

    ``epochs`` counts those that came to an end; ``is_from_start`` says whether the first batch was an epoch's first.
    """

    def __init__(self, fetch: Callable[[], tuple[Any, bool]], *, is_from_start: bool) -> None:
        self.epochs = 0
        self.is_from_start = is_from_start
        self._fetch = fetch

    def __call__(self) -> Any:
        """The next batch."""
        batch, has_ended = self._fetch()
        self.epochs += has_ended
        return batch


@contextmanager
def borrowed(trainer: Trainer, cursor: DataCursor, others: list[Any], *, doubtful: bool) -> Iterator[Take]:
    """Within, a function that gives batches, epoch after epoch. Within the session's turn at begin and end.

    ``others`` are what else may hold generators, such as the model's modules: theirs are put back, too. ``doubtful``
    says that a place other than the very beginning can't be come back to for certain. Global random states are the
    caller's to put back.
    """
    held, position = cursor.held, cursor.position()
    if doubtful:
        with _generators_kept(trainer.train_loader, others), _given_back(cursor) as take:
            yield take
        return
    generators = cursor.generator_states()
    beside = DataCursor(trainer.train_loader, None, batching=cursor.batching)
    try:
        yield Take(lambda: _next_of(beside), is_from_start=True)
    finally:
        beside.drop_iterator()
        if position.states or not _can_be_gone_through_twice(trainer.train_loader):
            cursor.restore(position)
            if held is not None:
                cursor.hold()
        cursor.set_generators(generators)


def _next_of(cursor: DataCursor) -> tuple[Any, bool]:
    batch = cursor.take()
    has_ended = batch is END
    if has_ended:
        cursor.rewind_epoch()
        batch = cursor.take()
    return batch, has_ended


def _can_be_gone_through_twice(loader: Any) -> bool:
    """Whether a second iterator leaves the first alone: nothing in between is an iterator itself."""
    if isinstance(loader, (list, tuple)):
        return True
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset) or loader.persistent_workers:
        return False
    return not any(hasattr(part, "__next__") for part in (loader.sampler, loader.batch_sampler))


@contextmanager
def _given_back(cursor: DataCursor) -> Iterator[Take]:
    """The rest of the epoch, or as much of it as may be kept, over and over."""
    is_from_start = cursor.batch == 0
    held = cursor.held if cursor.batch else cursor.hold()
    kept: list[Any] = []
    size_bytes, place = 0, 0

    def take() -> tuple[Any, bool]:
        nonlocal size_bytes, place
        is_over = bool(kept) and kept[-1] is END
        if not is_over and (not kept or size_bytes < MOST_KEPT_BYTES):
            kept.append(cursor.take())
            size_bytes += _bytes(kept[-1])
            is_over = kept[-1] is END
            if not is_over:
                return kept[-1], False
        count = len(kept) - is_over
        if not count:
            raise CommandError(
                "the epoch is at its end, and this loader can't be begun anew for a test: take a step first"
            )
        place += 1
        return kept[(place - 1) % count], (place - 1) % count == 0

    try:
        yield Take(take, is_from_start=is_from_start)
    finally:
        cursor.give_back(kept, held if kept else None)


@contextmanager
def _generators_kept(loader: Any, others: list[Any]) -> Iterator[None]:
    """What others hold is put back; a loader whose batches are given once more stays ahead."""
    ahead = {id(source) for source in generators_in(loader)}
    sources = [source for other in others for source in generators_in(other) if id(source) not in ahead]
    states = [generator_state(source) for source in sources]
    try:
        yield
    finally:
        for source, state in zip(sources, states, strict=True):
            set_generator(source, state)


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(_bytes(part) for part in parts)
