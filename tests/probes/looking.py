"""Small models of many kinds, and one sampled step of a probe, as the session would take it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from nbdebug.probes.probe import Reading
from nbdebug.records.signals import Signal


def names_of(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_modules())


def sample(probe: Any, run: Callable[[], Any], *, step: int = 1) -> Reading:
    """One sampled step; what ``run`` does is the user's step."""
    probe.begin(step)
    run()
    probe.unhook()
    arrays = [tensor.detach().cpu().to(torch.float64).numpy() for tensor in probe.finish()]
    reading = probe.read(arrays)
    probe.drop()
    return reading


def values(reading: Reading, signal: Signal) -> dict[str, float]:
    found: dict[str, float] = {}
    for column in reading.columns:
        if column.signal is signal:
            found.update(zip(column.layers, column.values.tolist(), strict=True))
    return found


def reasons(probe: Any) -> dict[str, str]:
    return {each.layer: each.why for each in probe.unseen()}


def hooks_on(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Puts back what a forward changes, and touches nothing that it left alone."""
    state = torch.get_rng_state()
    buffers = [(m, k, b, b.clone()) for m in module.modules() for k, b in m._buffers.items() if b is not None]
    plain = [(m, k, v) for m in module.modules() for k, v in vars(m).items() if not k.startswith("_")]
    try:
        yield
    finally:
        torch.set_rng_state(state)
        with torch.no_grad():
            for m, key, buffer, copied in buffers:
                m._buffers[key] = buffer
                if not torch.equal(buffer, copied):
                    buffer.copy_(copied)
        for m, key, value in plain:
            if vars(m).get(key) is not value:
                setattr(m, key, value)


def captured(model: nn.Module, run: Callable[[nn.Module], Any]) -> dict[str, torch.Tensor]:
    """The truth: what each module of a copy puts out, copied when it does; several calls one after the other."""
    twin = copy.deepcopy(model)
    found: dict[str, list[torch.Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            while not isinstance(output, torch.Tensor):
                if hasattr(output, "logits"):
                    output = output.logits
                else:
                    output = next(iter(output.values())) if isinstance(output, dict) else output[0]
            if torch._C._current_graph_task_id() == -1:
                found.setdefault(name, []).append(output.detach().clone().flatten())

        return hook

    for name, module in twin.named_modules():
        module.register_forward_hook(keep(name or type(module).__name__))
    run(twin)
    return {name: torch.cat(calls) for name, calls in found.items()}


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(torch.tanh(self.inner(x))))


class Outputs(nn.Module):
    """A layer of the user's own with parameters, and an output of some kind."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(x @ self.weight)


class Pair(NamedTuple):
    logits: torch.Tensor
    extra: torch.Tensor


@dataclass
class Record:
    note: str
    logits: torch.Tensor


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, torch.tensor([4, 3, 2]), batch_first=True)
        return self.gru(packed)[1].sum()


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(6))
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.body, self.first(x), use_reentrant=self.reentrant))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu_(self.bn1(self.conv1(x)))
        return F.relu(y + self.bn2(self.conv2(y)), inplace=True)


class Loops(nn.Module):
    """A cell that is called many times in a step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros_like(x)
        for _ in range(8):
            h = self.cell(x, h)
        return h


def vector() -> torch.Tensor:
    return torch.randn(5, 6)


def sequence() -> torch.Tensor:
    return torch.randn(3, 4, 6)


Case = tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], set[str]]

MODELS: dict[str, Case] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), vector, {"0", "1", "2"}),
    "in place": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3), nn.ELU(inplace=True)),
                 vector, {"0", "1", "2", "3"}),
    "residual cnn": (Residual, lambda: torch.randn(3, 2, 5, 5), {"conv1", "bn1", "conv2", "bn2"}),
    "channels last": (Residual, lambda: torch.randn(3, 2, 5, 5).to(memory_format=torch.channels_last),
                      {"conv1", "bn1", "conv2", "bn2"}),
    "layer used twice": (Twice, vector, {"inner", "head"}),
    "layer called eight times": (Loops, vector, {"cell"}),
    "tuple": (lambda: nn.Sequential(Outputs(lambda y: (y, [y + 1]))), vector, {"0"}),
    "named tuple": (lambda: nn.Sequential(Outputs(lambda y: Pair(y, y + 1))), vector, {"0"}),
    "dictionary": (lambda: nn.Sequential(Outputs(lambda y: {"logits": y, "mask": y > 0})), vector, {"0"}),
    "dataclass": (lambda: nn.Sequential(Outputs(lambda y: Record("a text", y))), vector, {"0"}),
    "lstm": (lambda: nn.Sequential(nn.LSTM(6, 5, 2, batch_first=True)), sequence, {"0"}),
    "packed gru": (Packed, sequence, {"gru"}),
    "attention": (Attends, sequence, {"attention"}),
    "checkpointing, reentrant": (lambda: Checkpointed(True), vector, {"first", "body.0", "body.1", "body.3", "head"}),
    "checkpointing": (lambda: Checkpointed(False), vector, {"first", "body.0", "body.1", "body.3", "head"}),
    "weight norm": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 3))), vector, {"0"}),
    "spectral norm": (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 3))), vector, {"0"}),
    "float64": (lambda: nn.Sequential(nn.Linear(6, 3).double()), lambda: vector().double(), {"0"}),
    "bfloat16": (lambda: nn.Sequential(nn.Linear(6, 3).bfloat16()), lambda: vector().bfloat16(), {"0"}),
    "own parameter at the root": (lambda: Outputs(lambda y: y), vector, {"Outputs"}),
    "transformer layer": (lambda: nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, 0.1, batch_first=True)), sequence,
                          {"0.self_attn", "0.linear1", "0.linear2", "0.norm1", "0.norm2"}),
}  # fmt: skip


def total(output: Any) -> torch.Tensor:
    """A loss of any output."""
    while not isinstance(output, torch.Tensor):
        if isinstance(output, dict):
            output = next(iter(output.values()))
        else:
            output = output.logits if hasattr(output, "logits") else output[0]
    return output.float().square().sum()


def moments(tensor: torch.Tensor) -> tuple[float, float, float]:
    numbers = tensor.double().numpy()
    return float(numbers.mean()), float(numbers.std()), float(np.mean(numbers == 0))
