"""A second look at the batch that was just trained on, between steps: what its loss is under other circumstances.

Only the model and the loss function are called, never the user's step, which may count or log. Training thread.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from nbdebug.records.looks import UNKNOWN, Looked, Question
from nbdebug.training import batches
from nbdebug.training.aside import copied
from nbdebug.training.modules import named_modules, named_parameters
from nbdebug.training.padded import emptied, exchanged
from nbdebug.training.session import Session
from nbdebug.training.snapshots import has_lazy_parts
from nbdebug.training.untouched import Refused, refuse_if_short_of_memory, untouched

DEALS = 12
FEWEST_SAMPLES = 4
SEED = 20_24
MOST_TENSORS, MOST_ELEMENTS = 8, 4_096


def look(session: Session, questions: Collection[Question]) -> Looked:
    """What was asked, on the batch at hand; all that training depends on is as before, bit for bit.

    Raises:
        Refused: that is not possible here, and why; nothing was changed.
    """
    batch, step = session.loop.batch, session.loop.step
    mark = fingerprint(batch) if Question.BATCH in questions else 0
    asked = set(questions) - {Question.BATCH}
    if not asked:
        return Looked(step, batches.samples(batch, None), batch=mark)
    model = _model(session)
    loss_fn = session.trainer.loss
    if not callable(loss_fn):
        raise Refused("the step makes its loss itself: there is no loss function to call")
    try:
        inputs, target = batches.split(batch)
    except Exception as error:
        raise Refused("the batch is not a pair of input and target") from error
    session.stepper.ledger.settle()
    parts = session.trainer.loss_parts
    roots = [model, loss_fn, session.trainer.loss_fn, *([vars(parts)] if parts is not None else [])]
    with session.turns, _generators_kept(session), untouched(roots), _alone():
        found = _Look(model, loss_fn, copied(inputs), copied(target), step).take(asked)
    return replace(found, batch=mark)


def fingerprint(batch: Any) -> int:
    """A number, above 0, by which a batch is known again: from shapes and some thousand elements of its tensors."""
    crc = 1
    for tensor in _tensors(batch)[:MOST_TENSORS]:
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // MOST_ELEMENTS)].double().cpu().contiguous()
        crc = zlib.crc32(some.numpy().tobytes(), zlib.crc32(repr(tuple(tensor.shape)).encode(), crc))
    return crc or 1


def _model(session: Session) -> nn.Module:
    model = session.model
    if not isinstance(model, nn.Module):
        raise Refused("several networks are trained, and what goes into which is not known")
    if has_lazy_parts(model):
        raise Refused("some layers have no shape yet")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise Refused("other processes train the same model")
    refuse_if_short_of_memory(named_parameters(model).values())
    return model


@contextmanager
def _generators_kept(session: Session) -> Iterator[None]:
    """Those of loaders and samplers, should the model or the loss draw from one."""
    states = session.loop.cursor.generator_states()
    try:
        yield
    finally:
        session.loop.cursor.set_generators(states)


@contextmanager
def _alone() -> Iterator[None]:
    """Without gradients, compiled code, or what autocast remembers of weights: that would outlive the look."""
    remembers = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.set_autocast_cache_enabled(remembers)


class _Look:
    """One batch, its loss and outputs in several ways. What is called may do what it likes: all is put back later."""

    def __init__(self, model: nn.Module, loss_fn: Any, inputs: Any, target: Any, step: int) -> None:
        self._model, self._loss_fn, self._inputs, self._target, self._step = model, loss_fn, inputs, target, step
        self._samples = batches.samples((inputs, target), target)
        self._flags = {module: module.training for module in named_modules(model).values()}
        self._order = torch.randperm(self._samples, generator=torch.Generator().manual_seed(SEED))

    def take(self, questions: Collection[Question]) -> Looked:
        """The answers; training mode comes last, since it may move what evaluation goes by."""
        found: dict[str, Any] = {}
        if {Question.MODES, Question.INPUTS, Question.OUTPUTS} & set(questions):
            output = self._output(self._inputs, training=False)
            found["evaluating"] = self._loss(output, self._target)
            if Question.OUTPUTS in questions:
                found["spread"] = _spread(output, self._samples)
            if Question.INPUTS in questions:
                found |= self._with_other_inputs(output)
        trained = self._output(self._inputs, training=True)
        found["training"] = self._loss(trained, self._target)
        if Question.TARGETS in questions:
            found["dealt"] = self._dealt(trained)
        return Looked(self._step, self._samples, **found)

    def _output(self, inputs: Any, *, training: bool) -> Any:
        for module, flag in self._flags.items():
            module.training = flag and training
        return self._model(copied(inputs))

    def _loss(self, output: Any, target: Any) -> float:
        loss = self._loss_fn(copied(output), copied(target))
        return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)

    def _dealt(self, output: Any) -> Any:
        """Losses with each target at another sample, outputs as they are."""
        if not _goes_by_samples(self._target, self._samples):
            return np.zeros(0)
        generator = torch.Generator().manual_seed(SEED)
        orders = [torch.randperm(self._samples, generator=generator) for _ in range(DEALS)]
        return np.array([self._loss(output, _taken(self._target, order, self._samples)) for order in orders])

    def _with_other_inputs(self, output: Any) -> dict[str, float]:
        tensors, samples = _tensors(self._inputs), self._samples
        zeros = _filled(self._inputs, emptied(tensors, samples))
        found = {"zeroed": self._loss(self._output(zeros, training=False), self._target)}
        if _goes_by_samples(self._inputs, self._samples):
            other = _filled(self._inputs, exchanged(tensors, samples, self._order))
            changed = self._output(other, training=False)
            found["exchanged"] = self._loss(changed, self._target)
            found["output_change"] = _change(output, changed)
        return found


def _goes_by_samples(value: Any, samples: int) -> bool:
    """Whether it holds a row for each of enough samples."""
    rows = [len(tensor) == samples for tensor in _tensors(value) if tensor.dim()]
    return samples >= FEWEST_SAMPLES and bool(rows) and all(rows)


def _taken(value: Any, order: torch.Tensor, samples: int) -> Any:
    return _mapped(value, lambda tensor: tensor[order.to(tensor.device)] if tensor.dim() else tensor)


def _filled(value: Any, tensors: list[torch.Tensor]) -> Any:
    """The same, with other tensors in the order of :func:`_tensors`."""
    rest = iter(tensors)
    return _mapped(value, lambda _: next(rest))


def _mapped(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(part, function) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(part, function) for part in value)
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    return value


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _change(one: Any, other: Any) -> float:
    """The largest change of an element, of the largest element; infinite where shapes differ."""
    changes = []
    for a, b in zip(_tensors(one), _tensors(other), strict=True):
        if a.shape != b.shape:
            return math.inf
        if a.numel():
            size = max(float(a.abs().max()), float(b.abs().max()), torch.finfo(torch.float32).tiny)
            changes.append(float((a.double() - b.double()).abs().max()) / size)
    return max(changes, default=UNKNOWN)


def _spread(output: Any, samples: int) -> float:
    """The largest deviation over samples of an output, of the outputs' size."""
    found = []
    for tensor in _tensors(output):
        if tensor.dim() and len(tensor) == samples > 1:
            values = tensor.detach().double().reshape(samples, -1)
            size = max(float(values.abs().mean()), torch.finfo(torch.float32).tiny)
            found.append(float(values.std(0, correction=0).max()) / size)
    return max(found, default=UNKNOWN)
