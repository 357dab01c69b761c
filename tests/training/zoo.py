"""Small models of many kinds, each with data, for comparing training with and without nbdebug."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class Case:
    """A model and how to train it, freshly made from a seed."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: Any
    train_loader: Any
    val_loader: Any


class FrozenNormCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(0.3)
        self.head = nn.Linear(8, 5)
        self.bn1.eval()
        for parameter in self.bn1.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        x = self.drop(F.relu(self.bn2(self.conv2(x)), inplace=True))
        return self.head(x.mean((2, 3)))


class LstmTagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.lstm = nn.LSTM(12, 16, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.lstm(self.embed(x))
        return self.head(out[:, -1])


class TinyTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class SharedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(10, 10)
        self.act = nn.Tanh()
        self.head = nn.Linear(10, 5)
        self.noise = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.act(self.inner(x))
        return self.head(self.noise(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 5))


def in_place_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(inplace=True), nn.Linear(32, 32), nn.ELU(inplace=True),
                         nn.Linear(32, 5))  # fmt: skip


INPUTS: dict[str, Callable[[int], torch.Tensor]] = {
    "vector": lambda n: torch.randn(n, 10),
    "image": lambda n: torch.randn(n, 1, 8, 8),
    "tokens": lambda n: torch.randint(0, 20, (n, 7)),
}

MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mlp": (mlp, "vector"),
    "mlp in place": (in_place_mlp, "vector"),
    "cnn, frozen norm, dropout": (FrozenNormCnn, "image"),
    "lstm": (LstmTagger, "tokens"),
    "transformer": (TinyTransformer, "tokens"),
    "shared layer": (SharedLayer, "vector"),
}

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adamw fused": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3, history_size=4),
}


class Jittered(TensorDataset):
    """Data whose samples are augmented with draws from torch's global generator."""

    def __getitem__(self, index: Any) -> Any:
        x, y = super().__getitem__(index)
        return x + 0.01 * torch.randn_like(x) if x.is_floating_point() else x, y


def make(
    name: str, optimizer: str = "adam", *, seed: int = 0, workers: int = 0, samples: int = 200, jitter: bool = False
) -> Case:
    """The named model with shuffled data; the same seed makes the same case and leaves the same random state."""
    torch.manual_seed(seed)
    build, kind = MODELS[name]
    model = build()
    inputs, target = INPUTS[kind](samples), torch.randint(0, 5, (samples,))
    data = (Jittered if jitter else TensorDataset)(inputs, target)
    held_out = TensorDataset(INPUTS[kind](40), torch.randint(0, 5, (40,)))
    return Case(
        model,
        OPTIMIZERS[optimizer]([p for p in model.parameters() if p.requires_grad]),
        F.cross_entropy,
        DataLoader(data, batch_size=10, shuffle=True, num_workers=workers),
        DataLoader(held_out, batch_size=20),
    )
