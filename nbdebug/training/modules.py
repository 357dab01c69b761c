"""One view of what is trained, be it a module or a mapping of modules (a GAN): names, parameters, modes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import nn

Model: TypeAlias = nn.Module | Mapping[str, nn.Module]


def roots(model: Model) -> dict[str, nn.Module]:
    """The top modules by name; a single model has the empty name."""
    return {"": model} if isinstance(model, nn.Module) else dict(model)


def named_modules(model: Model) -> dict[str, nn.Module]:
    """Every module once, under its dotted name."""
    seen: set[nn.Module] = set()
    found: dict[str, nn.Module] = {}
    for prefix, root in roots(model).items():
        for name, module in root.named_modules(memo=seen, prefix=prefix):
            found[name] = module
    return found


def named_parameters(model: Model) -> dict[str, nn.Parameter]:
    """Every parameter once, under its dotted name; tied ones under their first."""
    seen: set[int] = set()
    found: dict[str, nn.Parameter] = {}
    for prefix, root in roots(model).items():
        for name, parameter in root.named_parameters(prefix=prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[name] = parameter
    return found


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a module itself holds, not its children's."""
    return dict(module.named_parameters(recurse=False))


def device_of(model: Model) -> torch.device:
    """Where the first parameter lives; the CPU for a model without any."""
    first = next(iter(named_parameters(model).values()), None)
    return first.device if first is not None else torch.device("cpu")


def modes(model: Model) -> dict[nn.Module, bool]:
    """The training flag of every module."""
    return {module: module.training for module in named_modules(model).values()}


def restore_modes(flags: Mapping[nn.Module, bool]) -> None:
    """Set the flags back one by one; ``train()`` would set those of children too."""
    for module, flag in flags.items():
        module.training = flag


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards each module's own mode again."""
    flags = modes(model)
    try:
        for root in roots(model).values():
            root.eval()
        with torch.no_grad():
            yield
    finally:
        restore_modes(flags)
