"""Sees every operation of one step, and notes where what is not finite came from. Training thread only.

A dispatch mode, so forward, backward and update are all seen, as is what runs under ``no_grad``. Nothing that goes
wrong here reaches the step: an operation that can't be read is passed over, and ``error`` keeps the first reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nbdebug.records.stops import Phase, Range
from nbdebug.tools.origin_causes import Event, cause_of_event, source_cause
from nbdebug.tools.origin_frames import Site, Spot, callers, look_around
from nbdebug.tools.origin_marks import Cause, Maker, Marks, bad_part, earliest
from nbdebug.tools.origin_nodes import Nodes
from nbdebug.tools.origin_ops import MOVERS, PASSING, Call, Named, Operation, calls_of, operation_of, returned
from nbdebug.tools.origin_sources import Sources
from nbdebug.tools.origin_values import newly_bad, readable, value_range
from nbdebug.training.update import out_of_modes

NO_SITE = Site()


class Watch(TorchDispatchMode):
    """One watched step. ``marks`` say what came from where, ``last`` is the last cause met, ``last_forward`` in the
    forward, and ``read_out`` that of the last number taken out of a tensor.
    """

    supports_higher_order_operators = True

    def __init__(self, sources: Sources, batch_size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.marks = Marks()
        self.last: Cause | None = None
        self.last_forward: Cause | None = None
        self.read_out: Cause | None = None
        self.steppers: set[CodeType] = set()
        self.error: Exception | None = None
        self._sources = sources
        self._batch_size = batch_size
        self._nodes = Nodes()
        self._order = 0
        self._updating = 0
        self._tasks: set[int] = set()
        self._repeats: Counter[tuple[Spot | None, str]] = Counter()

    @contextmanager
    def updating(self, *, on: bool = True) -> Iterator[None]:
        """Within this an optimizer is at work, or (``on=False``) the closure that it called."""
        before, self._updating = self._updating, int(on)
        try:
            yield
        finally:
            self._updating = before

    def began_updating(self) -> None:
        """An optimizer's step begins."""
        self._updating += 1
        self.steppers.update(callers())

    def ended_updating(self) -> None:
        """It is over."""
        self._updating = max(0, self._updating - 1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = operation_of(func)
        ahead = self._guarded(lambda: self._before(operation, args, kwargs))
        result = func(*args, **kwargs)
        if ahead is not None:
            self._guarded(lambda: self._after(operation, ahead, result))
        return result

    def _guarded(self, look: Callable[[], Any]) -> Any:
        try:
            with out_of_modes():
                return look()
        except Exception as error:  # the tensors may be of any kind; the step goes on unwatched for one operation
            self.error = self.error or error
            return None

    def _before(self, operation: Operation, args: Any, kwargs: Any) -> _Ahead:
        self._order += 1
        phase = self._phase()
        site = None
        if self._nodes.is_new() or operation.leaves_garbage:
            site = self._site(phase)
            self._repeats[site.spot, operation.name] += 1
            self._nodes.note(operation.name, site)
        calls = calls_of(operation, args, kwargs)
        if operation.name == "_local_scalar_dense":
            self._read(calls[0])
        overwritten = [{name: value_range(name, tensor) for name, tensor in _in_place(call)} for call in calls]
        return _Ahead(phase, site, calls, overwritten)

    def _site(self, phase: Phase) -> Site:
        """Here; a forward that runs again for checkpointing is still within the modules that it first ran in."""
        site = look_around(inside_autograd=phase is Phase.BACKWARD)
        node = self._nodes.look() if site.recomputes else None
        return site if node is None else replace(site, modules=site.modules + node.site.modules)

    def _phase(self) -> Phase:
        task = torch._C._current_graph_task_id()
        if task == -1:
            return Phase.OPTIMIZER if self._updating else Phase.FORWARD
        if task not in self._tasks:
            self._tasks.add(task)
            self.steppers.update(callers())
        return Phase.BACKWARD

    def _read(self, call: Call) -> None:
        """A number is taken out of a tensor, as by ``loss.item()``."""
        for _, tensor in call.read:
            if bad_part(tensor):
                self.read_out = self.marks.cause_of(tensor) or self.read_out

    def _after(self, operation: Operation, ahead: _Ahead, result: Any) -> None:
        items = len(ahead.calls)
        for place, call in enumerate(ahead.calls):
            outputs = [tensor for _, tensor in call.written] + returned(operation, result, place, items)
            if outputs:
                self._judge(operation, ahead, place, outputs)

    def _judge(self, operation: Operation, ahead: _Ahead, place: int, outputs: list[torch.Tensor]) -> None:
        kinds = [] if operation.leaves_garbage else [bad_part(tensor) for tensor in outputs]
        maker = self._maker(operation, ahead, ahead.calls[place])
        if not any(kinds):
            for tensor in outputs:
                self.marks.written(tensor, None, maker)
            return
        event = self._event(operation, ahead, place, outputs)
        cause = self._explain(event)
        for tensor, kind in zip(outputs, kinds, strict=True):
            self.marks.written(tensor, cause if kind else None, maker)
        if not cause.wanted:
            self.last = cause
            self.last_forward = cause if event.phase is Phase.FORWARD else self.last_forward

    def _maker(self, operation: Operation, ahead: _Ahead, call: Call) -> Maker:
        """What the outputs came out of; what only brings values to another place is passed over."""
        if operation.name in PASSING and call.read:
            before = self.marks.maker_of(call.read[0][1])
            if before is not None:
                return before
        return Maker(operation.name, ahead.phase, ahead.site or NO_SITE)

    def _event(self, operation: Operation, ahead: _Ahead, place: int, outputs: list[torch.Tensor]) -> Event:
        site = ahead.site or self._site(ahead.phase)
        phase = Phase.FORWARD if site.recomputes and ahead.phase is Phase.BACKWARD else ahead.phase
        event = Event(
            order=self._order,
            operation=operation,
            call=ahead.calls[place],
            overwritten=ahead.overwritten[place],
            outputs=outputs,
            phase=phase,
            site=site,
            node=self._nodes.look() if phase is Phase.BACKWARD else None,
            batch_size=self._batch_size,
            repeats=self._repeats[site.spot, operation.name],
        )
        return replace(event, phase=self._clipping(event)) if phase in (Phase.FORWARD, Phase.OPTIMIZER) else event

    def _clipping(self, event: Event) -> Phase:
        """Whether it works on gradients after the backward, outside of optimizers, or in a function that clips."""
        if event.site.clips:
            return Phase.CLIPPING
        if event.phase is Phase.FORWARD and not any(tensor.requires_grad for _, tensor in event.call.read):
            makers = [self.marks.maker_of(tensor) for _, tensor in event.call.read]
            if any(maker is not None and maker.phase in (Phase.BACKWARD, Phase.CLIPPING) for maker in makers):
                return Phase.CLIPPING
        return event.phase

    def _explain(self, event: Event) -> Cause:
        made_here = event.operation.name == "lift_fresh"  # of numbers, or of an array of NumPy's
        read = [] if made_here else event.call.read
        bad = [(name, tensor) for name, tensor in read if event.is_bad(name, tensor)]
        known = [cause for name, tensor in bad if (cause := self._known(event, name, tensor)) is not None]
        guilty = earliest([cause for cause in known if not cause.wanted])
        if guilty is not None:
            return guilty
        carried = earliest(known)
        if event.kind == "inf" and self._is_wanted(event, bad):
            if carried is not None and (carried.reduced or not event.reduces):
                return carried
            return cause_of_event(event, self._sources, self.marks, wanted=True)
        return cause_of_event(event, self._sources, self.marks)

    def _is_wanted(self, event: Event, bad: list[Named]) -> bool:
        """Whether its infinities are constants of the user's, or those of its inputs, which are all on purpose."""
        if event.phase is not Phase.FORWARD:
            return False
        if event.has_infinite_constant or event.operation.name == "lift_fresh":
            return True
        if not bad or event.operation.name in MOVERS:
            return bool(bad)
        values = [readable(tensor) for name, tensor in bad if name not in event.overwritten]
        if any(name in event.overwritten for name, _ in bad):
            return True
        outputs = [readable(tensor) for tensor in event.outputs]
        inputs = [value for value in values if value is not None]
        new = [newly_bad(output, inputs) for output in outputs if output is not None]
        return not any(mask is not None and bool(mask.any()) for mask in new)

    def _known(self, event: Event, name: str, tensor: torch.Tensor) -> Cause | None:
        """Why an input is not finite: noted before, there before the step, or memory that nobody ever wrote."""
        cause = self.marks.cause_of(tensor)
        if cause is not None:
            return cause
        maker = self.marks.maker_of(tensor)
        if maker is None:
            cause = source_cause(event, tensor, self._sources, self.marks)
        elif maker.site is not NO_SITE and not maker.operation.startswith("_") and "empty" in maker.operation:
            cause = cause_of_event(event.at(maker), self._sources, self.marks)
        else:
            return None
        self.marks.known(tensor, cause)
        return cause


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What was noted of an operation before it ran; ``overwritten`` are its inputs in place, by name, for each call."""

    phase: Phase
    site: Site | None
    calls: list[Call]
    overwritten: list[dict[str, Range]]


def _in_place(call: Call) -> list[Named]:
    """What it both reads and writes."""
    written = {name for name, _ in call.written}
    return [(name, tensor) for name, tensor in call.read if name in written]
