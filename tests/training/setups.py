"""Ways to train, each with something that going back has to bring back: for the tests of time travel.

Every set-up is made anew from seeds, in this process or in another one: ``SETUPS[name]()``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

from nbdebug import Trainer
from tests.training import zoo
from tests.training.test_knobs import SCHEDULERS


@dataclass
class Setup:
    """A model with its trainer, and what else must come back besides weights and optimizers."""

    model: Any
    trainer: Trainer
    others: dict[str, Callable[[], Any]] = field(default_factory=dict)


def plain(optimizer: str = "adam", model: str = "cnn, frozen norm, dropout", **options: Any) -> Setup:
    case = zoo.make(model, optimizer, jitter=True, samples=100, **options)
    return Setup(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader))


def momentum() -> Setup:
    torch.manual_seed(1)
    case = zoo.make("cnn, frozen norm, dropout", "sgd", samples=100)
    return Setup(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader))


def scheduled(name: str, interval: str) -> Setup:
    case = zoo.make("mlp", "sgd", samples=100)
    build = {**SCHEDULERS, "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=200)}[name]
    scheduler = build(case.optimizer)
    trainer = Trainer(
        case.optimizer, case.loss_fn, case.train_loader, case.val_loader,
        scheduler=scheduler, scheduler_interval=interval,
    )  # fmt: skip
    return Setup(case.model, trainer, {"schedule": lambda: repr(scheduler.state_dict())})


def with_loader(loader: Any, *, seed: int = 0, **others: Callable[[], Any]) -> Setup:
    torch.manual_seed(seed)
    model = zoo.mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    return Setup(model, Trainer(optimizer, F.cross_entropy, loader), others)


def data(size: int = 100) -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randn(size, 10, generator=generator), torch.randint(0, 5, (size,), generator=generator))


class Shuffled(Sampler[int]):
    """A sampler with a numpy generator of its own."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.generator = np.random.default_rng(3)

    def __iter__(self) -> Iterator[int]:
        return iter(self.generator.permutation(self.size).tolist())

    def __len__(self) -> int:
        return self.size


class Epochal(Sampler[int]):
    """A sampler that counts its epochs, and says so in its state."""

    def __init__(self, size: int) -> None:
        self.size, self.epoch = size, 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(self.size).tolist())

    def __len__(self) -> int:
        return self.size

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]


class Stream(IterableDataset[Any]):
    """A stream that never begins anew: each epoch goes on where the last one ended. Its state says where."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        for _ in range(60):
            self.position += 1
            noise = np.random.default_rng(self.position)
            yield torch.from_numpy(noise.standard_normal(10, dtype=np.float32)), int(noise.integers(5))

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class Augmented(TensorDataset):
    """Draws from Python's, numpy's and torch's global generators."""

    def __getitem__(self, index: Any) -> Any:
        x, y = super().__getitem__(index)
        return x + 0.1 * random.random() + 0.1 * float(np.random.rand()) + 0.01 * torch.randn_like(x), y


class Noisy:
    """A loader of one's own with a generator, of no known length."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(9)

    def __iter__(self) -> Iterator[Any]:
        for _ in range(8):
            yield torch.randn(6, 10, generator=self.generator), torch.randint(0, 5, (6,), generator=self.generator)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class Count:
    """A counter that training depends on, to be named in ``state``."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def accumulating() -> Setup:
    case, count = zoo.make("mlp", "adam", samples=100), Count()

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = loss_fn(model(batch[0]), batch[1])
        (loss / 3).backward()
        count.value += 1
        if count.value % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader, step=step, state={"n": count})
    return Setup(case.model, trainer, {"count": lambda: count.value})


def mixed_precision() -> Setup:
    case = zoo.make("mlp", "sgd", samples=100)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=7)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_fn(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.float()

    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, step=step, state={"scaler": scaler})
    return Setup(case.model, trainer, {"scale": scaler.get_scale})


def averaging() -> Setup:
    case = zoo.make("cnn, frozen norm, dropout", "adam", samples=100)
    average = torch.optim.swa_utils.AveragedModel(
        case.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        return loss

    trainer = Trainer(
        case.optimizer, case.loss_fn, case.train_loader, case.val_loader, step=step, state={"ema": average}
    )
    return Setup(case.model, trainer, {"average": lambda: [t.tolist() for t in average.state_dict().values()]})


def adversarial() -> Setup:
    torch.manual_seed(2)
    nets = {"g": nn.Linear(4, 10), "d": nn.Sequential(nn.Linear(10, 8), nn.Dropout(0.2), nn.Linear(8, 1))}
    optimizers = {name: torch.optim.Adam(net.parameters(), 1e-3) for name, net in nets.items()}

    def step(models: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        made = models["g"](torch.randn(len(batch[0]), 4))
        for name, sample, sign in (("d", made.detach(), 1), ("d", batch[0], -1), ("g", made, -1)):
            optimizers[name].zero_grad()
            loss = F.softplus(sign * models["d"](sample)).mean()
            loss.backward()
            optimizers[name].step()
        return loss

    loader = DataLoader(data(), batch_size=10, shuffle=True)
    return Setup(nn.ModuleDict(nets), Trainer(optimizers, None, loader, step=step))


def loaders() -> dict[str, Callable[[], Setup]]:
    """Set-ups that differ in their data."""

    def own_generator() -> Setup:
        return with_loader(DataLoader(data(), 10, shuffle=True, generator=torch.Generator().manual_seed(3)))

    def batches_of_ones_own() -> Setup:
        loader = Noisy()
        return with_loader(loader, place=lambda: loader.generator.get_state().tolist())

    return {
        "own generator": own_generator,
        "own sampler with numpy's generator": lambda: with_loader(DataLoader(data(), 10, sampler=Shuffled(100))),
        "own sampler with a state": lambda: with_loader(DataLoader(data(), 10, sampler=Epochal(100))),
        "iterable dataset with a state": lambda: with_loader(DataLoader(Stream(), 6)),
        "own loader with a state and no length": batches_of_ones_own,
        "draws from all global generators": lambda: with_loader(
            DataLoader(Augmented(*data().tensors), 10, shuffle=True)
        ),
        "a list of batches": lambda: with_loader([(x, y) for x, y in DataLoader(data(), 10)]),
    }


SETUPS: dict[str, Callable[[], Setup]] = {
    "sgd, momentum, batch norm, dropout": momentum,
    "adam, augmentation": plain,
    "adamw fused": lambda: plain("adamw fused"),
    "rmsprop, lstm": lambda: plain("rmsprop", "lstm"),
    "lbfgs": lambda: plain("lbfgs", "mlp"),
    "transformer": lambda: plain("adam", "transformer"),
    "1 worker": lambda: plain("adam", "mlp", workers=1),
    "3 workers": lambda: plain("adam", "mlp", workers=3),
    "accumulation": accumulating,
    "autocast and a scaler": mixed_precision,
    "moving average in state": averaging,
    "two networks": adversarial,
    **loaders(),
    **{f"{name} by batch": (lambda name=name: scheduled(name, "batch")) for name in SCHEDULERS},
    "cosine by epoch": lambda: scheduled("CosineAnnealingLR", "epoch"),
    "plateau by epoch": lambda: scheduled("ReduceLROnPlateau", "epoch"),
}
