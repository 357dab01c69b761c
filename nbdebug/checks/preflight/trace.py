"""What one training step did, as seen from outside: calls and what they worked on, losses, backward passes, updates.

Tensors are known by numbers; what is kept of their values are copies without a graph. Pure; training thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from nbdebug.records.stops import CodeLine

# What hands on the same numbers, in other places or fewer of them.
MOVES = frozenset(
    {
        *("view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "permute", "transpose", "t", "swapaxes"),
        *("contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type", "expand", "view_as"),
        *("reshape_as", "movedim", "moveaxis", "__getitem__", "select", "narrow", "chunk", "split", "unbind"),
        *("index_select", "masked_select", "gather", "cpu", "cuda", "expand_as", "squeeze_", "unsqueeze_", "identity"),
        *("T.__get__", "mT.__get__", "rearrange", "data.__get__", "requires_grad_", "type_as"),
        *("transpose_", "swapdims", "ravel"),
    }
)  # fmt: skip


@dataclass(slots=True)
class Call:
    """A call of a torch function or method by the user's code or torch's modules, in order of ``index``.

    ``inputs`` and ``outputs`` are numbers of tensors, ``rest`` the positional arguments that are none, ``layer`` the
    innermost module at work (``None``: outside of all), ``modules`` its types' path outwards.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    rest: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    layer: str | None = None
    line: CodeLine | None = None

    def option(self, name: str, place: int, default: Any = None) -> Any:
        """An argument by its name, or by its place among those that are no tensors."""
        if name in self.options:
            return self.options[name]
        return self.rest[place] if place < len(self.rest) else default


@dataclass(slots=True)
class Value:
    """A tensor that was met. ``source`` names it where it was there before: ``batch[0]``, ``weight fc.bias``.

    ``hidden list[0].weight`` is what learns and that the model does not know of, ``held optimizer`` what an optimizer
    holds that is no parameter of the model. ``leaf`` is what autograd calls one.
    """

    number: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    learns: bool
    source: str = ""
    calls: list[int] = field(default_factory=list)
    leaf: bool = False


@dataclass(slots=True)
class LossCall:
    """A call of one of torch's losses, with copies of what it compared; ``value`` is what it gave, if one number."""

    name: str
    input: torch.Tensor
    target: torch.Tensor | None
    call: Call
    weight: torch.Tensor | None = None
    value: float | None = None
    input_number: int = 0
    target_number: int | None = None

    @property
    def reduction(self) -> str:
        """How it was reduced: ``mean``, ``sum`` or ``none``."""
        return str(self.call.options.get("reduction", "mean"))


@dataclass(slots=True)
class ModelCall:
    """A call of a whole network: what it was given, with tensors copied, and what it put out."""

    root: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    training: bool
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


@dataclass(slots=True)
class LayerCall:
    """One call of a module without children: numbers of its first output tensor over all its elements.

    ``spread`` is the mean over elements of a sample of the deviation over samples (0: the same for all samples);
    ``zeros`` is the share of exact zeros; ``scale_in`` is the root mean square of its first input.
    """

    layer: str
    kind: str
    training: bool
    shape: tuple[int, ...]
    mean: float
    deviation: float
    largest: float
    zeros: float
    spread: float
    finite: bool
    scale_in: float
    shape_in: tuple[int, ...] = ()
    spread_in: float = math.nan


@dataclass(slots=True)
class Arrival:
    """Where what has not learnt yet, and was made of the batch, meets weights: a copy of it.

    ``number`` is the tensor's; only those that no weight was used on are the data themselves, by
    :meth:`StepTrace.sources`. ``index`` is the place among the calls, ``axes`` are those along which its features lie,
    ``outputs`` the numbers of what came of it, and ``answer`` that one's root mean square (``None`` where its form
    bounds it). At a layer ``kind`` is the layer's; in a call it is the function's name, and ``weight`` names what it
    met.
    """

    layer: str
    kind: str
    values: torch.Tensor
    number: int
    index: int
    axes: tuple[int, ...] = (-1,)
    outputs: tuple[int, ...] = ()
    answer: float | None = None
    weight: str = ""


@dataclass(slots=True)
class Backward:
    """A backward pass: from which tensor, the loss's value, the parameters that its graph reaches.

    ``stale`` are the norms of gradients that were there already; ``index`` is the place among the calls.
    ``functions`` are the custom autograd functions in its graph, ``strangers`` the numbers of learning tensors that it
    ends in and that are no parameters of the model. ``order`` counts backward passes and updates together,
    and ``line`` is where it was called.
    """

    number: int
    value: float
    reached: frozenset[str]
    stale: dict[str, float]
    index: int
    functions: tuple[type, ...] = ()
    strangers: tuple[int, ...] = ()
    order: int = 0
    line: CodeLine | None = None


@dataclass(slots=True)
class Update:
    """An optimizer's step: the gradients that it found, as copies, and by how much each parameter then moved (norm)."""

    optimizer: str
    index: int
    gradients: dict[str, torch.Tensor]
    norms: dict[str, float]
    moved: dict[str, float] = field(default_factory=dict)
    order: int = 0


@dataclass(slots=True)
class StepTrace:
    """All that one step did. ``truncated`` says that there were more calls than are kept.

    ``meetings`` are calls outside of layers in which what learns met what comes from the batch alone, as in losses
    written by hand; ``failed_loss`` is a loss that raised.
    ``exits`` are calls that take numbers out of torch, such as ``item`` and ``numpy``; their ``index`` is that of the
    next call. ``strangers`` are the numbers of learning tensors that a loss reaches and that neither the model nor an
    optimizer knows, and what their weights look like (a freshness ``State``). ``norms`` are parameters' norms at the
    beginning, and ``moved`` how far they went. ``error`` is what broke it off. ``stale`` are norms of gradients that
    were there when the step began.
    """

    batch: Any
    calls: list[Call] = field(default_factory=list)
    exits: list[Call] = field(default_factory=list)
    values: dict[int, Value] = field(default_factory=dict)
    strangers: dict[int, str] = field(default_factory=dict)
    losses: list[LossCall] = field(default_factory=list)
    meetings: list[LossCall] = field(default_factory=list)
    failed_loss: LossCall | None = None
    models: list[ModelCall] = field(default_factory=list)
    layers: list[LayerCall] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    backwards: list[Backward] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    stale: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    output: Any = None
    target: Any = None
    error: BaseException | None = None
    truncated: bool = False
    has_calls: bool = True

    def producer(self, number: int, before: int | None = None) -> Call | None:
        """The call that made a tensor, or last wrote into it before a place among the calls."""
        value = self.values.get(number)
        made = [index for index in value.calls if before is None or index < before] if value is not None else []
        return self.calls[made[-1]] if made else None

    def origin(self, number: int, before: int | None = None) -> tuple[int, Call | None]:
        """Where a tensor's numbers come from, through calls that only hand them on: that tensor, and its producer."""
        call = self.producer(number, before)
        while call is not None and call.name in MOVES and call.inputs and call.inputs[0] != number:
            number, before = call.inputs[0], call.index
            call = self.producer(number, before)
        return number, call

    def ancestors(self, number: int, before: int | None = None) -> Iterator[Call]:
        """Every call that a tensor was made by, nearest first, each once."""
        queue, seen = [(number, before)], set[int]()
        while queue:
            number, before = queue.pop(0)
            call = self.producer(number, before)
            if call is not None and call.index not in seen:
                seen.add(call.index)
                yield call
                queue += [(each, call.index) for each in call.inputs]

    def sources(self, number: int, before: int | None = None) -> set[str]:
        """The names of what was there before the step that a tensor depends on, such as ``batch[1]``."""
        found = {self.values[number].source} if number in self.values else set()
        for call in self.ancestors(number, before):
            found |= {self.values[each].source for each in call.inputs if each in self.values}
        return found - {""}

    def named(self, *names: str) -> list[Call]:
        """The calls of these functions; a trailing underscore is not looked at."""
        return [call for call in self.calls if call.name.rstrip("_") in names]

    def where(self, condition: Callable[[Call], bool]) -> list[Call]:
        """The calls that satisfy a condition."""
        return [call for call in self.calls if condition(call)]

    @property
    def waits_for_update(self) -> bool:
        """Whether gradients were made and no optimizer used them, as where they are added up over several steps."""
        return bool(self.backwards) and not self.updates and self.error is None

    @property
    def last_backward(self) -> Backward | None:
        """The last backward pass."""
        return self.backwards[-1] if self.backwards else None

    @property
    def main_loss(self) -> LossCall | None:
        """The loss that training goes by: the one nearest to what ``backward`` was called on; else the last."""
        if not self.losses:
            return None
        by_index = {loss.call.index: loss for loss in self.losses}
        for backward in self.backwards[:1]:
            for call in self.ancestors(backward.number, backward.index):
                if call.index in by_index:
                    return by_index[call.index]
        return self.losses[-1]
