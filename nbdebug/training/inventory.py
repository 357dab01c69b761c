"""What a model and its optimizers are made of, to notice that somebody edited them between runs. Pure."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nbdebug.training.modules import Model, named_modules, named_parameters, roots
from nbdebug.training.trainer import Trainer

MOST_NAMED = 4


@dataclass(frozen=True)
class Inventory:
    """Modules and parameters by name, held weakly, and the sizes of the parameter groups by optimizer."""

    modules: dict[str, weakref.ref[nn.Module]]
    parameters: dict[str, weakref.ref[nn.Parameter]]
    groups: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: Model, trainer: Trainer) -> Inventory:
        """What there is now."""
        return cls(
            {name: weakref.ref(module) for name, module in named_modules(model).items()},
            {name: weakref.ref(parameter) for name, parameter in named_parameters(model).items()},
            {
                name: tuple(len(group["params"]) for group in optimizer.param_groups)
                for name, optimizer in trainer.optimizers.items()
            },
        )

    def differs_from(self, model: Model, trainer: Trainer) -> bool:
        """Whether modules, or the sizes of parameter groups, are others now; a quick look."""
        found = [module for root in roots(model).values() for module in root.modules()]
        if len(found) < len(self.modules):
            return True
        known = {id(reference()) for reference in self.modules.values()}
        groups = {
            name: tuple(len(group["params"]) for group in optimizer.param_groups)
            for name, optimizer in trainer.optimizers.items()
        }
        return groups != self.groups or any(id(module) not in known for module in found)


@dataclass(frozen=True)
class Edit:
    """What was edited, in words; ``orphans`` are new parameters that should learn but are in no optimizer."""

    text: str
    orphans: tuple[str, ...]


def edit_since(before: Inventory, model: Model, trainer: Trainer) -> Edit | None:
    """What somebody changed since; ``None`` if nothing."""
    now = Inventory.of(model, trainer)
    parts = [*_modules_changed(before, now), *_parameters_changed(before, now), *_groups_changed(before, now)]
    if not parts:
        return None
    known = {id(p) for o in trainer.optimizers.values() for group in o.param_groups for p in group["params"]}
    orphans = [
        name
        for name, parameter in named_parameters(model).items()
        if name in _new(before.parameters, now.parameters) and parameter.requires_grad and id(parameter) not in known
    ]
    return Edit("; ".join(parts), tuple(orphans))


def _new(before: Mapping[str, weakref.ref[nn.Parameter]], now: Mapping[str, weakref.ref[nn.Parameter]]) -> set[str]:
    return {name for name, reference in now.items() if name not in before or before[name]() is not reference()}


def _modules_changed(before: Inventory, now: Inventory) -> list[str]:
    replaced = [
        name for name in now.modules if name in before.modules and before.modules[name]() is not now.modules[name]()
    ]
    replaced = [name for name in replaced if not _within(name, replaced)]
    added = [name for name in now.modules if name not in before.modules and not _within(name, replaced)]
    gone = [name for name in before.modules if name not in now.modules and not _within(name, replaced)]
    return [
        *(f"{name or 'the model'} was replaced by {_described(now.modules[name]())}" for name in replaced[:MOST_NAMED]),
        *_listed("added", [name for name in added if not _within(name, added)]),
        *_listed("removed", [name for name in gone if not _within(name, gone)]),
    ]


def _parameters_changed(before: Inventory, now: Inventory) -> list[str]:
    """Parameters exchanged or added within modules that are the same as before."""
    same = {name for name in now.modules if name in before.modules and before.modules[name]() is now.modules[name]()}
    inside = [name for name in _new(before.parameters, now.parameters) if name.rpartition(".")[0] in same]
    gone = [name for name in before.parameters if name not in now.parameters and name.rpartition(".")[0] in same]
    return [*_listed("new parameters", sorted(inside)), *_listed("parameters gone", gone)]


def _groups_changed(before: Inventory, now: Inventory) -> list[str]:
    texts = []
    for name, sizes in now.groups.items():
        old = before.groups.get(name)
        if old is not None and old != sizes:
            which = f"optimizer {name!r}" if name else "the optimizer"
            texts.append(f"{which} has {len(sizes)} parameter groups of {_sizes(sizes)}, and had {_sizes(old)}")
    return texts


def _sizes(sizes: tuple[int, ...]) -> str:
    return " + ".join(map(str, sizes)) + (" tensors" if sum(sizes) != 1 else " tensor")


def _within(name: str, others: list[str]) -> bool:
    return any(name != other and (not other or name.startswith(f"{other}.")) for other in others)


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return [f"{what}: {', '.join(names[:MOST_NAMED])}{more}"]


def _described(module: nn.Module | None) -> str:
    if module is None:
        return "another"
    sizes = [tuple(p.shape) for p in module.parameters() if not is_lazy(p) and isinstance(p, torch.Tensor)]
    return f"a {type(module).__name__}" + (f" with weights {sizes[0]}" if sizes else "")
