"""Which units are silent: exactly 0 for a whole batch. Exact, not sampled. Training thread only.

A unit is a channel behind a convolution, else a place of the last dimension. Units are judged at the outputs of
activation functions and of the user's own leaf modules, and at the inputs of linear and convolutional layers whose
input is not straight the output of a module (so ``F.relu`` counts too). Before a dropout module, what goes into it is
judged, since the zeros it plants are no sign of death.

A unit is dead once it was silent in all of the last 20 samples of its layer. This is said from the fifth sample on (of
those there are) and never on fewer than 128 values a unit: with small batches both windows are longer.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from nbdebug.probes.outputs import first_readable
from nbdebug.probes.visibility import is_activation, is_users_leaf

Floats = NDArray[np.float64]

WINDOW = 20
FIRST = 5
FEWEST_VALUES = 128
MOST_UNITS = 65_536
MANY_VALUES = 2048
NARROW = 32
LANES = 256

CHANNELLED = (_NormBase, nn.GroupNorm)
NEVER_SILENCED = (nn.Linear, _ConvNd, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LSTM, nn.GRU, nn.Embedding)
NEVER_ZERO = (nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)
NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6)


class Place(NamedTuple):
    """Where units are judged: at the output of a layer, or at its input."""

    layer: str
    is_input: bool


@dataclass(frozen=True, slots=True)
class Role:
    """What a module is for units. ``spatial`` is the number of a convolution's dimensions, -1 for other channels."""

    output: Place
    input: Place
    is_judged: bool
    never_negative: bool
    judges_input: bool
    is_known: bool
    channelled: bool
    spatial: int


def role_of(name: str, module: nn.Module) -> Role:
    """The role, by the module's type."""
    judged = (is_activation(module) and not isinstance(module, NEVER_ZERO)) or is_users_leaf(module)
    is_conv = isinstance(module, _ConvNd)
    return Role(
        output=Place(name, False),
        input=Place(name, True),
        is_judged=judged,
        never_negative=type(module) in NEVER_NEGATIVE,
        judges_input=is_conv or isinstance(module, nn.Linear),
        is_known=judged or isinstance(module, NEVER_SILENCED),
        channelled=is_conv or isinstance(module, CHANNELLED),
        spatial=len(module.kernel_size) if is_conv else -1,  # type: ignore[arg-type]
    )


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of units per place: silent in this sample, and dead (NaN where that is too early to say)."""

    places: list[Place]
    silent: list[float]
    dead: list[float]


@dataclass(slots=True)
class _Extremes:
    """Two values of each unit that are both 0 exactly where the unit is silent; and of how many values."""

    high: torch.Tensor
    low: torch.Tensor
    values: int

    def merged(self, other: _Extremes) -> _Extremes:
        """Both calls of a layer together."""
        high, low = torch.maximum(self.high, other.high), torch.minimum(self.low, other.low)
        return _Extremes(high, low, self.values + other.values)


@dataclass(slots=True)
class _Known:
    """A tensor whose units need no look: judged already, never silent, or behind a dropout that was looked before."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    extremes: _Extremes | None
    dropout: str


class Units:
    """Watches the units of all layers; :meth:`saw` and :meth:`dropped` are called from hooks."""

    def __init__(self) -> None:
        self._extremes: dict[Place, _Extremes] = {}
        self._known: dict[int, _Known] = {}
        self._roles: dict[str, Role] = {}
        self._tried: set[str] = set()
        self._asked: set[str] = set()
        self._fruitless: set[str] = set()
        self._axis = _Axis()
        self._counters: dict[torch.device, _Counters] = {}
        self._read_order: list[tuple[_Counters, dict[Place, int]]] = []

    @property
    def size_bytes(self) -> int:
        """What the counters hold between steps."""
        return sum(counters.size_bytes for counters in self._counters.values())

    def clear(self) -> None:
        """A step begins, or broke off; what was counted over steps stays."""
        self._extremes.clear()
        self._known.clear()
        self._tried.clear()
        self._axis = _Axis()

    def saw(self, name: str, module: nn.Module, args: Any, output: Any, tensor: torch.Tensor) -> None:
        """A layer was called; ``tensor`` is the readable part of its output."""
        role = self._roles.get(name)
        if role is None:
            role = self._roles[name] = role_of(name, module)
        if role.judges_input:
            self._judge_input(module, role, args)
        if role.is_judged:
            axis = self._axis.of(tensor)
            if axis is not None:
                self._note(role.output, extremes(tensor, axis, never_negative=role.never_negative))
        else:
            self._axis.behind(role, tensor)
        if role.is_known and isinstance(output, torch.Tensor):
            self._remember(output)

    def dropped(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        """A dropout module was called: whoever takes its output is told of its input."""
        source = args[0] if args else None
        if not isinstance(source, torch.Tensor) or not isinstance(output, torch.Tensor):
            return
        if output is source:  # nothing was dropped, or in place
            if module.training or self._recall(source) is not None:
                self._remember(output)
            return
        tensor = first_readable(source)
        axis = self._axis.of(tensor) if isinstance(tensor, torch.Tensor) else None
        if self._recall(source) is not None or name in self._fruitless or isinstance(tensor, str) or axis is None:
            self._remember(output)
        else:
            self._tried.add(name)
            self._remember(output, extremes(tensor, axis), name)

    def _judge_input(self, module: nn.Module, role: Role, args: Any) -> None:
        source = args[0] if args else None
        if not isinstance(source, torch.Tensor):
            return
        known = self._recall(source)
        if known is not None:
            self._asked.add(known.dropout)
            if known.extremes is not None and len(known.extremes.high) == _width(module):
                self._note(role.input, known.extremes)
            return
        tensor = first_readable(source)
        if isinstance(tensor, torch.Tensor):
            axis = -1 - role.spatial if role.channelled else -1
            if tensor.dim() >= 2 and tensor.dim() + axis >= 0 and tensor.shape[axis] == _width(module):
                self._note(role.input, extremes(tensor, axis))

    def _remember(self, tensor: torch.Tensor, found: _Extremes | None = None, dropout: str = "") -> None:
        self._known[id(tensor)] = _Known(weakref.ref(tensor), _version(tensor), found, dropout)

    def _recall(self, tensor: torch.Tensor) -> _Known | None:
        """What is known of the tensor, unless it was changed in place since."""
        known = self._known.get(id(tensor))
        if known is None or known.tensor() is not tensor or known.version != _version(tensor):
            return None
        return known

    def _note(self, place: Place, found: _Extremes | None) -> None:
        if found is None:
            return
        present = self._extremes.get(place)
        if present is None:
            self._extremes[place] = found
        elif len(present.high) == len(found.high) and present.high.device == found.high.device:
            self._extremes[place] = present.merged(found)

    def finish(self) -> list[torch.Tensor]:
        """Per device, the numbers of silent and of dead units: ``(places, 2)``."""
        by_device: dict[torch.device, dict[Place, _Extremes]] = {}
        for place, found in self._extremes.items():
            by_device.setdefault(found.high.device, {})[place] = found
        self._read_order = []
        results = []
        for device, extremes_of in by_device.items():
            counters = self._counters.setdefault(device, _Counters())
            results.append(counters.count(extremes_of))
            self._read_order.append((counters, counters.layout))
        self._fruitless |= self._tried - self._asked  # no layer takes what comes out of these dropouts
        self.clear()
        return results

    def read(self, arrays: Sequence[Floats]) -> Shares:
        """What :meth:`finish` gave, once it is on the host."""
        shares = Shares([], [], [])
        for (counters, layout), counts in zip(self._read_order, arrays, strict=True):
            for (place, width), (silent, dead) in zip(layout.items(), counts, strict=True):
                shares.places.append(place)
                shares.silent.append(float(silent) / width)
                shares.dead.append(float(dead) / width if counters.is_telling(place) else np.nan)
        return shares


def _version(tensor: torch.Tensor) -> int:
    """Grows with each operation in place; inference tensors do not count them."""
    return 0 if tensor.is_inference() else int(tensor._version)


def _width(module: nn.Module) -> int:
    return int(module.in_channels if isinstance(module, _ConvNd) else module.in_features)  # type: ignore[arg-type]


@dataclass(slots=True)
class _Axis:
    """Which dimension holds the units, as the last layer with parameters had it."""

    channelled: bool | None = None
    dim: int = 0
    axis: int = -1

    def behind(self, role: Role, output: torch.Tensor) -> None:
        """A layer with parameters was called."""
        self.dim = output.dim()
        self.channelled = role.channelled
        spatial = role.spatial if role.spatial >= 0 else max(self.dim - 2, 0)
        self.axis = -1 - spatial if role.channelled else -1

    def of(self, tensor: torch.Tensor) -> int | None:
        """The dimension of a tensor, counted from the end; ``None`` if it has none for units."""
        dim = tensor.dim()
        if dim < 2:
            return None
        if self.channelled is None:
            return 1 - dim if dim >= 4 else -1
        if not self.channelled:
            return -1
        return self.axis if dim == self.dim else (1 - dim if dim >= 3 else -1)


def extremes(tensor: torch.Tensor, axis: int, *, never_negative: bool = False) -> _Extremes | None:
    """Largest and smallest value along all other dimensions; ``None`` for complex ones and for too many units.

    On the host, where looking at results waits for nothing, no more is read than it takes to see every unit active.
    """
    width = tensor.shape[axis]
    if not 0 < width <= MOST_UNITS or tensor.is_complex():
        return None
    values = tensor.numel() // width
    largest = torch.sum if never_negative else torch.amax  # where nothing is negative: 0 just where that is, and faster
    on_host = tensor.device.type == "cpu"
    if on_host and values >= MANY_VALUES and tensor.dim() + axis:
        high = _reduced(tensor.narrow(0, 0, 1 + tensor.shape[0] // 32), axis, largest)
        if high.all():
            return _Extremes(high, high, values)
    high = _reduced(tensor, axis, largest)
    if never_negative or (on_host and high.all()):
        return _Extremes(high, high, values)
    return _Extremes(high, _reduced(tensor, axis, torch.amin), values)


def _reduced(tensor: torch.Tensor, axis: int, reduce: Callable[..., torch.Tensor]) -> torch.Tensor:
    """The reduction along all dimensions but one, ``(units,)``."""
    contiguous = tensor.is_contiguous()
    last = tensor if axis == -1 or contiguous else tensor.movedim(axis, -1)
    if not last.is_contiguous() or (axis != -1 and contiguous):
        return reduce(tensor, [d for d in range(tensor.dim()) if d != tensor.dim() + axis])
    width = last.shape[-1]
    rows = last.view(-1, width)
    lanes = LANES // width
    if width < NARROW and len(rows) > lanes and len(rows) % lanes == 0:
        rows = reduce(rows.view(-1, lanes * width), 0).view(lanes, width)  # narrow rows take 20 times as long
    return reduce(rows, 0)


@dataclass(slots=True)
class _Counters:
    """For how many samples each unit has been silent, on one device; kept from step to step.

    ``silent_for`` and ``samples`` hold the units of the places in ``layout`` one after the other; what is not called in
    a step waits in ``aside``.
    """

    layout: dict[Place, int] = field(default_factory=dict)
    silent_for: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    window: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    samples: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    owners: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    aside: dict[Place, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    sampled: dict[Place, int] = field(default_factory=dict)
    values: dict[Place, int] = field(default_factory=dict)

    def count(self, found: Mapping[Place, _Extremes]) -> torch.Tensor:
        """Numbers of silent and of dead units, ``(places, 2)``."""
        layout = {place: len(one.high) for place, one in found.items()}
        if layout != self.layout:
            self._arrange(layout, found)
        high = torch.cat([one.high for one in found.values()])
        low = torch.cat([one.low for one in found.values()])
        silent = ((high == 0) & (low == 0)).to(torch.float32)
        self.silent_for.add_(1).mul_(silent)
        torch.minimum(self.samples.add_(1), self.window, out=self.samples)
        dead = (self.silent_for >= self.samples).to(torch.float32)
        for place in found:
            self.sampled[place] += 1
        counts = torch.zeros(len(found), 2, device=high.device)
        return counts.index_add_(0, self.owners, torch.stack([silent, dead], dim=1))

    @property
    def size_bytes(self) -> int:
        """What is held."""
        waiting = [tensor for pair in self.aside.values() for tensor in pair]
        return sum(t.nbytes for t in (self.silent_for, self.window, self.samples, self.owners, *waiting))

    def is_telling(self, place: Place) -> bool:
        """Whether enough samples of it were seen to call a unit dead."""
        return self.sampled[place] >= max(FIRST, self._fewest(place))

    def _fewest(self, place: Place) -> int:
        return math.ceil(FEWEST_VALUES / self.values[place])

    def _arrange(self, layout: dict[Place, int], found: Mapping[Place, _Extremes]) -> None:
        """Other layers than last time, or other widths: put counters in their order; new units start at 0."""
        device = next(iter(found.values())).high.device
        widths = list(self.layout.values())
        if widths:
            self.aside.update(
                zip(
                    self.layout,
                    zip(self.silent_for.split(widths), self.samples.split(widths), strict=True),
                    strict=True,
                )
            )
        parts, windows = [], []
        for place, width in layout.items():
            kept = self.aside.pop(place, None)
            if kept is None or len(kept[0]) != width:
                kept = torch.zeros(width, device=device), torch.zeros(width, device=device)
                self.sampled[place] = 0
            self.values.setdefault(place, found[place].values)
            parts.append(kept)
            windows.append(float(max(WINDOW, self._fewest(place))))
        sizes = torch.tensor(list(layout.values()))
        self.layout = layout
        self.silent_for, self.samples = (torch.cat(column) for column in zip(*parts, strict=True))
        self.window = torch.repeat_interleave(torch.tensor(windows), sizes).to(device)
        self.owners = torch.repeat_interleave(torch.arange(len(layout)), sizes).to(device)
