"""The plain loop, without nbdebug, for programs of the zoo; and what is seen of a first step from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from nbdebug.training.batches import split


def losses(model: Any, trainer: Any) -> Iterator[float]:
    """Trains for ever, epoch after epoch as the reference loop does without validation; yields each step's loss."""
    while True:
        for batch in trainer.train_loader:
            yield step(model, trainer, batch)
            for scheduler in trainer.schedulers.values() if trainer.scheduler_interval == "batch" else ():
                scheduler.step()


def step(model: Any, trainer: Any, batch: Any) -> float:
    """One training step, the user's own or the plain one."""
    if trainer.step is not None:
        returned = trainer.step(model, batch, trainer.loss_fn, trainer.optimizer)
        return float(returned["loss"] if isinstance(returned, dict) else returned)

    def closure() -> torch.Tensor:
        trainer.optimizer.zero_grad()
        given, target = split(batch)
        loss = trainer.loss_fn(model(given), target)
        loss.backward()
        return loss

    if isinstance(trainer.optimizer, torch.optim.LBFGS):
        return float(trainer.optimizer.step(closure))
    loss = closure()
    trainer.optimizer.step()
    return float(loss)


def learns(model: Any, trainer: Any, steps: int, *, window: int = 5, part: float = 0.9) -> bool:
    """Whether the loss, averaged over a few steps, falls well below where it began, in at most so many steps."""
    seen: list[float] = []
    window = min(window, steps // 3)
    for loss in losses(model, trainer):
        seen.append(loss)
        if len(seen) >= 3 * window and sum(seen[-window:]) < _below(sum(seen[:window]), part):
            return True
        if len(seen) >= steps:
            return False
    raise AssertionError("the loader gave no batch")


def _below(start: float, part: float) -> float:
    return part * start if start > 0 else start - (1 - part) * abs(start)


@dataclass
class Call:
    """A call of a torch function, with copies of its tensors."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    result: Any

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by place or by name."""
        return self.args[place] if len(self.args) > place else self.options.get(name, default)


@dataclass
class Seen(TorchFunctionMode):
    """Notes every call of a torch function, down to those that torch's own functions make."""

    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        given = tree_map_only(torch.Tensor, _copied, args) if name in LOOKED_AT else args
        options = tree_map_only(torch.Tensor, _copied, kwargs) if name in LOOKED_AT else kwargs
        result = function(*args, **kwargs)
        if name in LOOKED_AT:
            self.calls.append(Call(name, given, options, tree_map_only(torch.Tensor, _copied, result)))
        return result

    def of(self, *names: str) -> list[Call]:
        """The calls of these functions."""
        return [call for call in self.calls if call.name in names]


ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "selu", "mish", "hardtanh")
LOSSES = ("cross_entropy", "nll_loss", "nll_loss_nd", "binary_cross_entropy_with_logits", "binary_cross_entropy")
LOOKED_AT = frozenset({*ACTIVATIONS, *LOSSES, "softmax", "log_softmax", "dropout"})


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def first_step(build: Callable[[], Any]) -> tuple[Any, Any, Any, Seen]:
    """Model, trainer, batch, and what torch was asked for in its first training step."""
    model, trainer = build()
    batch = next(iter(trainer.train_loader))
    seen = Seen()
    with seen:
        step(model, trainer, batch)
    return model, trainer, batch, seen
