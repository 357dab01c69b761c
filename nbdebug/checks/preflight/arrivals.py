"""Where the data meet the first weights: at torch's own layers, or in a call of which one side is a weight.

Pure; training thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nbdebug.checks.preflight.leaves import first_part, leaves
from nbdebug.checks.preflight.numbering import Numbering
from nbdebug.checks.preflight.trace import Arrival, Call, StepTrace

MOST_ARRIVALS = 6
LINEAR = ("Linear", "Conv1d", "Conv2d", "Conv3d", "LazyLinear", "LazyConv1d", "LazyConv2d")
Side = tuple[Any, Any, tuple[int, ...]]  # what may be data, what may be a weight, the data's axes with the features


def _product(first: Any, second: Any) -> list[Side]:
    rows = (-2,) if isinstance(second, torch.Tensor) and second.dim() > 1 else (-1,)
    return [(first, second, (-1,)), (second, first, rows)]


def _convolution(given: Any, weight: Any, *rest: Any) -> list[Side]:
    batched = isinstance(given, torch.Tensor) and isinstance(weight, torch.Tensor) and given.dim() == weight.dim()
    return [(given, weight, (1 if batched else 0,))]


def _by_element(first: Any, second: Any) -> list[Side]:
    """A product whose sum over the last axis may follow: each feature has a weight of its own."""
    tensors = isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and first.dim() and second.dim()
    if not tensors or first.shape[-1] != second.shape[-1] or first.shape[-1] < 2:
        return []
    return [(first, second, (-1,)), (second, first, (-1,))]


def _einsum(equation: Any, *operands: Any) -> list[Side]:
    """The axes of an operand that the result lacks, and that another has, are those of its features."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or "->" not in equation or len(operands) != 2:
        return []
    given, result = equation.replace(" ", "").split("->")
    terms = given.split(",")
    if len(terms) != 2:
        return []
    sides: list[Side] = []
    for own, other in ((0, 1), (1, 0)):
        shared = [letter for letter in terms[own] if letter.isalpha() and letter in terms[other]]
        axes = tuple(_axis(terms[own], letter) for letter in shared if letter not in result)
        if axes:
            sides.append((operands[own], operands[other], axes))
    return sides


def _axis(term: str, letter: str) -> int:
    """Its place in an operand: from the end where an ellipsis comes before it."""
    before = term.partition("...")[0]
    return term.index(letter) if letter in before else term.index(letter) - len(term)


def _tensordot(first: Any, second: Any, dims: Any = 2, *rest: Any) -> list[Side]:
    if isinstance(dims, int):
        return [(first, second, tuple(range(-dims, 0))), (second, first, tuple(range(dims)))]
    if isinstance(dims, (tuple, list)) and len(dims) == 2 and all(isinstance(each, (tuple, list)) for each in dims):
        return [(first, second, tuple(dims[0])), (second, first, tuple(dims[1]))]
    return []


def _behind_a_bias(bias: Any, first: Any, second: Any, *rest: Any) -> list[Side]:
    return _product(first, second)


WEIGHINGS: dict[str, Callable[..., list[Side]]] = {
    "linear": lambda given, weight, *rest: [(given, weight, (-1,))],
    "multi_head_attention_forward": lambda given, key, value, wide, heads, weight, *rest: [(given, weight, (-1,))],
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm", "mv"), _product),
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), _behind_a_bias),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("mul", "multiply"), _by_element),
    "einsum": _einsum,
    "tensordot": _tensordot,
}
KEYWORDS = ("input", "mat1", "batch1", "mat", "vec", "mat2", "batch2", "other", "weight", "a", "b", "dims")


class Arrivals:
    """Writes a step's first meetings of data and weights into its trace."""

    def __init__(self, trace: StepTrace, numbering: Numbering, modules: dict[str, nn.Module]) -> None:
        self._trace = trace
        self._numbering = numbering
        self._own = {name for name, module in modules.items() if not is_torchs(module)}

    def at_module(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        """A module without children was called. One of the user's own is judged by the calls in it, if any tell."""
        if self._is_full or any(each.layer == name for each in self._trace.arrivals if each.weight):
            return
        given = next((tensor for _, tensor in leaves(args)), None)
        if given is None or given.layout is not torch.strided or not any(True for _ in module.parameters()):
            return
        if self._numbering.is_data(given):
            kind = type(module).__name__
            axes = (1,) if kind.startswith(("Conv", "LazyConv")) and given.dim() > 2 else (-1,)
            answer = _scale_of(output) if kind.startswith(LINEAR) else None
            self._add(name, kind, given, axes, self._numbering.within(output), answer, len(self._trace.calls), "")

    def at_call(self, call: Call, args: Any, kwargs: Any, result: Any) -> None:
        """A function was called outside of torch's own layers: the bare weights of a network written by hand."""
        if self._is_full or call.name not in WEIGHINGS or (call.layer is not None and call.layer not in self._own):
            return
        for given, weight, axes in _sides(call.name, args, kwargs):
            if isinstance(given, torch.Tensor) and isinstance(weight, torch.Tensor) and self._meet(given, weight):
                name = self._trace.values[self._numbering.number(weight)].source.partition(" ")[2]
                layer = call.layer or ""
                self._add(layer, call.name, given, axes, call.outputs, _scale_of(result), call.index, name or "weights")
                return

    @property
    def _is_full(self) -> bool:
        return len(self._trace.arrivals) >= MOST_ARRIVALS

    def _meet(self, given: torch.Tensor, weight: torch.Tensor) -> bool:
        """Whether data meet what learns, or is fixed in the model, without depending on the batch itself."""
        if given.layout is not torch.strided or not given.dim() or not self._numbering.is_data(given):
            return False
        sources = self._trace.sources(self._numbering.number(weight))
        return self._numbering.is_weight(weight) and not any(each.startswith("batch") for each in sources)

    def _add(
        self, layer: str, kind: str, given: torch.Tensor, axes: tuple[int, ...], outputs: tuple[int, ...],
        answer: float | None, index: int, weight: str,
    ) -> None:  # fmt: skip
        number = self._numbering.number(given)
        self._trace.arrivals.append(
            Arrival(layer, kind, first_part(given), number, index, axes, outputs, answer, weight)
        )


def is_torchs(module: nn.Module) -> bool:
    """Whether a module is one of torch's layers, which are told by hooks, rather than a network of somebody's own."""
    return type(module).__module__.startswith("torch.nn") and not any(True for _ in module.children())


def _sides(name: str, args: Any, kwargs: Any) -> list[Side]:
    """What a call was given, as pairs; none where it was called in a way that is not known."""
    given = [*args, *(kwargs[key] for key in KEYWORDS if key in kwargs)]
    try:
        return WEIGHINGS[name](*given)
    except TypeError:  # too few arguments, or too many
        return []


def _scale_of(result: Any) -> float | None:
    """The root mean square of what a call gave."""
    first = next((tensor for _, tensor in leaves(result) if tensor.is_floating_point()), None)
    return float(first.detach().double().square().mean().sqrt()) if first is not None and first.numel() else None
