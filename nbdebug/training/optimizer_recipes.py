"""How an entry of a new optimizer's state is made from the old one's: a recipe, run on tensors or printed as Python.

Both from the same operations in the same order, so that what is printed gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

SAME = 1e-9


class Then(StrEnum):
    """What is done to a value, in place."""

    SQUARE = "square"
    ROOT = "root"
    TIMES = "times"
    AT_LEAST_GRADIENT = "at least the gradient, squared"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A new entry: an old ``entry`` times ``factor``, zeros without one; then operations with their numbers.

    ``number`` makes it a count instead, and ``same`` takes an entry over as it is, tensor or not.
    """

    entry: str = ""
    factor: float = 1.0
    then: tuple[tuple[Then, float], ...] = ()
    number: float | None = None
    same: bool = False

    def make(self, state: Mapping[str, Any], parameter: torch.Tensor, options: Mapping[str, Any]) -> Any:
        """The value, given the parameter's old state and its group's new options."""
        if self.number is not None:
            return number(self.number, options, parameter)
        held = state.get(self.entry)
        if self.same and not isinstance(held, torch.Tensor):
            return held
        value = zeros(parameter) if held is None else held.detach()
        if held is not None:
            value = value.clone() if self.is_copy else value * self.factor
        for what, by in self.then:
            _do(what, by, value, parameter)
        return value

    @property
    def is_copy(self) -> bool:
        """Whether the factor counts as 1."""
        return abs(self.factor - 1) < SAME

    def lines(self, target: str, options: Mapping[str, Any], parameter: torch.Tensor, state: Mapping[str, Any]
              ) -> list[str]:  # fmt: skip
        """Python that writes it to ``target``, where ``state`` and ``parameter`` are defined."""
        if self.number is not None:
            return [f"{target} = {_number_text(self.number, options, parameter)}"]
        if self.same and not isinstance(state.get(self.entry), torch.Tensor):
            return [f"{target} = {state.get(self.entry)!r}"]
        if not self.entry:
            first = "torch.zeros_like(parameter)"
        else:
            first = f'state["{self.entry}"]' + (".clone()" if self.is_copy else f" * {self.factor!r}")
        view = "torch.view_as_real({})" if parameter.is_complex() else "{}"
        value = view.format(target)
        found = [f"{target} = {first}"]
        for what, by in self.then:
            found.append(_TEXT[what].format(value=value, target=target, by=repr(by),
                                            gradient=view.format("parameter.grad")))  # fmt: skip
        return found


_TEXT = {
    Then.SQUARE: "{value}.square_()",
    Then.ROOT: "{value}.sqrt_()",
    Then.TIMES: "{target}.mul_({by})",
    Then.AT_LEAST_GRADIENT: "torch.maximum({value}, {gradient}.square(), out={value})",
}


def _do(what: Then, by: float, value: torch.Tensor, parameter: torch.Tensor) -> None:
    if what is Then.SQUARE:
        real(value).square_()
    elif what is Then.ROOT:
        real(value).sqrt_()
    elif what is Then.TIMES:
        value.mul_(by)
    else:
        assert parameter.grad is not None
        torch.maximum(real(value), real(parameter.grad.detach()).square(), out=real(value))


def real(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a complex tensor's parts; another tensor as it is."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def zeros(parameter: torch.Tensor) -> torch.Tensor:
    """Of a parameter's shape, type and layout in memory."""
    return torch.zeros_like(parameter, memory_format=torch.preserve_format).detach()


def number(value: float, options: Mapping[str, Any], parameter: torch.Tensor) -> torch.Tensor:
    """A count as torch's optimizers keep it."""
    dtype, on_device = _kind_of_count(options)
    return torch.tensor(value, dtype=dtype, device=parameter.device if on_device else "cpu")


def _kind_of_count(options: Mapping[str, Any]) -> tuple[torch.dtype, bool]:
    wide = torch.get_default_dtype() == torch.float64 and not options.get("fused")
    return torch.float64 if wide else torch.float32, bool(options.get("capturable") or options.get("fused"))


def _number_text(value: float, options: Mapping[str, Any], parameter: torch.Tensor) -> str:
    dtype, on_device = _kind_of_count(options)
    where = ", device=parameter.device" if on_device else ""
    return f"torch.tensor({value!r}, dtype={dtype}{where})"
