"""Whether a backward is the derivative of its forward: against central differences, in double precision.

Any thread. Draws from a generator of its own, so that no other random number changes; what the function itself draws
is the same at every call. Directions and places are sampled: a wrong factor, sign or term shows in almost every one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nbdebug.training.rng import preserved

DIRECTIONS = 4
PLACES = 4
STEP = 1e-6
SINGLE_STEP = 1e-2
TOLERANCE = 1e-4
SINGLE_TOLERANCE = 0.05
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class InputCheck:
    """One input's derivative along sampled directions: as the backward says, and as differences say.

    ``agree`` says of each direction whether the two are the same to rounding, at one of two lengths of step.
    """

    place: int
    analytic: tuple[float, ...]
    numeric: tuple[float, ...]
    agree: tuple[bool, ...]

    @property
    def is_right(self) -> bool:
        """Whether most directions agree: a kink may spoil one."""
        return sum(self.agree) * 2 > len(self.agree)

    @property
    def ratios(self) -> tuple[float, ...]:
        """What the backward gives as a multiple of what is right, by direction."""
        return tuple(a / n for a, n in zip(self.analytic, self.numeric, strict=True) if n)

    @property
    def ratio(self) -> float:
        """Their median; NaN where nothing changes."""
        return statistics.median(self.ratios) if self.ratios else math.nan

    @property
    def is_a_factor(self) -> bool:
        """Whether the same factor is off in every direction."""
        return bool(self.ratios) and max(self.ratios) - min(self.ratios) < 1e-3 * abs(self.ratio)


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """What came of it, by input that gets a gradient.

    ``is_identity`` says that the forward hands on a value unchanged, ``is_flat`` that its output does not change where
    the backward says that it does: backward passes of such functions are made up on purpose, as for a reversed
    gradient or a straight-through estimate. ``double`` says that it could be done in double precision.
    """

    inputs: tuple[InputCheck, ...]
    is_identity: bool
    is_flat: bool
    double: bool

    @property
    def is_right(self) -> bool:
        """Whether every input's derivative is right."""
        return all(each.is_right for each in self.inputs)

    @property
    def on_purpose(self) -> bool:
        """Whether a wrong backward looks intended."""
        return self.is_identity or self.is_flat


def check_gradient(function: Function, arguments: Sequence[Any], *, seed: int = 0) -> GradientCheck:
    """Compare the backward of ``function(*arguments)`` with central differences at this place.

    Floating-point tensors among ``arguments`` that require a gradient are looked at; all others are given as they are.
    Differences are taken in float64 where the function works with it, else in its own type, more roughly.
    """
    generator = torch.Generator().manual_seed(seed)
    try:
        return _check(function, [_as_double(each) for each in arguments], generator, double=True)
    except (RuntimeError, TypeError):
        return _check(function, list(arguments), generator, double=False)


def _as_double(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return value


def _check(function: Function, arguments: list[Any], generator: torch.Generator, *, double: bool) -> GradientCheck:
    looked_at = [
        place
        for place, each in enumerate(arguments)
        if isinstance(each, torch.Tensor) and each.is_floating_point() and each.requires_grad
    ]
    fresh = [_leaf(each, place in looked_at) for place, each in enumerate(arguments)]
    outputs = _outputs(function, fresh)
    weights = [_drawn(each, generator) for each in outputs]
    value = _weighed(outputs, weights)
    leaves = [fresh[place] for place in looked_at]
    found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
    probe = _Probe(function, arguments, weights, double=double)
    checks = [probe.compare(place, gradient, generator) for place, gradient in zip(looked_at, found, strict=True)]
    given = [each for each in arguments if isinstance(each, torch.Tensor)]
    identity = all(any(_same(output, each) for each in given) for output in outputs)
    moving = [value for check in checks for value in check.numeric]
    flat = bool(moving) and not any(moving) and any(any(check.analytic) for check in checks)
    return GradientCheck(tuple(checks), identity, flat, double)


class _Probe:
    """The value at places near by."""

    def __init__(self, function: Function, arguments: list[Any], weights: list[torch.Tensor], *, double: bool) -> None:
        self._function = function
        self._arguments = arguments
        self._weights = weights
        self._step = STEP if double else SINGLE_STEP
        self._tolerance = TOLERANCE if double else SINGLE_TOLERANCE

    def compare(self, place: int, gradient: torch.Tensor | None, generator: torch.Generator) -> InputCheck:
        at = self._arguments[place].detach()
        scale = float(at.square().mean().sqrt()) or 1.0
        analytic, numeric, agree = [], [], []
        for direction in _directions(at, gradient, generator):
            said = float((gradient * direction).sum()) if gradient is not None else 0.0
            near = [self._slope(place, at, direction, self._step * scale * factor) for factor in (1.0, 0.1)]
            close = [self._close(said, each) for each in near]
            analytic.append(said)
            numeric.append(near[close.index(True)] if any(close) else near[0])
            agree.append(any(close))
        return InputCheck(place, tuple(analytic), tuple(numeric), tuple(agree))

    def _close(self, said: float, differences: float) -> bool:
        return abs(said - differences) <= self._tolerance * max(abs(said), abs(differences)) + 1e-9

    def _slope(self, place: int, at: torch.Tensor, direction: torch.Tensor, step: float) -> float:
        values = []
        for sign in (1, -1):
            moved = [_leaf(each, False) for each in self._arguments]
            moved[place] = (at + sign * step * direction).requires_grad_()
            values.append(float(_weighed(_outputs(self._function, moved), self._weights).detach()))
        return (values[0] - values[1]) / (2 * step)


def _directions(at: torch.Tensor, gradient: torch.Tensor | None, generator: torch.Generator) -> list[torch.Tensor]:
    """Some along everything at once, and some along single elements, where the gradient is largest and by chance."""
    found = [_drawn(at, generator) for _ in range(DIRECTIONS)]
    size = at.numel()
    if size < 2:
        return found
    chosen: list[int] = []
    if gradient is not None:
        chosen += gradient.abs().reshape(-1).argsort(descending=True)[: PLACES // 2].tolist()
    chosen += torch.randint(size, (PLACES - len(chosen),), generator=generator).tolist()
    for place in chosen:
        single = torch.zeros(size, dtype=at.dtype, device=at.device)
        single[place] = 1.0
        found.append(single.reshape(at.shape))
    return found


def _leaf(value: Any, learns: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().clone().requires_grad_(learns)


def _outputs(function: Function, arguments: list[Any]) -> list[torch.Tensor]:
    """Floating-point outputs; random numbers that it draws are the same at each call."""
    with preserved():
        torch.manual_seed(0)
        with torch.enable_grad():
            made = function(*arguments)
    parts = made if isinstance(made, (tuple, list)) else (made,)
    return [part for part in parts if isinstance(part, torch.Tensor) and part.is_floating_point()]


def _drawn(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _weighed(outputs: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
    parts = [(output * weight).sum() for output, weight in zip(outputs, weights, strict=True)]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one.detach(), other.detach().to(one.dtype)))
