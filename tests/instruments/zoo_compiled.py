"""The zoo, last house: compiled models. Their layers are seen by a look on the side."""

from __future__ import annotations

import torch
from torch import nn

from tests.instruments.specimen import Case, Collection, adam, deprecated, images, mlp, vectors

KINDS = Collection()
BACKEND = "aot_eager"


class Net(nn.Module):
    """A class of its own: ``module.compile()`` leaves a plain ``nn.Sequential`` as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def compiled(backend: str = BACKEND) -> Case:
    """Compiled anew, so that compiling counts in each run alike."""
    torch._dynamo.reset()
    with deprecated():
        model = torch.compile(mlp(), backend=backend)
    return Case(model, adam(model), vectors())


@KINDS.add("compiled", seen="_orig_mod.0 _orig_mod.1 _orig_mod.3", learning="_orig_mod.0 _orig_mod.3")
def _() -> Case:
    return compiled()


@KINDS.add("compiled in place", seen="inner.0 inner.1 inner.3", learning="inner.0 inner.3")
def _() -> Case:
    torch._dynamo.reset()
    model = Net()
    model.compile(backend=BACKEND)
    return Case(model, adam(model), vectors())


@KINDS.add(
    "compiled part with batch norm",
    seen="0._orig_mod.0 0._orig_mod.1 0._orig_mod.2 2",
    learning="0._orig_mod.0 0._orig_mod.1 2",
)
def _() -> Case:
    torch._dynamo.reset()
    part = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
    model = nn.Sequential(torch.compile(part, backend=BACKEND), nn.Flatten(), nn.Linear(144, 5))
    return Case(model, adam(model), images())


class CompiledForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()
        self.scale = nn.Parameter(torch.ones(5))

    @torch.compile(backend=BACKEND)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * self.scale


@KINDS.add(
    "compiled forward",
    seen="CompiledForward inner.0 inner.1 inner.3",
    learning="CompiledForward inner.0 inner.3",
)
def _() -> Case:
    torch._dynamo.reset()
    model = CompiledForward()
    return Case(model, adam(model), vectors())
