"""The zoo, next house: odd weights, odd ways to call a layer, odd outputs; trained by the plain loop."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from tests.instruments.specimen import Case, Collection, adam, deprecated, images, labels, mlp, sgd, tokens, vectors

KINDS = Collection()


class Checkpointed(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.stem = nn.Linear(10, 16)
        self.body = nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(16, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.body, self.stem(x), **self.options))


CHECKPOINTED = {
    "seen": "stem body.0 body.1 body.3 head",
    "learning": "stem body.0 body.3 head",
    "findings": ("Nothing nonlinear between two layers",),  # stem and body.0
}


@KINDS.add("checkpointing, reentrant", **CHECKPOINTED)
def _() -> Case:
    model = Checkpointed(use_reentrant=True)
    return Case(model, adam(model), vectors())


@KINDS.add("checkpointing, not reentrant", **CHECKPOINTED)
def _() -> Case:
    model = Checkpointed(use_reentrant=False)
    return Case(model, adam(model), vectors())


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operation is torch.ops.aten.addmm.default
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


@KINDS.add("checkpointing, selective", **CHECKPOINTED)
def _() -> Case:
    model = Checkpointed(use_reentrant=False, context_fn=lambda: create_selective_checkpoint_contexts(_policy))
    model.body[1] = nn.ReLU()
    return Case(model, adam(model), vectors())


@KINDS.add("frozen parts, batch norm in eval mode", seen="0 1 2 5", learning="5", frozen="0 1")
def _() -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    )
    model[:2].requires_grad_(False)
    model[1].eval()
    return Case(model, adam(model), images())


class Symmetric(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu() + x.triu(1).T


def _parametrised(register: Any) -> Case:
    model = nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 5))
    register(model[0])
    return Case(model, adam(model), vectors())


PARAMETRISED = {"seen": "0 1 2", "learning": "0 2"}


@KINDS.add("weight norm", **PARAMETRISED)
def _() -> Case:
    return _parametrised(parametrizations.weight_norm)


@KINDS.add("spectral norm", **PARAMETRISED)
def _() -> Case:
    return _parametrised(parametrizations.spectral_norm)


@KINDS.add("spectral norm by a hook", **PARAMETRISED)
def _() -> Case:
    return _parametrised(torch.nn.utils.spectral_norm)


@KINDS.add("parametrisation of one's own", **PARAMETRISED)
def _() -> Case:
    return _parametrised(lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(self.embed(x)))).mean(1)


@KINDS.add("tied weights", seen="embed body head", learning="embed body")
def _() -> Case:
    model = Tied()
    return Case(model, adam(model), tokens())


@KINDS.add("lazy modules", seen="0 1 3", learning="0 3")
def _() -> Case:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    return Case(model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), images())


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(10, 8, dtype=torch.complex64)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x.to(torch.complex64)).abs())


@KINDS.add("complex weights", seen="inner head", learning="inner head")
def _() -> Case:
    model = Complex()
    return Case(model, adam(model), vectors())


@KINDS.add("float64", seen="0 1 3", learning="0 3")
def _() -> Case:
    model = mlp().double()
    return Case(model, adam(model), vectors(torch.float64))


@KINDS.add("bfloat16 weights", seen="0 1 3", learning="0 3")
def _() -> Case:
    model = mlp().bfloat16()
    return Case(model, adam(model), vectors(torch.bfloat16))


@KINDS.add("scripted part", seen="0 2", unseen={"1": "scripted"}, learning="0 1.0 1.2 2")
def _() -> Case:
    with deprecated():
        inner = torch.jit.script(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)))
    model = nn.Sequential(nn.Linear(10, 16), inner, nn.Linear(16, 5))
    return Case(model, adam(model), vectors())


class Rounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class Rounded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Rounding.apply(4 * x) / 4


@KINDS.add("autograd function of one's own", seen="0 1 2", learning="0 2")
def _() -> Case:
    model = nn.Sequential(nn.Linear(10, 16), Rounded(), nn.Linear(16, 5))
    return Case(model, adam(model), vectors())


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 5) / 3)
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.offset


@KINDS.add("parameters without modules", seen="Bare", learning="Bare")
def _() -> Case:
    model = Bare()
    return Case(model, sgd(model), vectors())


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(10, 5)
        self.spare = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


@KINDS.add("unused layer", seen="used", unseen={"spare": "not called"}, learning="used", missing="spare")
def _() -> Case:
    model = Unused()
    return Case(model, adam(model), vectors())


class StochasticDepth(nn.Module):
    """Skips layers at random, drawing from all three generators."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(10, 10) for _ in range(3))
        self.head = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        draws = (torch.rand(()).item(), np.random.rand(), random.random())
        for draw, layer in zip(draws, self.layers, strict=True):
            if draw > 0.4:
                x = x + torch.relu(layer(x))
        return self.head(x)


@KINDS.add("stochastic depth", seen="layers.0 layers.1 layers.2 head", learning="layers.0 layers.1 layers.2 head")
def _() -> Case:
    model = StochasticDepth()
    return Case(model, adam(model), vectors())


@KINDS.add(
    "group and instance norm",
    seen="0 1 2 3 4 7",
    learning="0 1 3 4 7",
    findings=("The signal fades from layer to layer",),  # the mean of what an instance norm puts out is 0
)
def _() -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5),
    )  # fmt: skip
    return Case(model, adam(model), images())


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.ModuleDict({"left": nn.Linear(10, 8), "right": nn.ModuleList([nn.Linear(10, 8), nn.PReLU()])})
        self.scales = nn.ParameterList([torch.ones(8), torch.zeros(8)])
        self.named = nn.ParameterDict({"bias": torch.zeros(5)})
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right, act = self.ways["right"]
        mixed = self.scales[0] * self.ways["left"](x) + self.scales[1] * act(right(x))
        return self.head(mixed) + self.named["bias"]


@KINDS.add(
    "modules and parameters in containers",
    seen="ways.left ways.right.0 ways.right.1 head",
    unseen={"scales": "not called", "named": "not called"},
    learning="ways.left ways.right.0 ways.right.1 scales named head",
)
def _() -> Case:
    model = Nested()
    return Case(model, adam(model), vectors())


@KINDS.add("data parallel", seen="module.0 module.1 module.3", learning="module.0 module.3")
def _() -> Case:
    model = nn.DataParallel(mlp())
    return Case(model, adam(model), vectors())


class Experts(nn.Module):
    """One expert gets all, one an empty batch, one is never asked; routing gives integers."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.experts = nn.ModuleList(nn.Linear(10, 5) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.router(x)
        out = x.new_zeros(len(x), 5)
        for index in range(2):
            out[chosen == index] = self.experts[index](x[chosen == index])
        return out


class Router(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), dtype=torch.int64)


@KINDS.add(
    "mixture of experts",
    seen="experts.0",
    unseen={"router": "integers", "experts.1": "empty", "experts.2": "not called"},
    learning="experts.0 experts.1",
    missing="experts.2",
)
def _() -> Case:
    model = Experts()
    return Case(model, adam(model), vectors())


class Strange(nn.Module):
    """A leaf whose output is sparse, expanded, or no tensor at all."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> Any:
        return self.act(x)


class StrangeOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, 5)
        self.sparse = Strange(torch.Tensor.to_sparse)
        self.wide = Strange(lambda x: x.mean(1, keepdim=True).expand(-1, 5))
        self.text = Strange(lambda x: "3")
        self.bits = Strange(lambda x: x > 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return self.sparse(x).to_dense() + self.wide(x) * float(self.text(x)) * self.bits(x)


@KINDS.add(
    "strange outputs",
    seen="linear wide",
    unseen={"sparse": "not dense", "text": "no tensor", "bits": "integers"},
    learning="linear",
)
def _() -> Case:
    model = StrangeOutputs()
    return Case(model, adam(model), vectors())


@KINDS.add("hooks of one's own", seen="0 1 3", learning="0 3")
def _() -> Case:
    model = mlp()
    model[0].register_forward_hook(lambda module, args, output: output * torch.rand(16))
    model[3].register_full_backward_hook(lambda module, gradients, _: tuple(0.5 * g for g in gradients))
    model[3].weight.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
    return Case(model, sgd(model), vectors())


@KINDS.add("regression with a scalar output", seen="0 1 2", learning="0 2")
def _() -> Case:
    model = nn.Sequential(nn.Linear(10, 1), nn.Softplus(), nn.Linear(1, 1))
    batches = [(x, labels().float()) for x, _ in vectors()]
    return Case(model, sgd(model, 0.01), batches, lambda output, y: F.mse_loss(output[:, 0], y))
