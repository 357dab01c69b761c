"""Activation histograms: what each layer puts out, signed, on a range that adapts. Sampled; training thread only.

Up to 4,096 elements of each output are taken inside the hook (later layers may overwrite the rest in place) and binned
together at the step's end. The range of a layer is [-2^k, 2^k] with the smallest k that holds its sample.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nbdebug.probes.hooks import HookSet
from nbdebug.probes.sampling import SAMPLE_SIZE, first_tensor, strided_sample
from nbdebug.records.frames import Activations, Floats
from nbdebug.records.signals import Signal

BINS = 64
MAX_CALLS = 8


class ActivationsProbe:
    """Hooks on the layers whose outputs tell something, there only during sampled steps."""

    name = "activations"
    signals = (Signal.ACTIVATIONS,)

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        hidden = _within_compiled(modules)
        telling = {name: m for name, m in modules.items() if m not in hidden and _is_telling(m)}
        self._modules = {name or type(m).__name__: m for name, m in telling.items()}
        self._hooks = HookSet()
        self._samples: dict[str, list[torch.Tensor]] = {}
        self._thread = 0
        self._turn = 0

    @property
    def hook_seconds(self) -> float:
        """What the hooks of the present step took within the model's forward."""
        return self._hooks.seconds

    def begin(self, turn: int) -> None:
        """Put the hooks on for this step."""
        self._turn = turn
        self._hooks.seconds = 0.0
        self._thread = threading.get_ident()
        for name, module in self._modules.items():
            self._hooks.add(module, self._hook(name))

    def unhook(self) -> None:
        """Take the hooks off; what they saw is kept."""
        self._hooks.remove()

    def finish(self) -> list[torch.Tensor]:
        """Histograms and moments of all layers seen, one tensor ``(layers, BINS + 4)``."""
        self._hooks.remove()
        if self._hooks.error is not None:
            raise self._hooks.error
        if not self._samples:
            return []
        return [_histograms([_merged(calls) for calls in self._samples.values()])]

    def read(self, arrays: list[Floats]) -> Activations | None:
        """The record, from what :meth:`finish` gave once it is on the host; ``None`` if no layer was seen."""
        layers = tuple(self._samples)
        if not arrays:
            return None
        table = arrays[0]
        limit, mean, std, non_finite = table[:, BINS:].T.copy()
        return Activations(layers, table[:, :BINS].copy(), limit, mean, std, non_finite)

    def drop(self) -> None:
        """Take the hooks off and let go of all tensors."""
        self._hooks.remove()
        self._samples.clear()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() != self._thread or _recomputing():
                return
            tensor = first_tensor(output)
            calls = self._samples.get(name, [])
            if tensor is not None and len(calls) < MAX_CALLS:
                self._samples[name] = calls
                calls.append(strided_sample(tensor, self._turn))

        return hook


def _is_telling(module: nn.Module) -> bool:
    """Layers with parameters, activation functions, and modules of the user's own that hold no others."""
    if next(module.parameters(recurse=False), None) is not None:
        return True
    home = type(module).__module__
    is_leaf = next(module.children(), None) is None
    return is_leaf and (home == "torch.nn.modules.activation" or not home.startswith("torch.nn."))


def _within_compiled(modules: Mapping[str, nn.Module]) -> set[nn.Module]:
    """Modules whose calls are compiled or scripted: their hooks would not fire, would be traced, or are refused."""
    hidden: set[nn.Module] = set()
    for module in modules.values():
        inside = getattr(module, "_orig_mod", None)
        if isinstance(inside, nn.Module):
            hidden.update(inside.modules())
        if getattr(module, "_compiled_call_impl", None) is not None or isinstance(module, torch.jit.ScriptModule):
            hidden.update(module.modules())
    return hidden


def _recomputing() -> bool:
    """Whether autograd is at work: activation checkpointing runs a forward again within the backward."""
    return torch._C._current_graph_task_id() != -1


def _merged(calls: list[torch.Tensor]) -> torch.Tensor:
    if len(calls) == 1:
        return calls[0]
    together = torch.cat(calls)
    return together[:: -(-len(together) // SAMPLE_SIZE)]


def _histograms(samples: list[torch.Tensor]) -> torch.Tensor:
    """Per row: BINS counts, then limit, mean, standard deviation and the share that is not finite."""
    device = samples[0].device
    table = torch.nn.utils.rnn.pad_sequence([s.to(device) for s in samples], batch_first=True, padding_value=0.0)
    lengths = torch.tensor([len(s) for s in samples], device=device)
    present = torch.arange(table.shape[1], device=device) < lengths[:, None]
    finite = torch.isfinite(table) & present
    count = finite.sum(1).clamp(min=1)
    values = torch.where(finite, table, 0.0)
    mean = values.sum(1) / count
    spread = torch.where(finite, values - mean[:, None], 0.0)
    std = (spread.square().sum(1) / count).sqrt()
    largest = values.abs().amax(1).clamp(min=1e-30)
    limit = torch.exp2(torch.ceil(torch.log2(largest)))
    position = ((values / limit[:, None] + 1) * (BINS / 2)).long().clamp(0, BINS - 1)
    rows = torch.arange(len(samples), device=device)[:, None] * BINS
    counts = torch.zeros(len(samples) * BINS, device=device)
    counts.scatter_add_(0, (position + rows).view(-1), finite.to(counts.dtype).view(-1))
    non_finite = 1 - finite.sum(1) / lengths
    moments = torch.stack([limit, mean, std, non_finite], dim=1)
    return torch.cat([counts.view(len(samples), BINS), moments], dim=1)
