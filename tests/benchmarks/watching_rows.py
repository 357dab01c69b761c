"""What the benchmark of watching compares: four models, and ways to train them with and without a look at the layers.

Every way is made anew from the same seed. All of them read ``loss.item()`` at each step, as the reference loop does.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from nbdebug import Debugger, Trainer
from nbdebug.training.guard import Guard
from nbdebug.training.update import out_of_modes

Batch = tuple[torch.Tensor, torch.Tensor]
Task = tuple[nn.Module, list[Batch]]
BATCHES = 20


class Way(Protocol):
    """One way to train, warm and ready for more."""

    def run(self, steps: int) -> None:
        """Train on."""

    def samples(self) -> int:
        """Steps whose layers were looked at so far."""

    def close(self) -> None:
        """Leave nothing behind."""


# -- models -----------------------------------------------------------------------------------------------------------


def tiny() -> Task:
    """17 thousand parameters."""
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, [(torch.randn(16, 64), torch.randint(0, 10, (16,))) for _ in range(BATCHES)]


def mlp() -> Task:
    """0.8 million parameters."""
    widths = (784, 640, 384, 128, 10)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), [(torch.randn(128, 784), torch.randint(0, 10, (128,))) for _ in range(BATCHES)]


class Block(nn.Module):
    """Two convolutions and a short cut, as for CIFAR-10 (He et al. 2016)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = after // before
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return self.relu2(out + x)


def resnet() -> Task:
    """ResNet-20, 0.27 million parameters, on images of 32 by 32."""
    widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = [Block(before, after) for before, after in pairwise(widths)]
    model = nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return model, [(torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))) for _ in range(BATCHES)]


class DecoderLayer(nn.Module):
    """Attention to what came before, and a perceptron, each around a short cut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        split = self.mix(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*split.unbind(), is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(self.act(self.up(self.norm2(x))))


class Gpt(nn.Module):
    """A small decoder, 2.7 million parameters."""

    def __init__(self, words: int = 65, width: int = 192, length: int = 128) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(DecoderLayer(width, 6) for _ in range(6)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.words(x) + self.places.weight[: x.shape[1]]
        return self.head(self.norm(self.layers(x))).flatten(0, 1)


def gpt() -> Task:
    """On texts of 128 characters."""
    texts = [torch.randint(0, 65, (6, 129)) for _ in range(BATCHES)]
    return Gpt(), [(text[:, :-1], text[:, 1:].flatten()) for text in texts]


MODELS: dict[str, Callable[[], Task]] = {"tiny": tiny, "MLP": mlp, "ResNet-20": resnet, "GPT": gpt}


def made(name: str) -> Task:
    """The same each time."""
    torch.manual_seed(0)
    return MODELS[name]()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 1e-4)


# -- ways to train ----------------------------------------------------------------------------------------------------


class Plain:
    """The plain loop; ``record`` is called after each backward."""

    def __init__(self, model_name: str) -> None:
        self.model, batches = made(model_name)
        self.optimizer = optimizer_of(self.model)
        self.batches: Iterator[Batch] = cycle(batches)
        self.steps = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            x, y = next(self.batches)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.record()
            self.optimizer.step()
            self.told(loss.item())
            self.steps += 1

    def record(self) -> None:
        """Nothing."""

    def told(self, loss: float) -> None:
        """Nobody listens."""

    def samples(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing was opened."""


class Checked(Plain):
    """The finite check alone: gradients before each update, a part of weights and optimizer state after each step."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        data: list[Batch] = [next(self.batches)]
        self.guard = Guard(self.model, Trainer(self.optimizer, F.cross_entropy, data))
        self.guard.begin()
        self.guard.armed = True

    def record(self) -> None:
        self.guard.begin_step()
        with out_of_modes(), torch.no_grad():
            self.guard.glance(self.optimizer)

    def told(self, loss: float) -> None:
        assert self.guard.after_step(loss, skipped=False) is None


class Recipe(Plain):
    """What forums advise: mean and largest |g| of every parameter, read one by one; nothing else."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.found: list[list[tuple[float, float]]] = []

    def record(self) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.found.append([(g.abs().mean().item(), g.abs().max().item()) for g in gradients])

    def samples(self) -> int:
        return self.steps


class TensorBoard(Plain):
    """Histograms of weights, gradients and activations at each step, written to a file."""

    def __init__(self, model_name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(model_name)
        self.folder = tempfile.mkdtemp()
        self.writer = SummaryWriter(self.folder)
        self.handles: list[RemovableHandle] = [
            module.register_forward_hook(self.after(name))
            for name, module in self.model.named_modules()
            if not list(module.children()) and not isinstance(module, nn.Flatten)
        ]

    def after(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            self.writer.add_histogram(f"activations/{name}", output.detach(), self.steps)

        return hook

    def record(self) -> None:
        for name, parameter in self.model.named_parameters():
            self.writer.add_histogram(f"weights/{name}", parameter.detach(), self.steps)
            assert parameter.grad is not None
            self.writer.add_histogram(f"gradients/{name}", parameter.grad, self.steps)

    def told(self, loss: float) -> None:
        self.writer.add_scalar("loss", loss, self.steps)

    def samples(self) -> int:
        return self.steps

    def close(self) -> None:
        self.writer.close()
        shutil.rmtree(self.folder)


class Wandb(Plain):
    """``wandb.watch`` at each step: histograms of gradients and weights, no activations. Offline."""

    def __init__(self, model_name: str) -> None:
        import wandb

        super().__init__(model_name)
        self.folder = tempfile.mkdtemp()
        settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
        self.writer: Any = wandb.init(mode="offline", dir=self.folder, project="watching", settings=settings)
        self.writer.watch(self.model, log="all", log_freq=1)

    def told(self, loss: float) -> None:
        self.writer.log({"loss": loss})

    def samples(self) -> int:
        return self.steps

    def close(self) -> None:
        self.writer.finish()
        shutil.rmtree(self.folder)


class Watched:
    """nbdebug as installed: journal on disk, snapshots as they come."""

    def __init__(self, model_name: str, **options: Any) -> None:
        model, batches = made(model_name)
        self.folder = tempfile.mkdtemp()
        trainer = Trainer(optimizer_of(model), F.cross_entropy, batches)
        self.debugger = Debugger(model, trainer, journal=Path(self.folder), **options)

    def run(self, steps: int) -> None:
        self.debugger.run(steps=steps)

    def samples(self) -> int:
        return self.debugger.cost.samples

    def close(self) -> None:
        self.debugger.close()
        shutil.rmtree(self.folder)


BUDGETED = "nbdebug normal, default budget"
WAYS: dict[str, Callable[[str], Way]] = {
    "plain loop again": Plain,
    "the finite check alone": Checked,
    "nbdebug light": lambda name: Watched(name, budget=None, probes="light"),
    "nbdebug normal": lambda name: Watched(name, budget=None, probes="normal"),
    "nbdebug deep": lambda name: Watched(name, budget=None, probes="deep"),
    BUDGETED: Watched,
    "forum recipe": Recipe,
    "wandb.watch": Wandb,
    "TensorBoard histograms": TensorBoard,
}
NEEDS = {"wandb.watch": "wandb", "TensorBoard histograms": "tensorboard"}
# the cheapest peer that records as much: gradients in numbers, or distributions with activations as well
PEERS = {
    "nbdebug light": "forum recipe",
    "nbdebug normal": "TensorBoard histograms",
    "nbdebug deep": "TensorBoard histograms",
    BUDGETED: "TensorBoard histograms",
}


def installed(way: str) -> bool:
    """Whether the library that a peer needs is there."""
    return way not in NEEDS or importlib.util.find_spec(NEEDS[way]) is not None
