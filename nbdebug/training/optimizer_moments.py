"""What an optimizer has learnt of the gradients, told in the terms of another kind. Pure functions; no thread.

Between the kinds stand two estimates for each parameter: the mean gradient m and the mean squared gradient v, both
without bias. With t the updates so far, μ the momentum and δ the dampening:

    Adam, AdamW, NAdam, RAdam   m = exp_avg / (1 − β1ᵗ)                       v = exp_avg_sq / (1 − β2ᵗ)
    Adamax                      m = exp_avg / (1 − β1ᵗ)                       v = exp_inf²
    SGD with momentum           m = momentum_buffer · (1 − μ) / (1 − δ)       v unknown
    RMSprop                     m unknown                                     v = square_avg / (1 − αᵗ)
    Adagrad                     m unknown                                     v = sum / t

A kind's state is written so that it yields them again, at the same t. Where v is unknown, the state is that of one
update (t = 1) whose gradient was m: then no weight moves further than by about the learning rate. An unknown m counts
as 0 at the same t: the first updates are smaller, about 1 − β1 of a full one. Adagrad's sum starts anew. RAdam, whose
first updates are plain gradient steps as large as the gradient, is not taken back to them: t is at least the first
rectified one (6 with β2 = 0.999).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from nbdebug.records.optimizers import OptimizerKind
from nbdebug.training.optimizer_recipes import Recipe, Then, real

K = OptimizerKind
ADAM_LIKE = (K.ADAM, K.ADAMW, K.NADAM, K.RADAM)
WITH_BETAS = (*ADAM_LIKE, K.ADAMAX)


@dataclass(frozen=True)
class Scaled:
    """An entry of the state times a number; ``root`` says that it is the root of what is meant."""

    entry: str
    tensor: torch.Tensor
    factor: float = 1.0
    root: bool = False

    def times(self, factor: float) -> Recipe:
        """The value times another number; an exact copy where the two numbers cancel."""
        return Recipe(self.entry, self.factor * factor)

    def squared(self) -> Recipe:
        """The square of each element; of complex tensors, of each part, as torch's optimizers mean it."""
        return replace(self.times(1.0), then=((Then.SQUARE, 1.0),))

    def value(self) -> torch.Tensor:
        """What it comes to."""
        return made_of(self.times(1.0), self)


@dataclass(frozen=True)
class Moments:
    """Estimates of the mean and the mean squared gradient after ``updates`` updates; ``None`` where unknown."""

    updates: int = 0
    mean: Scaled | None = None
    square: Scaled | None = None
    largest: Scaled | None = None


def made_of(recipe: Recipe, scaled: Scaled) -> torch.Tensor:
    """A recipe from one entry, carried out."""
    made: torch.Tensor = recipe.make({scaled.entry: scaled.tensor}, scaled.tensor, {})
    return made


def read(kind: OptimizerKind | None, options: Mapping[str, Any], state: Mapping[str, Any]) -> Moments:
    """The estimates that a parameter's state holds."""
    updates = int(state["step"]) if kind is not None and "step" in state else 0
    if kind is K.SGD and options["momentum"] and isinstance(state.get("momentum_buffer"), torch.Tensor):
        share = (1 - options["momentum"]) / (1 - options["dampening"]) if options["dampening"] < 1 else 0.0
        return Moments(0, _scaled(state, "momentum_buffer", share))
    if not updates:
        return Moments()
    if kind in WITH_BETAS:
        beta1, beta2 = (float(beta) for beta in options["betas"])
        mean = _scaled(state, "exp_avg", 1 / (1 - beta1**updates))
        if kind is K.ADAMAX:
            return Moments(updates, mean, Scaled("exp_inf", state["exp_inf"], root=True))
        unbiased = 1 / (1 - beta2**updates)
        largest = options.get("amsgrad") and state.get("max_exp_avg_sq") is not None
        kept = _scaled(state, "max_exp_avg_sq", unbiased) if largest else None
        return Moments(updates, mean, _scaled(state, "exp_avg_sq", unbiased), kept)
    if kind is K.RMSPROP:
        unbiased = 1 / (1 - options["alpha"] ** updates) if options["alpha"] < 1 else 1.0
        return Moments(updates, None, _scaled(state, "square_avg", unbiased))
    return Moments(updates, None, _scaled(state, "sum", 1 / updates)) if kind is K.ADAGRAD else Moments()


def _scaled(state: Mapping[str, Any], entry: str, factor: float) -> Scaled:
    return Scaled(entry, state[entry], factor)


def write(
    kind: OptimizerKind, options: Mapping[str, Any], moments: Moments, parameter: torch.Tensor
) -> dict[str, Recipe]:
    """How a parameter's state in another kind of optimizer is made; empty where it starts anew."""
    if kind is K.ADAGRAD:
        return {}
    if kind is K.SGD:
        if moments.mean is None or not options["momentum"]:
            return {}
        return {"momentum_buffer": moments.mean.times((1 - options["dampening"]) / (1 - options["momentum"]))}
    if kind is K.RMSPROP:
        return _for_rmsprop(options, moments, parameter)
    if moments.mean is None and moments.square is None:
        return {}
    return _for_adam_like(kind, options, moments)


def _for_adam_like(kind: OptimizerKind, options: Mapping[str, Any], moments: Moments) -> dict[str, Recipe]:
    beta1, beta2 = options["betas"]
    updates = max(moments.updates, _first_rectified(beta2) if kind is K.RADAM else 1)
    state = {"step": Recipe(number=float(updates))}
    if kind is K.NADAM:
        state["mu_product"] = Recipe(number=_mu_product(updates, beta1, options["momentum_decay"]))
    mean, square = moments.mean, moments.square
    state["exp_avg"] = Recipe() if mean is None else mean.times(1 - beta1**updates)
    if kind is K.ADAMAX:
        state["exp_inf"] = _root(moments)
        return state
    bias = 1 - beta2**updates
    known = square is not None and not square.root
    state["exp_avg_sq"] = square.times(bias) if known else _and_then(_square(moments), Then.TIMES, bias)  # type: ignore[union-attr]
    if options.get("amsgrad", False):
        state["max_exp_avg_sq"] = Recipe() if moments.largest is None else moments.largest.times(bias)
    return state


def _for_rmsprop(options: Mapping[str, Any], moments: Moments, parameter: torch.Tensor) -> dict[str, Recipe]:
    """Its average is not corrected while short: without a v of the source, the last gradient makes up for it."""
    has_gradient = parameter.grad is not None and not parameter.grad.is_sparse
    known = moments.mean is not None or moments.square is not None
    if not known and not has_gradient:
        return {}
    square = _square(moments) if known else Recipe()
    if moments.square is None and has_gradient:
        square = _and_then(square, Then.AT_LEAST_GRADIENT)
    state = {"step": Recipe(number=float(moments.updates or 1)), "square_avg": square}
    if options["momentum"] > 0:
        state["momentum_buffer"] = Recipe()
    if options["centered"]:
        state["grad_avg"] = Recipe()
    return state


def _and_then(recipe: Recipe, what: Then, by: float = 1.0) -> Recipe:
    return replace(recipe, then=(*recipe.then, (what, by)))


def _square(moments: Moments) -> Recipe:
    """The mean squared gradient, of the mean where it is unknown."""
    if moments.square is not None:
        return moments.square.squared() if moments.square.root else moments.square.times(1.0)
    assert moments.mean is not None
    return moments.mean.squared()


def _root(moments: Moments) -> Recipe:
    if moments.square is not None and moments.square.root:
        return moments.square.times(1.0)
    return _and_then(_square(moments), Then.ROOT)


def estimates(moments: Moments, parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and root mean squared gradient as dense real tensors of one shape; each stands in for an unknown other.

    An unknown mean is first looked for in the parameter's present gradient. ``None`` where nothing is known.
    """
    root = None if moments.square is None else real(made_of(_root(moments), moments.square))
    mean = None if moments.mean is None else _dense(moments.mean.value())
    if mean is None and parameter.grad is not None and (root is None or not parameter.grad.is_sparse):
        mean = _dense(parameter.grad.detach())
    mean = root if mean is None else mean
    return None if mean is None else (mean, mean.abs() if root is None else root)


def update_size(kind: OptimizerKind, options: Mapping[str, Any], mean: torch.Tensor, root: torch.Tensor, updates: int
                ) -> float:  # fmt: skip
    """The squared norm of an update at a learning rate of 1, once momentum has settled.

    ``updates`` of Adagrad are those that its sum is made of; at none its update is the gradient's sign.
    """
    if kind is K.SGD:
        update = mean * ((1 - options["dampening"]) / (1 - options["momentum"]))
    elif kind is K.ADAGRAD:
        update = mean.sign() if not updates else mean / (root * updates**0.5 + options["eps"])
        update = update / (1 + max(updates - 1, 0) * options["lr_decay"])
    else:
        update = mean / (root + options["eps"])
        update = update / (1 - options["momentum"]) if kind is K.RMSPROP else update
    return float(update.double().nan_to_num(0.0, 0.0, 0.0).square().sum())


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return real(tensor.coalesce().values() if tensor.is_sparse else tensor)


@lru_cache(maxsize=64)
def _first_rectified(beta2: float) -> int:
    """The number of RAdam's first update that divides by the average square; 1 where none does."""
    longest = 2 / (1 - beta2) - 1
    lengths = (longest - 2 * t * beta2**t / (1 - beta2**t) for t in range(1, 100))
    return next((t for t, length in enumerate(lengths, 1) if length > 5), 1)


@lru_cache(maxsize=64)
def _mu_product(updates: int, beta1: float, decay: float) -> float:
    """The product of NAdam's momenta over the updates so far, multiplied up as NAdam does."""
    product = torch.tensor(1.0)
    for step in range(1, updates + 1):
        product *= beta1 * (1.0 - 0.5 * (0.96 ** (step * decay)))
        if product == 0:
            break
    return float(product)
