"""Which modules can be looked at: those with something to tell, those that are compiled, those that refuse. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from nbdebug.probes.hooks import is_compiled_in_place
from nbdebug.records.layers import Unseen

WHAT = "activations"
SCRIPTED = "a scripted module takes no hooks"
PARAMETRIZATIONS = "parametrizations"
COMPILED = "_torchdynamo_orig_callable"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A module whose call ``torch.compile`` took over, and the ``telling`` modules within."""

    name: str
    module: nn.Module
    telling: dict[str, nn.Module]
    dropouts: dict[str, nn.Module]


@dataclass(slots=True)
class Survey:
    """A model's modules by how they can be seen; every module stands in one place only.

    ``telling`` have parameters, are activation functions or the user's own leaves; ``dropouts`` matter for what comes
    after them. ``compiled`` are the outermost compiled modules.
    """

    telling: dict[str, nn.Module] = field(default_factory=dict)
    dropouts: dict[str, nn.Module] = field(default_factory=dict)
    compiled: list[Compiled] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)


def label(name: str, module: nn.Module) -> str:
    """What a module is called as a layer; the root of a single model has no name of its own."""
    return name or type(module).__name__


def roots(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks themselves: the modules that are within no other."""
    inner = {child for module in modules.values() for child in module.children()}
    return {name: module for name, module in modules.items() if module not in inner}


def survey(modules: Mapping[str, nn.Module], networks: Mapping[str, nn.Module]) -> Survey:
    """Sort these modules, given by dotted name. All those of the ``networks`` tell which are within compiled ones."""
    found = Survey()
    names = {module: name for name, module in modules.items()}
    scripted: set[nn.Module] = set()
    within: dict[nn.Module, Compiled] = {}
    for name, module in _every_module(networks):
        if PARAMETRIZATIONS in name.split(".") or module in scripted:
            continue
        home = within.get(module)
        if isinstance(module, torch.jit.ScriptModule):
            scripted.update(module.modules())
            if module in names:
                found.unseen.append(Unseen(label(name, module), WHAT, SCRIPTED))
            continue
        if home is None and compiled_original(module) is not None:
            home = Compiled(name, module, {}, {})
            found.compiled.append(home)
            within.update((inside, home) for inside in module.modules())
        if module in names and not _is_wrapper(module):
            is_outside = home is None or (home.module is module and _has_compiled_forward(module))
            _sort(label(names[module], module), module, found if is_outside or home is None else home)
    return found


def _every_module(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    seen: set[nn.Module] = set()
    for prefix, network in networks.items():
        yield from network.named_modules(memo=seen, prefix=prefix)


def _sort(name: str, module: nn.Module, place: Survey | Compiled) -> None:
    if is_telling(module):
        place.telling[name] = module
    elif isinstance(module, _DropoutNd):
        place.dropouts[name] = module


def is_telling(module: nn.Module) -> bool:
    """Layers with parameters, activation functions, and modules of the user's own that hold no others.

    Looks at ``_parameters`` only: to read a parametrised ``module.weight`` is to compute it again.
    """
    if any(parameter is not None for parameter in module._parameters.values()) or PARAMETRIZATIONS in module._modules:
        return True
    return is_activation(module) or is_users_leaf(module)


def is_activation(module: nn.Module) -> bool:
    """Whether torch itself calls it an activation function; attention, which lives there too, is none."""
    home = type(module).__module__
    return home == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention)


def is_users_leaf(module: nn.Module) -> bool:
    """Whether it is a module of the user's own that holds no others."""
    is_leaf = all(name == PARAMETRIZATIONS for name in module._modules) and not isinstance(module, _DropoutNd)
    return is_leaf and not type(module).__module__.startswith("torch.")


def compiled_original(module: nn.Module) -> Any:
    """What to call instead of a compiled module to run it eagerly, ``None`` for a module that is not compiled.

    The layers inside are reached that way; inner functions compiled on their own are not made eager by this.
    """
    if _is_wrapper(module):
        return module._orig_mod
    if is_compiled_in_place(module):
        return module._call_impl
    return module.forward if _has_compiled_forward(module) else None


def _has_compiled_forward(module: nn.Module) -> bool:
    """Whether its forward, or a function that it holds, is compiled; the module's own hooks are outside of it then."""
    if _is_wrapper(module):
        return False
    held = (*vars(module).values(), *(value for kind in _users_classes(module) for value in vars(kind).values()))
    return any(hasattr(value, COMPILED) and not isinstance(value, nn.Module) for value in (module.forward, *held))


def _users_classes(module: nn.Module) -> Iterator[type]:
    return (kind for kind in type(module).__mro__ if not kind.__module__.startswith(("torch.", "builtins")))


def _is_wrapper(module: nn.Module) -> bool:
    return isinstance(vars(module).get("_modules", {}).get("_orig_mod"), nn.Module)


def fast_layers(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Transformer layers, which in eval mode give up their fast path, and so compute differently, once hooked."""
    return [module for module in modules if isinstance(module, nn.TransformerEncoderLayer)]


def refusing_hooks(layers: Iterable[nn.Module]) -> set[nn.Module]:
    """Those of :func:`fast_layers` that are in eval mode now, with all that is in them."""
    return {inside for layer in layers if not layer.training for inside in layer.modules()}
