"""Averages of the weights, kept on the side: exponential (EMA) or equal (SWA). Training thread, at safe points.

Each average is corrected by a part of its distance to the live weight, so that it can be read at any time:

    EMA            1 − d, the first weight being taken as it is (Polyak & Juditsky 1992)
    EMA, corrected (1 − d) / (1 − dⁿ), which is the moving average from zero divided by 1 − dⁿ (Kingma & Ba 2015)
    SWA            1 / n (Izmailov et al. 2018)

with n the number of weights taken in. Half-precision weights are averaged in float32, where small steps still count.
Nothing here is read from the device, no random number is drawn, and live tensors are written only inside
:meth:`Average.swapped`, which puts back every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch

from nbdebug.records.errors import ConfigurationError, collect
from nbdebug.training.averaging_swap import Held, named_tensors, recompute_statistics, signature
from nbdebug.training.modules import Model

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Ema:
    """Exponential moving average with this decay per step; ``corrected`` gives the first weights no extra share."""

    decay: float = 0.999
    corrected: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigurationError(f"decay is {self.decay}: it has to be at least 0 and less than 1, such as 0.999")

    def takes(self, step: int) -> bool:
        """Every one."""
        return True

    def share(self, taken: int) -> float:
        """What the next weight counts for when so many were taken in."""
        if taken == 0:
            return 1.0
        return (1 - self.decay) / (1 - self.decay ** (taken + 1)) if self.corrected else 1 - self.decay


@dataclass(frozen=True, slots=True)
class Swa:
    """Equal average of the weights after step ``start`` and after every ``every`` steps from then on; from 1."""

    start: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        wrong = [f"{key} is {n}: it has to be at least 1" for key, n in asdict(self).items() if n < 1]
        if wrong:
            raise collect(wrong)

    def takes(self, step: int) -> bool:
        """Whether the weights after this step count."""
        return step >= self.start and (step - self.start) % self.every == 0

    def share(self, taken: int) -> float:
        """What the next weight counts for when so many were taken in."""
        return 1 / (taken + 1)


Rule: TypeAlias = Ema | Swa


@dataclass(slots=True)
class _Group:
    """Tensors of one device, type and number of weights taken in; ``exact`` are integers, which are not averaged."""

    taken: int
    exact: bool
    names: list[str]
    averages: list[torch.Tensor]
    live: list[torch.Tensor]


class Average:
    """The average of a model's parameters and, with ``buffers``, of its floating buffers. Integer ones follow along.

    Tied parameters count once, lazy ones from when they have a shape. Parameters that come with a change of the model
    begin with what they are then; those that go are forgotten. Without ``buffers`` the live ones serve the average.
    """

    def __init__(self, rule: Rule, *, buffers: bool = False) -> None:
        self.rule = rule
        self.buffers = buffers
        self.steps = 0
        self._averages: dict[str, torch.Tensor] = {}
        self._taken: dict[str, int] = {}
        self._groups: list[_Group] | None = None
        self._seen: list[Any] = []

    @property
    def taken(self) -> int:
        """How many weights went into the oldest average."""
        return max(self._counts().values(), default=0)

    @property
    def size_bytes(self) -> int:
        """What the averages hold."""
        return sum(average.numel() * average.element_size() for average in self._averages.values())

    def update(self, model: Model) -> None:
        """A step of the optimizer is over."""
        self.steps += 1
        if not self.rule.takes(self.steps):
            return
        with torch.no_grad():
            for group in self._bound(model):
                self._take(group)

    @contextmanager
    def swapped(
        self, model: Model, *, batches: Iterable[Any] | None = None, forward: Callable[[Any], Any] | None = None
    ) -> Iterator[None]:
        """The average in the model's own tensors, to be evaluated; afterwards every weight and buffer as it was.

        The tensors stay the same, and their version counters too. With ``batches`` the statistics of batch norms are
        made anew: each goes through ``forward`` (by default the model, with the first of a tuple) with the batch norms
        alone in training mode, so that dropout does nothing and no random number is used up. Needs as many bytes again.
        """
        held = Held.of(model)
        try:
            self._put_in(model)
            if batches is not None:
                recompute_statistics(model, batches, forward)
            yield
        finally:
            held.put_back()

    def state_dict(self) -> dict[str, Any]:
        """References, as an optimizer's: copy it to keep it."""
        averages, taken = dict(self._averages), self._counts()
        return {"steps": self.steps, "rule": self._described(), "taken": taken, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over copies.

        Raises:
            ConfigurationError: the state is that of another rule.
        """
        if state["rule"] != self._described():
            raise ConfigurationError(f"this average is by {self._described()}, and the state's by {state['rule']}")
        self.steps = state["steps"]
        self._taken = dict(state["taken"])
        self._averages = {name: average.detach().clone() for name, average in state["averages"].items()}
        self._groups = None

    def _described(self) -> dict[str, Any]:
        return {"kind": type(self.rule).__name__, **asdict(self.rule), "buffers": self.buffers}

    def _counts(self) -> dict[str, int]:
        """How many weights went into each average."""
        return {**self._taken, **{name: group.taken for group in self._groups or () for name in group.names}}

    def _take(self, group: _Group) -> None:
        share = self.rule.share(group.taken)
        group.taken += 1
        if group.exact or share == 1:
            torch._foreach_copy_(group.averages, group.live)
        elif group.live[0].dtype is group.averages[0].dtype:
            torch._foreach_lerp_(group.averages, group.live, share)
        else:
            torch._foreach_lerp_(group.averages, [tensor.to(_dtype(tensor.dtype)) for tensor in group.live], share)

    def _bound(self, model: Model) -> list[_Group]:
        """The groups, made anew where the model holds other tensors than last time, or on another device."""
        seen = signature(model, buffers=self.buffers)
        if self._groups is None or seen != self._seen:
            self._groups = self._grouped(model)
            self._seen = seen
        return self._groups

    def _grouped(self, model: Model) -> list[_Group]:
        live = named_tensors(model, buffers=self.buffers)
        groups: dict[Any, _Group] = {}
        averages, taken, counts = {}, {}, self._counts()
        for name, tensor in live.items():
            known = self._averages.get(name)
            fits = known is not None and known.shape == tensor.shape
            average = known if known is not None and fits else torch.empty_like(tensor, dtype=_dtype(tensor.dtype))
            averages[name] = average = average.to(tensor.device, _dtype(tensor.dtype))
            taken[name] = counts.get(name, 0) if fits else 0
            exact = not (tensor.is_floating_point() or tensor.is_complex())
            group = groups.setdefault(
                (tensor.device, tensor.dtype, taken[name]), _Group(taken[name], exact, [], [], [])
            )
            group.names.append(name)
            group.averages.append(average)
            group.live.append(tensor)
        self._averages, self._taken = averages, taken
        return list(groups.values())

    def _put_in(self, model: Model) -> None:
        live = named_tensors(model, buffers=self.buffers)
        common = [name for name in live if name in self._averages]
        unlike = [
            f"{name} is {tuple(live[name].shape)}, and its average {tuple(self._averages[name].shape)}"
            for name in common
            if live[name].shape != self._averages[name].shape
        ]
        if unlike:
            raise collect(unlike)
        for name in common:
            live[name].data.copy_(self._averages[name])


def _dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALF else dtype
