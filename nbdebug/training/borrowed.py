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
Take = Callable[[], Any]


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
        yield lambda: _next_of(beside)
    finally:
        beside.drop_iterator()
        if position.states or not _can_be_gone_through_twice(trainer.train_loader):
            cursor.restore(position)
            if held is not None:
                cursor.hold()
        cursor.set_generators(generators)


def _next_of(cursor: DataCursor) -> Any:
    batch = cursor.take()
    if batch is END:
        cursor.rewind_epoch()
        batch = cursor.take()
    return batch


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
    held = cursor.held if cursor.batch else cursor.hold()
    kept: list[Any] = []
    size_bytes, place = 0, 0

    def take() -> Any:
        nonlocal size_bytes, place
        ended = bool(kept) and kept[-1] is END
        if not ended and (not kept or size_bytes < MOST_KEPT_BYTES):
            kept.append(cursor.take())
            size_bytes += _bytes(kept[-1])
            ended = kept[-1] is END
            if not ended:
                return kept[-1]
        count = len(kept) - ended
        if not count:
            raise CommandError(
                "the epoch is at its end, and this loader can't be begun anew for a test: take a step first"
            )
        place += 1
        return kept[(place - 1) % count]

    try:
        yield take
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
