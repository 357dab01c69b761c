"""Parameters by layer: who owns which, and where samples of them are taken. Training thread only.

A layer is a module that holds parameters of its own. A tied parameter belongs to the first that holds it; what a
parametrisation computes a weight from belongs to the layer that has the weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parameter import is_lazy

from nbdebug.probes.sampling import SAMPLE_SIZE, Places

Floats = NDArray[np.float64]
INSIDE = ".parametrizations."
MOST_LAYOUTS = 32


@dataclass(frozen=True, slots=True)
class Part:
    """A parameter as part of its layer: ``shared`` are its places in the layer's row, ``own`` those of a row alone."""

    layer: int
    is_bias: bool
    elements: int
    shared: Places
    own: Places


@dataclass(frozen=True)
class Layout:
    """Parameters sorted by layer: ``order`` ``(parameters,)``, where each layer ``begins`` in it, and the ``layers``.

    ``elements`` ``(layers,)`` are real numbers in all. ``weights`` and ``biases`` are the same for only a part of the
    parameters, ``None`` where there are none.
    """

    layers: tuple[str, ...]
    order: NDArray[np.int64]
    begins: NDArray[np.int64]
    elements: Floats
    weights: Layout | None = None
    biases: Layout | None = None

    @classmethod
    def of(cls, owners: Sequence[tuple[int, bool]], elements: Sequence[int], names: Sequence[str]) -> Layout:
        """For parameters given by layer and whether each is a bias, and their sizes."""
        every = range(len(owners))
        kinds = [cls._of([i for i in every if owners[i][1] is bias], owners, elements, names) for bias in (False, True)]
        whole = cls._of(list(every), owners, elements, names)
        assert whole is not None
        return replace(whole, weights=kinds[0], biases=kinds[1])

    @classmethod
    def _of(
        cls, chosen: list[int], owners: Sequence[tuple[int, bool]], elements: Sequence[int], names: Sequence[str]
    ) -> Layout | None:
        if not chosen:
            return None
        chosen.sort(key=lambda i: owners[i][0])
        layers = np.asarray([owners[i][0] for i in chosen])
        begins = np.flatnonzero(np.r_[True, layers[1:] != layers[:-1]])
        sizes = np.add.reduceat(np.asarray([elements[i] for i in chosen], dtype=np.float64), begins)
        return cls(tuple(names[layers[i]] for i in begins), np.asarray(chosen), begins, sizes)

    def sums(self, values: Floats) -> Floats:
        """``(..., parameters)`` added up by layer, ``(..., layers)``."""
        found: Floats = np.add.reduceat(values[..., self.order], self.begins, axis=-1)
        return found

    def norms(self, values: Floats) -> Floats:
        """Norms of parameters as norms of layers."""
        return np.sqrt(self.sums(np.square(values)))

    def largest(self, values: Floats) -> Floats:
        """The largest by layer; NaN stays NaN."""
        found: Floats = np.maximum.reduceat(values[..., self.order], self.begins, axis=-1)
        return found


class ParameterTable:
    """All parameters of some modules, each with its layer; those of lazy modules from their first forward on."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.layers: list[str] = []
        self._owners: dict[nn.Parameter, tuple[int, bool]] = {}
        self._parts: dict[nn.Parameter, Part] = {}
        self._places: dict[int, Places] = {}
        self._layouts: dict[tuple[int, ...], Layout] = {}
        known: dict[str, int] = {}
        for name, module in modules.items():
            own = {k: p for k, p in module.named_parameters(recurse=False) if p not in self._owners}
            if not own:
                continue
            layer, tensor = owner_of(name or type(module).__name__)
            if layer not in known:
                known[layer] = len(self.layers)
                self.layers.append(layer)
            self._owners.update({p: (known[layer], "bias" in (tensor or key)) for key, p in own.items()})

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._owners)

    def owned(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Those of the parameters that belong to a layer here and have a shape and elements."""
        return [p for p in parameters if p in self._owners and not is_lazy(p) and p.numel() and is_readable(p)]

    def unreadable(self) -> list[tuple[str, str]]:
        """Layers with parameters whose values can't be measured, and of what type those are."""
        found = [p for p in self._owners if not is_lazy(p) and not is_readable(p)]
        return list(dict.fromkeys((self.layer_of(p), str(p.dtype).removeprefix("torch.")) for p in found))

    def part(self, parameter: nn.Parameter) -> Part:
        """What is known of an owned parameter."""
        part = self._parts.get(parameter)
        if part is None or part.elements != _reals(parameter):
            layer = self._owners[parameter][0]
            self._measure([p for p in self.owned(self._owners) if self._owners[p][0] == layer])
            part = self._parts[parameter]
        return part

    def _measure(self, parameters: Sequence[nn.Parameter]) -> None:
        """A layer's row has one sample for all its parameters, in proportion to their size."""
        total = sum(_reals(p) for p in parameters)
        for parameter in parameters:
            layer, is_bias = self._owners[parameter]
            elements = _reals(parameter)
            share = elements if total <= SAMPLE_SIZE else max(1, round(SAMPLE_SIZE * elements / total))
            self._parts[parameter] = Part(
                layer, is_bias, elements, self._places_of(share), self._places_of(SAMPLE_SIZE)
            )

    def _places_of(self, size: int) -> Places:
        if size not in self._places:
            self._places[size] = Places(size)
        return self._places[size]

    def layer_of(self, parameter: nn.Parameter) -> str:
        """The layer that a parameter belongs to."""
        return self.layers[self._owners[parameter][0]]

    def is_bias(self, parameter: nn.Parameter) -> bool:
        """Whether it is called a bias."""
        return self._owners[parameter][1]

    def layout(self, parameters: Sequence[nn.Parameter]) -> Layout:
        """How values of these parameters are put together by layer; the same object for the same parameters."""
        key = tuple(map(id, parameters))
        known = self._layouts.get(key)
        if known is None:
            if len(self._layouts) >= MOST_LAYOUTS:
                self._layouts.clear()
            owners = [self._owners[parameter] for parameter in parameters]
            known = self._layouts[key] = Layout.of(owners, [_reals(p) for p in parameters], self.layers)
        return known


def is_readable(parameter: torch.Tensor) -> bool:
    """Whether it holds numbers to reckon with: neither integers nor eight-bit ones."""
    return (parameter.is_floating_point() and parameter.itemsize > 1) or parameter.is_complex()


def owner_of(name: str) -> tuple[str, str]:
    """The layer that a module's parameters count for, and the tensor there that a parametrisation stands for."""
    layer, inside, tensor = name.partition(INSIDE)
    return (layer, tensor.partition(".")[0]) if inside else (name, "")


def _reals(parameter: torch.Tensor) -> int:
    return parameter.numel() * (2 if parameter.is_complex() else 1)
