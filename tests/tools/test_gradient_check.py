"""Wrong backward passes are found, right ones pass, those made up on purpose are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import Function

from nbdebug.tools.gradient_check import check_gradient


def made(name: str, forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    """A custom function of these two, which saves all its tensors."""

    def run(ctx: Any, *args: Any) -> Any:
        ctx.save_for_backward(*(arg for arg in args if isinstance(arg, torch.Tensor)))
        return forward(*args)

    def back(ctx: Any, grad: Any) -> Any:
        return backward(grad, *ctx.saved_tensors)

    return type(name, (Function,), {"forward": staticmethod(run), "backward": staticmethod(back)}).apply


def softplus_slope(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


def linear(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return x @ w.T + b


def norm_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    length = x.norm(dim=-1, keepdim=True)
    unit = x / length
    return (grad - unit * (grad * unit).sum(-1, keepdim=True)) / length


X, W, B = (6, 5), (4, 5), (4,)
RIGHT = {
    "square": (lambda x: x * x, lambda g, x: 2 * g * x, [X]),
    "exp": (torch.exp, lambda g, x: g * x.exp(), [X]),
    "sigmoid": (torch.sigmoid, lambda g, x: g * x.sigmoid() * (1 - x.sigmoid()), [X]),
    "relu": (torch.relu, lambda g, x: g * (x > 0), [X]),
    "softplus": (torch.nn.functional.softplus, lambda g, x: g * softplus_slope(x), [X]),
    "linear": (linear, lambda g, x, w, b: (g @ w, g.T @ x, g.sum(0)), [X, W, B]),
    "product": (lambda a, b: a * b, lambda g, a, b: (g * b, g * a), [X, X]),
    "mean": (lambda x: x.mean(-1), lambda g, x: (g[:, None] / x.shape[-1]).expand_as(x), [X]),
    "unit": (lambda x: x / x.norm(dim=-1, keepdim=True), norm_backward, [X]),
    "silu": (
        lambda x: x * x.sigmoid(),
        lambda g, x: g * (x.sigmoid() + x * x.sigmoid() * (1 - x.sigmoid())),
        [X],
    ),
}
WRONG = {
    "a factor": (lambda x: x * x, lambda g, x: g * x, [X]),
    "a small factor": (torch.exp, lambda g, x: 1.01 * g * x.exp(), [X]),
    "a sign": (torch.sigmoid, lambda g, x: -g * x.sigmoid() * (1 - x.sigmoid()), [X]),
    "a missing term": (lambda x: x * x.sigmoid(), lambda g, x: g * x.sigmoid(), [X]),
    "a missing term of the norm": (
        lambda x: x / x.norm(dim=-1, keepdim=True),
        lambda g, x: g / x.norm(dim=-1, keepdim=True),
        [X],
    ),
    "one of three inputs": (linear, lambda g, x, w, b: (g @ w, g.T @ x, g.mean(0)), [X, W, B]),
    "none for an input": (lambda a, b: a * b, lambda g, a, b: (g * b, None), [X, X]),
}
ON_PURPOSE = {
    "reversed": (lambda x: x.clone(), lambda g, x: -g, [X]),
    "straight through": (torch.round, lambda g, x: g, [X]),
    "surrogate of a spike": (lambda x: (x > 0).to(x.dtype), lambda g, x: g / (1 + x.abs()) ** 2, [X]),
}


def arguments(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_backward_passes(name: str, dtype: torch.dtype) -> None:
    forward, backward, shapes = RIGHT[name]
    found = check_gradient(made(name, forward, backward), arguments(shapes, dtype))
    assert found.is_right and found.double
    assert len(found.inputs) == len(shapes)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_backward_is_found(name: str, seed: int) -> None:
    forward, backward, shapes = WRONG[name]
    found = check_gradient(made("Wrong", forward, backward), arguments(shapes, torch.float32), seed=seed)
    assert not found.is_right
    assert not found.on_purpose


def test_the_ratio_says_by_how_much() -> None:
    forward, backward, shapes = WRONG["a factor"]
    found = check_gradient(made("Wrong", forward, backward), arguments(shapes, torch.float32))
    assert found.inputs[0].ratio == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_what_is_made_up_on_purpose_is_told_apart(name: str) -> None:
    forward, backward, shapes = ON_PURPOSE[name]
    found = check_gradient(made("Wished", forward, backward), arguments(shapes, torch.float32))
    assert found.on_purpose


def test_a_function_of_single_precision_only_is_checked_roughly() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not torch.float32:
            raise TypeError("float32 only")
        return x * x

    right = check_gradient(made("Right", forward, lambda g, x: 2 * g * x), arguments([X], torch.float32))
    wrong = check_gradient(made("Wrong", forward, lambda g, x: g * x), arguments([X], torch.float32))
    assert right.is_right and not wrong.is_right and not right.double


def test_nobody_elses_random_numbers_change() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    forward, backward, shapes = RIGHT["square"]
    check_gradient(made("square", forward, backward), arguments(shapes, torch.float32))
    assert torch.equal(before, torch.get_rng_state())


def test_a_function_that_draws_is_checked_with_the_same_draws() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x * torch.rand(())

    class Drawing(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            factor = torch.rand(())
            ctx.factor = factor
            return x * factor

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * ctx.factor

    assert check_gradient(Drawing.apply, arguments([X], torch.float32)).is_right
    assert check_gradient(forward, arguments([X], torch.float32)).is_right
