"""The finite check: stands at the measure point and after each step. Training thread only.

Gradients are read before the update, where their norm is taken anyway and lies on the CPU: a step whose gradients are
not finite breaks off there, the weights still good. Weights, optimizer state and the buffers of norm layers are looked
at in turns, a part every few steps. What is noticed late, by a loss or a weight, is traced back by replay, in which
everything is looked at in every step (see :mod:`nbdebug.training.halts`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.training.modules import Model, named_modules, named_parameters
from nbdebug.training.trainer import Trainer

TURNS = 64  # so many steps until all small tensors were looked at once
PIECE = 1 << 15  # elements looked at at once, of a larger tensor
EVERY = 4  # steps: what the next step's loss and gradients don't show may wait as long
NORMED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_SKIPPED = 20  # updates in a row; a scale of 65,536 is below 1 after 17


class What(StrEnum):
    """What was found not to be finite, or that a breakpoint was hit."""

    LOSS = "the loss"
    GRADIENTS = "a gradient"
    WEIGHTS = "a weight"
    STATE = "the optimizer's state"
    BUFFERS = "a buffer"
    SKIPS = "half precision"
    BREAKPOINT = "a breakpoint"
    ERROR = "an error"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a step broke off, or training should stop after it; ``name`` is the tensor's, if one is meant.

    ``breakpoint`` is its number, ``text`` what it says.
    """

    what: What
    name: str = ""
    value: float = math.nan
    breakpoint: int = 0
    text: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong."""
        return self.what is not What.BREAKPOINT

    @property
    def words(self) -> str:
        """In a few words, such as ``the loss is NaN``."""
        if self.text:
            return self.text
        if self.what is What.SKIPS:
            return f"{MOST_SKIPPED} updates in a row were skipped for an overflow in half precision"
        kind = "NaN" if math.isnan(self.value) else "infinite"
        return f"{self.what} is {kind}" + (f" ({self.name})" if self.name else "")


class StepStopped(BaseException):
    """Ends the user's step at the measure point, before the update; no ``except Exception`` holds it up."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.words)
        self.reason = reason


Hit = Callable[[torch.Tensor | None], Reason | None]


class Guard:
    """Looks for what is not finite.

    ``armed`` says whether anything is read at all, ``thorough`` that everything is, in each step, as in a replay that
    searches for the first bad step. ``hit(norm)``, where set, is asked at the first update of a step whether a
    breakpoint stops it; ``capture(optimizer)`` is told of each update. While ``accepted``, the person has seen it and
    goes on: nothing is said until all is finite. ``begun`` counts settings out.
    """

    def __init__(self, model: Model, trainer: Trainer) -> None:
        self.armed = False
        self.thorough = False
        self.accepted = False
        self.hit: Hit | None = None
        self.capture: Callable[[Optimizer], None] | None = None
        self.broke_off: StepStopped | None = None
        self._model = model
        self._trainer = trainer
        self._excused: set[int] = set()
        self._watched: list[tuple[What, str, torch.Tensor]] = []
        self._turn = self._offset = self._glances = self._steps = 0
        self.begun = 0
        self._skipped = 0
        self._updates = 0

    @property
    def asks(self) -> bool:
        """Whether it wants to be told of every update."""
        return self.hit is not None or self.thorough or self.capture is not None

    @property
    def saw_no_update(self) -> bool:
        """Whether the present step has made no update so far, as under accumulation."""
        return self._updates == 0

    def begin(self) -> None:
        """Training sets out: what is not finite already is meant so, or will show."""
        self.begun += 1
        known = [tensor for _, _, tensor in self._everything()]
        norms = torch._foreach_norm([tensor.detach() for tensor in known]) if known else ()
        suspects = [tensor for tensor, norm in zip(known, norms, strict=True) if not math.isfinite(float(norm))]
        self._excused = {id(tensor) for tensor in suspects if not _is_finite([tensor])}
        self._take_stock()

    def begin_step(self) -> None:
        """A step begins."""
        self._updates = 0
        self.broke_off = None

    def _take_stock(self) -> None:
        """On a device, nothing is looked at in turns: reading would wait for it."""
        known = (each for each in self._everything() if id(each[2]) not in self._excused)
        self._watched = [each for each in known if each[2].device.type == "cpu"]

    # -- at the measure point -----------------------------------------------------------------------------------

    def before_update(self, optimizer: Optimizer, gradients: Sequence[torch.Tensor], norm: torch.Tensor | None) -> None:
        """Gradients are complete, nothing is clipped.

        Raises:
            StepStopped: a gradient is not finite, or a breakpoint is hit.
        """
        if self.capture is not None:
            self.capture(optimizer)
        if not self.armed:
            return
        self._updates += 1
        if self.hit is not None and self._updates == 1 and (reason := self.hit(norm)) is not None:
            self._break_off(reason)
        if self.accepted or norm is None or (norm.device.type != "cpu" and not self.thorough):
            return
        if not math.isfinite(float(norm)):
            self._mind(optimizer, gradients)

    def glance(self, optimizer: Optimizer) -> None:
        """The same in a step whose norm nobody wants, at a small part of its price; on the CPU only.

        All small gradients, among them those of biases, into which whatever is bad behind a layer goes; of the large
        ones one after the other, a step each.

        Raises:
            StepStopped: a gradient is not finite.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.accepted or not gradients or gradients[0].device.type != "cpu":
            return
        dense = [gradient for gradient in gradients if not gradient.is_sparse]
        large = [gradient for gradient in dense if gradient.numel() > PIECE]
        if large:
            self._glances += 1
            dense = [gradient for gradient in dense if gradient.numel() <= PIECE]
            dense.append(large[self._glances % len(large)])
        if not all(map(math.isfinite, map(float, torch._foreach_norm(dense) if dense else ()))):
            self._mind(optimizer, gradients)

    def _mind(self, optimizer: Optimizer, gradients: Sequence[torch.Tensor]) -> None:
        """A norm is not finite: where the gradients are (squares of large numbers overflow), nothing is wrong."""
        if getattr(optimizer, "found_inf", None) is None and not _is_finite(gradients):
            name, bad = self._worst_gradient(optimizer)
            self._break_off(Reason(What.GRADIENTS, name, bad))

    def _break_off(self, reason: Reason) -> None:
        self.broke_off = StepStopped(reason)
        raise self.broke_off

    def _worst_gradient(self, optimizer: Optimizer) -> tuple[str, float]:
        """The parameter whose gradient is not finite, and what it is instead; the last of several.

        Backward goes from the last layers to the first: what is bad in the last was so the earliest.
        """
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        names = {name: p for name, p in named_parameters(self._model).items() if id(p) in held and p.grad is not None}
        for name, parameter in reversed(names.items()):
            if parameter.grad is not None and not _is_finite([parameter.grad]):
                return name, _bad_value(parameter.grad)
        return "", math.nan

    # -- after a step -------------------------------------------------------------------------------------------

    def after_step(self, loss: float | None, *, skipped: bool) -> Reason | None:
        """What is not finite after a step, if anything; ``skipped`` says that a scaler left its update out."""
        if not self.armed:
            return None
        reason = self.judge_loss(loss, skipped=skipped) or self._in_turn()
        if self.accepted:
            self.accepted = reason is not None
            return None
        return reason

    def judge_loss(self, loss: float | None, *, skipped: bool) -> Reason | None:
        """The same of the loss alone. A scaler's skipped update is no fault, many in a row are."""
        if skipped:
            self._skipped += 1
            return Reason(What.SKIPS) if self._skipped == MOST_SKIPPED else None
        self._skipped = 0
        return None if loss is None or math.isfinite(loss) else Reason(What.LOSS, value=loss)

    def damage(self) -> Reason | None:
        """The first weight, optimizer state or buffer that is not finite but was; waits for the device."""
        return _first_bad([each for each in self._everything() if id(each[2]) not in self._excused])

    def _in_turn(self) -> Reason | None:
        if self.thorough:
            return self.damage()
        self._steps += 1
        if self._steps % EVERY:
            return None
        if self._turn >= len(self._watched):
            self._take_stock()
            self._turn = self._offset = 0
            if not self._watched:
                return None
        what, name, tensor = self._watched[self._turn]
        if tensor.numel() > PIECE and tensor.is_contiguous():
            piece = tensor.detach().view(-1)[self._offset : self._offset + PIECE]
            self._offset += PIECE
            if self._offset >= tensor.numel():
                self._turn, self._offset = self._turn + 1, 0
            return _first_bad([(what, name, piece)])
        small = itertools.takewhile(lambda each: each[2].numel() <= PIECE, self._watched[self._turn + 1 :])
        part = [self._watched[self._turn], *itertools.islice(small, len(self._watched) // TURNS)]
        self._turn += len(part)
        return _first_bad(part)

    def _everything(self) -> Iterator[tuple[What, str, torch.Tensor]]:
        parameters = {id(p): name for name, p in named_parameters(self._model).items()}
        yield from ((What.WEIGHTS, name, p) for name, p in named_parameters(self._model).items() if _can_be_bad(p))
        for module_name, module in named_modules(self._model).items():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                for key in ("running_mean", "running_var"):
                    buffer = module._buffers.get(key)
                    if buffer is not None and _can_be_bad(buffer):
                        yield What.BUFFERS, f"{module_name}.{key}" if module_name else key, buffer
        for optimizer in self._trainer.optimizers.values():
            for parameter, state in list(optimizer.state.items()):
                name = parameters.get(id(parameter), "")
                for key, value in state.items() if isinstance(state, Mapping) else ():
                    if isinstance(value, torch.Tensor) and value.dim() and _can_be_bad(value):
                        yield What.STATE, f"{key} of {name}" if name else str(key), value


def is_sound(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether all of these are finite, those of kinds that can't be told left out."""
    return _is_finite([tensor for tensor in tensors if _can_be_bad(tensor)])


def _can_be_bad(tensor: torch.Tensor) -> bool:
    return (
        not torch.nn.parameter.is_lazy(tensor)
        and tensor.dtype in NORMED
        and tensor.layout is torch.strided
        and not tensor.is_meta
        and tensor.numel() > 0
    )


def _first_bad(tensors: Sequence[tuple[What, str, torch.Tensor]]) -> Reason | None:
    """One norm for all says in most cases that all is well."""
    if not tensors:
        return None
    with torch.no_grad():
        values = [tensor.detach() for _, _, tensor in tensors]
        if _norm_is_finite(values):
            return None
        for what, name, tensor in tensors:
            if not _is_finite([tensor]):
                return Reason(what, name, _bad_value(tensor))
    return None


def _norm_is_finite(tensors: Sequence[torch.Tensor]) -> bool:
    norms = torch._foreach_norm(list(tensors))
    return all(math.isfinite(float(norm)) for norm in norms)


def _is_finite(tensors: Sequence[Any]) -> bool:
    with torch.no_grad():
        for tensor in tensors:
            values = tensor.detach()
            values = values._values() if values.is_sparse else values
            if not bool(torch.isfinite(values).all()):
                return False
    return True


def _bad_value(tensor: torch.Tensor) -> float:
    values = tensor.detach()
    values = values._values() if values.is_sparse else values
    return math.nan if bool(torch.isnan(values).any()) else math.inf
