"""The place in the training data: which batch comes next, and how to come back to it.

Used by the training thread only, within its turn: taking a batch may draw random numbers.
"""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from nbdebug.records.errors import ConfigurationError
from nbdebug.training.batch_size import Batching, size_at
from nbdebug.training.rng import RandomState, preserved

END = object()
MAX_PARTS = 64


@dataclass(frozen=True, slots=True)
class DataPosition:
    """So many batches into an epoch that began with these random states.

    ``states`` and ``epoch_states`` are those of datasets and samplers with a ``state_dict``, now and at its beginning.
    ``sizes`` are (batch, size) for the first batch of the epoch, and for each from which on its batch size was another.
    """

    batch: int
    epoch_random: RandomState | None
    epoch_generators: tuple[Any, ...]
    generators: tuple[Any, ...]
    epoch_states: tuple[Any, ...] = ()
    states: tuple[Any, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A batch that was fetched and not yet taken, the place before it, and what random states its fetching left."""

    batch: Any
    position: DataPosition
    random: RandomState
    generators: tuple[Any, ...]


class DataCursor:
    """Goes through the training loader, epoch after epoch, and knows where it is.

    ``others`` are whatever else may hold random generators, such as the model's modules. ``batching`` says how large
    batches are; it may change at any time, and acts on what is fetched from then on.
    """

    def __init__(
        self,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None,
        others: Iterable[Any] = (),
        batching: Batching | None = None,
    ) -> None:
        self.batch = 0
        self.batching = batching or Batching(train_loader)
        self._loader = train_loader
        self._sizes: list[tuple[int, int]] = []
        self._counted: tuple[int | None, int | None] | None = None
        self._fetched_size: int | None = None
        holders = (train_loader, val_loader, *others)
        self._sources = list({id(source): source for holder in holders for source in generators_in(holder)}.values())
        self._stateful = [part for loader in (train_loader, val_loader) for part in _stateful_parts(loader)]
        self._iterator: Iterator[Any] | None = None
        self._ahead: list[Any] = []
        self._held: Held | None = None
        self._epoch_random: RandomState | None = None
        self._epoch_generators: tuple[Any, ...] = ()
        self._epoch_states: tuple[Any, ...] = ()

    def take(self) -> Any:
        """The next batch, or :data:`END` when the epoch is over."""
        self._heed_size()
        if self._held is not None:
            return self._take_held(self._held)
        taken = self._ahead.pop() if self._ahead else self._fetch()
        if taken is END and self.batch == 0:
            raise ConfigurationError("train_loader is empty: it yielded no batch, so there is nothing to train on")
        if taken is not END:
            self.batch += 1
        return taken

    @property
    def held(self) -> Held | None:
        """The batch at hand, if :meth:`hold` fetched one that will be taken."""
        return None if self._is_outdated else self._held

    def hold(self) -> Held | None:
        """Fetch the next batch without going on to it: all is as before, and :meth:`take` gives it, as it would have.

        ``None`` when the epoch is over.
        """
        self._heed_size()
        if self._held is None:
            position, random = self.position(), RandomState.capture()
            batch = self.take()
            if batch is END:
                self._ahead.append(END)
                return None
            self._held = Held(batch, position, RandomState.capture(), self.generator_states())
            self.batch -= 1
            self.set_generators(position.generators)
            random.restore()
        return self._held

    def hold_again(self, batch: Any) -> None:
        """Hold the batch that was taken last, with the random states of now: it will be the next one once more."""
        self.batch -= 1
        self._held = Held(batch, self.position(), RandomState.capture(), self.generator_states())

    def give_back(self, batches: Sequence[Any], held: Held | None) -> None:
        """The batches taken last (:data:`END` too) come once more, in their order; the first is held if it was."""
        self.batch -= sum(batch is not END for batch in batches)
        self._ahead.extend(reversed(batches[1:] if held is not None else batches))
        self._held = held if held is not None else self._held

    def _take_held(self, held: Held) -> Any:
        self._held = None
        self.put_random_states_of(held)
        self.batch += 1
        return held.batch

    def put_random_states_of(self, held: Held) -> None:
        """Random states as they are right after a held batch was fetched."""
        held.random.restore()
        self.set_generators(held.generators)

    def let_go(self) -> None:
        """Hold no batch any more: it will be fetched anew, with the random states of then."""
        if self._held is not None:
            self.restore(self._held.position)

    def at_end(self) -> bool:
        """Whether the epoch is over; looks one batch ahead only where the loader's length says that it is."""
        if self.batch != self._batches_of_this_size():
            return False
        if not self._ahead:
            self._ahead.append(self._fetch())
        return self._ahead[-1] is END

    def drop_iterator(self) -> None:
        """Let go of the loader's iterator and its workers."""
        self._iterator = None
        self.batching.let_go()

    def rewind_epoch(self) -> None:
        """Before the first batch of an epoch."""
        self.batch = 0
        self._iterator = None
        self._held = None
        self._ahead.clear()
        self._sizes.clear()
        self._counted = None

    def position(self) -> DataPosition:
        """Where we are, to come back to."""
        if self._held is not None:
            return self._held.position
        return DataPosition(
            self.batch,
            self._epoch_random,
            self._epoch_generators,
            self.generator_states(),
            self._epoch_states,
            self._states(),
            self._points(),
        )

    def restore(self, position: DataPosition) -> None:
        """Come back: fresh workers, the epoch's own shuffling, the batches already seen taken and dropped."""
        self.rewind_epoch()
        _drop_persistent_workers(self._loader)
        self.batching.let_go()
        if position.batch and position.epoch_random is not None:
            with preserved():
                position.epoch_random.restore()
                self.set_generators(position.epoch_generators)
                self._set_states(position.epoch_states)
                self._pass_over(position)
        else:
            self._set_states(position.states)
        self.set_generators(position.generators)

    def reshuffle(self, seed: int) -> None:
        """Draw what is left of the epoch, and all after it, from other random numbers; torch's are seeded already."""
        for index, source in enumerate(self._sources):
            _seed(source, seed + index + 1)
        self.restore(
            replace(self.position(), epoch_random=RandomState.capture(), epoch_generators=self.generator_states())
        )

    def _pass_over(self, position: DataPosition) -> None:
        """Take the batches before this place, each of the size that it had, and drop them."""
        present = self.batching.size
        try:
            for batch in range(position.batch):
                self.batching.ask(size_at(batch, position.sizes))
                self.take()
        finally:
            self.batching.ask(present)

    # -- batch sizes --------------------------------------------------------------------------------------------

    @property
    def batches(self) -> int | None:
        """Batches of this epoch, as far as is known. Any thread."""
        return self.batching.batches(self.batch, self._points())

    def _batches_of_this_size(self) -> int | None:
        """The same, counted anew only when the size is another: it is asked for after each step."""
        size = self.batching.size
        if self._counted is None or self._counted[0] != size:
            self._counted = (size, self.batches)
        return self._counted[1]

    def batches_left(self, epochs: int) -> int | None:
        """Batches until so many epochs are over, the present one included."""
        present, later = self.batches, self.batching.batches(0, ())
        return None if present is None or later is None else present - self.batch + (epochs - 1) * later

    def _fetch(self) -> Any:
        size = self._fetched_size = self.batching.size
        if size is not None:
            while self._sizes and self._sizes[-1][0] >= self.batch:
                self._sizes.pop()
            if not self._sizes or self._sizes[-1][1] != size:
                self._sizes.append((self.batch, size))
                self._counted = None
        return next(self._running(), END)

    def _points(self) -> tuple[tuple[int, int], ...]:
        return tuple(point for point in tuple(self._sizes) if point[0] < self.batch)

    @property
    def _is_outdated(self) -> bool:
        """Whether what was fetched ahead has a size that is in force no longer."""
        if self._held is None and not self._ahead:
            return False
        acts = self.batching.at_once or self.batch == 0
        return acts and self.batching.size != self._fetched_size

    def _heed_size(self) -> None:
        """Let go of what was fetched ahead where it has to be fetched anew."""
        if self._is_outdated:
            self.restore(self.position())

    # -- random states ------------------------------------------------------------------------------------------

    def _running(self) -> Iterator[Any]:
        """The iterator of the present epoch; a new one notes how the random states were before it drew."""
        if self._iterator is None:
            self._epoch_random = RandomState.capture()
            self._epoch_generators = self.generator_states()
            self._epoch_states = self._states()
            self._iterator = self.batching.epoch()
        return self._iterator

    def _states(self) -> tuple[Any, ...]:
        return tuple(copy.deepcopy(part.state_dict()) for part in self._stateful)

    def _set_states(self, states: tuple[Any, ...]) -> None:
        for part, state in zip(self._stateful, states, strict=False):
            part.load_state_dict(copy.deepcopy(state))

    def generator_states(self) -> tuple[Any, ...]:
        """The states of the generators that loaders and modules hold."""
        return tuple(generator_state(source) for source in self._sources)

    def set_generators(self, states: tuple[Any, ...]) -> None:
        """Put them back."""
        for source, state in zip(self._sources, states, strict=True):
            set_generator(source, state)


def generators_in(holder: Any, depth: int = 6) -> Iterator[Any]:
    """Generators (torch's, numpy's, Python's) that a loader holds, or its samplers, datasets, transforms, as deep."""
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    if isinstance(holder, kinds):
        yield holder
    elif isinstance(holder, (list, tuple)) and len(holder) <= MAX_PARTS:
        for part in holder:
            yield from generators_in(part, depth - 1)
    elif depth and not isinstance(holder, (torch.Tensor, np.ndarray, type)):
        for value in list(getattr(holder, "__dict__", {}).values()):
            yield from generators_in(value, depth - 1)


def generator_state(source: Any) -> Any:
    """The state of a generator of any kind."""
    if isinstance(source, np.random.Generator):
        return copy.deepcopy(source.bit_generator.state)
    return source.getstate() if isinstance(source, random.Random) else source.get_state()


def set_generator(source: Any, state: Any) -> None:
    """Set a generator back to such a state."""
    if isinstance(source, np.random.Generator):
        source.bit_generator.state = state
    elif isinstance(source, random.Random):
        source.setstate(state)
    else:
        source.set_state(state)


def _seed(source: Any, seed: int) -> None:
    if isinstance(source, torch.Generator):
        source.manual_seed(seed)
    elif isinstance(source, np.random.Generator):
        source.bit_generator.state = type(source.bit_generator)(seed).state
    else:
        source.seed(seed)


def _stateful_parts(loader: Any) -> list[Any]:
    """What of a loader keeps its place by itself: has a ``state_dict`` that can be loaded again.

    A ``DataLoader`` itself does not count: one with a state of its own makes its workers when asked for it.
    """
    own = [] if isinstance(loader, DataLoader) else [loader]
    parts = [*own, *(getattr(loader, name, None) for name in ("dataset", "sampler", "batch_sampler"))]
    return [part for part in parts if _keeps_its_place(part)]


def _keeps_its_place(part: Any) -> bool:
    return not isinstance(part, nn.Module) and all(
        callable(getattr(part, name, None)) for name in ("state_dict", "load_state_dict")
    )


def doubt_about(loader: Any) -> str:
    """Why a place in this loader can perhaps not be come back to, in a few words; empty if it can."""
    if getattr(loader, "persistent_workers", False):
        return "persistent workers keep random states that can't be set back"
    if _stateful_parts(loader) or isinstance(loader, (list, tuple)):
        return ""
    if not isinstance(loader, DataLoader):
        sized = hasattr(loader, "__getitem__") and hasattr(loader, "__len__")
        return "" if sized else "an iterable without state_dict can't say where it is"
    if isinstance(loader.dataset, IterableDataset):
        return "an iterable dataset without state_dict can't say where it is"
    return ""


def checksum(batch: Any) -> int:
    """A number by which a batch is known again, above 0: from the shapes and some elements of its first tensors."""
    crc = 1
    for tensor in _tensors(batch, 4):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:128].cpu().contiguous()
        crc = zlib.crc32(repr((tuple(tensor.shape), sample.tolist())).encode(), crc)
    return crc or 1


def _tensors(value: Any, most: int) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [] if value.layout is not torch.strided else [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part, most)][:most]


def _drop_persistent_workers(loader: Any) -> None:
    """Persistent workers carry random states that can't be set back; without an iterator, new ones are started."""
    if getattr(loader, "persistent_workers", False):
        loader._iterator = None
