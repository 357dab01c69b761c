"""A model's tree as a surgeon sees it: where each module hangs, what can't be touched and why. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nbdebug.training.module_state import EVERY_MODULES
from nbdebug.training.modules import Model, named_modules
from nbdebug.training.surgery_slots import ABSENT
from nbdebug.training.surgery_source import Sources

PARAMETRIZATIONS = "parametrizations"
WRAPPED = "_orig_mod"
COMPILED = "_torchdynamo_orig_callable"
QUANTIZED = ("torch.ao.nn.", "torch.nn.quantized", "torch.nn.intrinsic", "torch.nn.qat")
COMPUTED = ("_orig", "_g", "_v")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
DEPTH = 2
SCRIPTED = "it is part of a scripted module, whose code is fixed"


@dataclass(frozen=True)
class Tree:
    """``names`` gives every module its first dotted name, ``holders`` all places where it hangs.

    ``hidden`` says where modules are also held outside of the tree, in plain lists and the like, ``owned`` where
    parameters are; both by identity.
    """

    modules: dict[str, nn.Module]
    names: dict[nn.Module, str]
    holders: dict[nn.Module, list[tuple[nn.Module, str]]]
    hidden: dict[int, str]
    owned: dict[int, list[str]]
    sources: Sources

    @classmethod
    def of(cls, model: Model) -> Tree:
        """Read it once."""
        modules = named_modules(model)
        names = {module: name for name, module in modules.items()}
        holders: dict[nn.Module, list[tuple[nn.Module, str]]] = {module: [] for module in names}
        for parent in names:
            for key, child in parent._modules.items():
                if child is not None:
                    holders[child].append((parent, key))
        hidden = {held: where for name, m in modules.items() for held, where in _hidden(name, m)}
        owned: dict[int, list[str]] = {}
        for name, module in modules.items():
            for key, parameter in module._parameters.items():
                owned.setdefault(id(parameter), []).append(dotted(name, key))
        return cls(modules, names, holders, hidden, owned, Sources())

    def places(self, module: nn.Module) -> tuple[str, ...]:
        """All names under which it hangs, one for each place in a parent; the root's own name for a root."""
        found = tuple(dotted(self.names[parent], key) for parent, key in self.holders[module])
        return found or (self.names[module],)

    def ancestors(self, module: nn.Module) -> list[nn.Module]:
        """Whatever it is in, the nearest first; each once."""
        found: dict[nn.Module, None] = {}
        waiting = [module]
        while waiting:
            parents = [parent for parent, _ in self.holders[waiting.pop(0)] if parent not in found]
            found.update(dict.fromkeys(parents))
            waiting += parents
        return list(found)

    def closed(self, module: nn.Module) -> str | None:
        """Why nothing about this module can be changed, whatever the change."""
        above = self.ancestors(module)
        if any(isinstance(each, torch.jit.ScriptModule) for each in (module, *above)):
            return SCRIPTED
        if any(PARAMETRIZATIONS in place.split(".") for place in self.places(module)):
            return "it computes a parameter (a parametrisation), and is no layer"
        if PARAMETRIZATIONS in module._modules or any(key.endswith(COMPUTED) for key in module._parameters):
            return "it is parametrised: its parameters are computed from others (weight norm, spectral norm, pruning)"
        if any(is_quantized(each) for each in (module, *above)):
            return "it is quantised, or fused for it"
        if any("FullyShardedDataParallel" in type(each).__name__ for each in above):
            return "its parameters are sharded over processes"
        return None

    def fixed_in_place(self, module: nn.Module) -> str | None:
        """Why this module can't be exchanged for another in all its places."""
        if not self.holders[module]:
            return "it is the model itself, and hangs nowhere"
        if is_compiled(module) or any(key == WRAPPED for _, key in self.holders[module]):
            return "it is compiled by itself: what was compiled would go on being called"
        if id(module) in self.hidden:
            return f"it is also held by {self.hidden[id(module)]}, outside of the tree, where it would stay"
        return None

    def compiled_around(self, module: nn.Module) -> str | None:
        """The name of the compiled part that it is in."""
        found = next((each for each in (module, *self.ancestors(module)) if is_compiled(each)), None)
        return None if found is None else self.names[found] or type(found).__name__

    def notes(self, module: nn.Module, *, leaves: bool = True) -> tuple[str, ...]:
        """What to tell of a change: compiled again, hooks that rest while a module is out, several places."""
        found = []
        compiled = self.compiled_around(module)
        if compiled is not None:
            found.append(f"{compiled} will be compiled again at its next call")
        hooks = sum(len(getattr(module, kind, None) or ()) for kind in HOOKS)
        if hooks and leaves:
            found.append(f"{hooks} hook{'s' * (hooks > 1)} on it will not be called until this is undone")
        if len(self.holders[module]) > 1:
            found.append(f"it hangs in {len(self.holders[module])} places: {', '.join(self.places(module))}")
        return tuple(found)

    def owners(self, parameter: nn.Parameter) -> list[str]:
        """The dotted names of all places that hold this very parameter."""
        return self.owned[id(parameter)]


def dotted(name: str, key: str) -> str:
    """The name of what a module holds by this key."""
    return f"{name}.{key}" if name else key


def is_quantized(module: nn.Module) -> bool:
    """Whether it comes from torch's quantisation, or is fused for it."""
    return type(module).__module__.startswith(QUANTIZED)


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` wraps it, took over its call, or its forward."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    wrapped = isinstance(module._modules.get(WRAPPED), nn.Module)
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None or hasattr(module.forward, COMPILED)


def _hidden(name: str, module: nn.Module) -> Iterator[tuple[int, str]]:
    """The modules that this one holds in plain attributes."""
    if isinstance(module, torch.jit.ScriptModule) or WRAPPED in module._modules:
        return
    for key, value in vars(module).items():
        if key not in EVERY_MODULES and module._modules.get(key, ABSENT) is not value:
            yield from ((id(found), repr(dotted(name, key))) for found in _modules_in(value, DEPTH) if found != module)


def _modules_in(value: Any, depth: int) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, functools.partial):
        yield from _modules_in((value.func, *value.args, *value.keywords.values()), depth)
    elif isinstance(getattr(value, "__self__", None), nn.Module):
        yield value.__self__
    elif depth and isinstance(value, (list, tuple, set, frozenset, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _modules_in(part, depth - 1)
