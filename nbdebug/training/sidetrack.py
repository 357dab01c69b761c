"""Training on the side: batches and steps of the user's own, after which everything is as it was. Training thread.

What the steps do outside of torch, such as printing, is done.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from nbdebug.records.errors import CommandError
from nbdebug.records.status import State
from nbdebug.training import snapshots
from nbdebug.training.borrowed import Take, borrowed
from nbdebug.training.modules import Model, modes, named_modules, roots
from nbdebug.training.rng import RandomState
from nbdebug.training.session import Session
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.thread_context import ThreadContext
from nbdebug.training.turn import PROCESS_TURN


class _Structure:
    """Which modules, parameters and buffers a model has: a step may add some."""

    def __init__(self, model: Model) -> None:
        parts = [each for each in named_modules(model).values() if not isinstance(each, torch.jit.ScriptModule)]
        holders: list[dict[str, Any]] = [
            holder for part in parts for holder in (part._modules, part._parameters, part._buffers)
        ]
        self._held = [(holder, dict(holder)) for holder in holders]

    def put_back(self) -> None:
        """The same objects in the same places; what was put in their way is let go."""
        for now, before in self._held:
            if now.keys() != before.keys() or any(now[name] is not each for name, each in before.items()):
                now.clear()
                now.update(before)


class Sidetrack:
    """Where steps can be taken without leaving a trace: ``take()`` gives the next batch, epoch after epoch."""

    def __init__(self, take: Take, restore: Callable[[], None], kept: Snapshot) -> None:
        self.take = take
        self._restore = restore
        self._kept = kept

    def restart(self) -> None:
        """The model, optimizers and random states as they were at the beginning; batches go on."""
        self._restore()
        self._kept.random.restore()


@contextmanager
def sidetrack(session: Session, context: ThreadContext) -> Iterator[Sidetrack]:
    """Within, training on the side; ``context`` is torch's of the thread that asked for it.

    Raises:
        CommandError: the model has lazy layers without a shape, so that it could not be put back.
    """
    if snapshots.has_lazy_parts(session.model):
        raise CommandError(
            "the model's lazy layers have no shape yet, so it could not be put back: run it once on a batch before"
        )
    session.knobs.refresh()
    if session.trainer.device is not None:
        for root in roots(session.model).values():
            root.to(session.trainer.device)
    with ExitStack() as stack:
        stack.enter_context(_unnoticed(session))
        stack.enter_context(_in_context(session, context))
        yield stack.enter_context(_put_back(session))


def _restore(session: Session, kept: Snapshot, scales: list[Any], structure: _Structure) -> None:
    """Put back all but the place in the data."""
    scalers = session.stepper.scalers
    structure.put_back()
    scalers.forget_the_step()
    for scaler, scale in zip(scalers.all, scales, strict=True):
        scaler.load_state_dict(copy.deepcopy(scale))
    session.refitter.put_back(kept.equipment)
    snapshots.restore(kept, session.model, session.trainer, session.knobs, None)


@contextmanager
def _put_back(session: Session) -> Iterator[Sidetrack]:
    """All that training depends on is as before afterwards."""
    loop, guard, scalers = session.loop, session.stepper.guard, session.stepper.scalers
    cursor, modules = loop.cursor, named_modules(session.model)
    session.turns.hold()
    try:
        kept = snapshots.capture(
            session.model,
            session.trainer,
            session.knobs,
            cursor,
            run=session.timeline.current,
            step=loop.step,
            epoch=loop.epoch,
            equipment=session.refitter.equipment(),
        )
        scales = [copy.deepcopy(scaler.state_dict()) for scaler in scalers.all]
        restore = partial(_restore, session, kept, scales, _Structure(session.model))
        armed, guard.armed = guard.armed, False
        doubtful = bool(loop.doubt) and loop.step > 0
        try:
            if not any(modes(session.model).values()):  # as training does, when it sets out
                for root in roots(session.model).values():
                    root.train()
            others = [*modules.values(), session.trainer.val_loader]
            with borrowed(session.trainer, cursor, others, doubtful=doubtful) as take:
                try:
                    yield Sidetrack(take, restore, kept)
                finally:
                    session.turns.hold()
                    kept.random.restore()  # a batch at hand is fetched again as it was
        finally:
            guard.armed = armed
            restore()
    finally:
        session.turns.let_go()


@contextmanager
def _in_context(session: Session, context: ThreadContext) -> Iterator[None]:
    """At rest, under the torch context of whoever asked, as a start would be; while training runs, under its own."""
    if session.state is State.RUNNING:
        yield
        return
    before = ThreadContext.capture()
    context.apply()
    try:
        yield
    finally:
        before.apply()


@contextmanager
def _unnoticed(session: Session) -> Iterator[None]:
    """A model at rest counts as untouched afterwards, and a seed that was just set as fresh.

    What somebody edited before is noticed first. After a step that broke off, all of that is still to come.
    """
    if not session.at_rest:
        yield
        return
    looks, outside = session.state is not State.FAILED, _global_state()
    if looks:
        session.course.notice_edits()
    try:
        yield
    finally:
        PROCESS_TURN.take()
        try:
            outside.restore()
        finally:
            PROCESS_TURN.give()
        if looks:
            session.course.rest()


def _global_state() -> RandomState:
    PROCESS_TURN.take()
    try:
        return RandomState.capture()
    finally:
        PROCESS_TURN.give()
