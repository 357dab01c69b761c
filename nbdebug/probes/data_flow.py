"""What goes into the model and comes out: values of the tensors at its border. Sampled steps; training thread only.

They are named by place or key: ``input``, ``input.1``, ``input.mask``, ``output``, ``output.logits``; with several
networks, behind the network's name. Smallest and largest values are exact, the rest comes from up to 4,096 elements of
each. Integers, such as tokens or bytes, count as numbers here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nbdebug.probes.hooks import HookSet
from nbdebug.probes.outputs import named_tensors, plain, why_unreadable
from nbdebug.probes.probe import Column, Floats, Reading
from nbdebug.probes.sample_rows import Pool, SampleRows
from nbdebug.probes.visibility import SCRIPTED, roots
from nbdebug.records.layers import Unseen
from nbdebug.records.signals import Signal

MAX_CALLS = 8
MOST_NAMES = 8
WHAT = "data"
NOT_CALLED = "was not called as a module in the step"


class DataProbe:
    """Hooks on the networks themselves, there only during sampled steps. ``modules`` are all by dotted name."""

    name = "data"
    signals: tuple[Signal, ...] = (
        Signal.DATA_MEAN,
        Signal.DATA_STD,
        Signal.DATA_MIN,
        Signal.DATA_MAX,
        Signal.DATA_NON_FINITE,
        Signal.DATA,
    )

    def __init__(self, modules: Mapping[str, nn.Module], *, pool: Pool | None = None) -> None:
        tops = roots(modules)
        self._networks = {n: m for n, m in tops.items() if not isinstance(m, torch.jit.ScriptModule)}
        self._scripted = [n for n in tops if n not in self._networks]
        self._hooks = HookSet()
        self._rows = SampleRows(pool=pool)
        self._extremes: dict[str, list[torch.Tensor]] = {}
        self._read_order: list[list[str]] = []
        self._calls: dict[tuple[str, str], int] = {}
        self._called: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._sampled = False

    @property
    def hook_s(self) -> float:
        """Seconds that the hooks of this step took around the model's forward."""
        return self._hooks.seconds

    @property
    def size_bytes(self) -> int:
        """What is held between samples."""
        return self._rows.size_bytes

    def begin(self, step: int) -> None:
        """Put the hooks on for this step."""
        self.drop()
        self._hooks.begin()
        self._rows.clear(step)
        for name, module in self._networks.items():
            self._hooks.add_before_call(name, module, self._goes_in)
            self._hooks.add_after_call(name, module, self._comes_out)

    def unhook(self) -> None:
        """Take the hooks off; what they saw is kept."""
        self._hooks.remove()

    def finish(self) -> list[torch.Tensor]:
        """Per device smallest and largest values, ``(tensors, 2)``; then the samples, reduced."""
        self._hooks.remove()
        if self._hooks.error is not None:
            raise self._hooks.error
        self._sampled = True
        by_device: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
        for name, pairs in self._extremes.items():
            for pair in pairs:
                by_device.setdefault(pair.device, []).append((name, pair))
        self._read_order = [[name for name, _ in found] for found in by_device.values()]
        self._extremes.clear()
        return [torch.stack([pair for _, pair in found]) for found in by_device.values()] + self._rows.reduce()

    def read(self, arrays: list[Floats]) -> Reading:
        """The finding, from what :meth:`finish` gave once it is on the host."""
        if not self._read_order:
            return Reading()
        low: dict[str, float] = {}
        high: dict[str, float] = {}
        count = len(self._read_order)
        for names, pairs in zip(self._read_order, arrays[:count], strict=True):
            for name, pair in zip(names, pairs, strict=True):
                low[name] = float(np.minimum(low.get(name, pair[0]), pair[0]))
                high[name] = float(np.maximum(high.get(name, pair[1]), pair[1]))
        found = self._rows.read(arrays[count:])
        smallest, largest = (np.array([ends[key] for key in found.keys]) for ends in (low, high))
        # An extreme tells of a single NaN or inf that the sample missed.
        missed = (found.non_finite == 0) & ~(np.isfinite(smallest) & np.isfinite(largest))
        non_finite = np.where(missed, 1 / found.elements, found.non_finite)
        columns = {
            Signal.DATA_MEAN: found.mean,
            Signal.DATA_STD: found.std,
            Signal.DATA_MIN: smallest,
            Signal.DATA_MAX: largest,
            Signal.DATA_NON_FINITE: non_finite,
        }
        reading = Reading([Column(signal, found.keys, values) for signal, values in columns.items()])
        reading.histograms.append(found.histograms(Signal.DATA))
        return reading

    def drop(self) -> None:
        """Take the hooks off and let go of all tensors."""
        self._hooks.remove()
        self._hooks.error = None
        self._rows.clear()
        self._extremes.clear()
        self._calls.clear()

    def unseen(self) -> list[Unseen]:
        """Networks and tensors that can't be looked at, and why."""
        found = [Unseen(name, WHAT, SCRIPTED) for name in self._scripted]
        found += [Unseen(name, WHAT, why) for name, why in self._reasons.items()]
        if self._sampled:
            found += [Unseen(name, WHAT, NOT_CALLED) for name in self._networks if name not in self._called]
        return found

    def _goes_in(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._called.add(name)
        inside = [*named_tensors(args, "input")]
        inside += [found for key, value in kwargs.items() for found in named_tensors(value, f"input.{key}")]
        self._note(name, "input", inside)

    def _comes_out(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._note(name, "output", named_tensors(output, "output"))

    def _note(self, network: str, side: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        calls = self._calls[network, side] = self._calls.get((network, side), 0) + 1
        if calls > MAX_CALLS:
            return
        for found, (place, tensor) in enumerate(tensors):
            if found == MOST_NAMES:
                return
            self._take(f"{network}.{place}" if network else place, plain(tensor))

    def _take(self, name: str, tensor: torch.Tensor) -> None:
        why = why_unreadable(tensor, integers=True)
        if why:
            self._reasons[name] = why.replace("its output", "it")
            return
        self._reasons.pop(name, None)
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        if tensor.dtype is torch.bool:
            tensor = tensor.to(torch.uint8)
        wide = torch.float32 if tensor.device.type == "mps" else torch.float64
        self._extremes.setdefault(name, []).append(torch.stack(torch.aminmax(tensor)).to(wide))
        self._rows.add(name, tensor)
