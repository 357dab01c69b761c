"""Freezing layers and letting them learn again. Pure planning.

A parameter that freezes loses its gradient: with one left, even of zeros, momentum and weight decay would go on moving
it. Undoing gives it back. Its state in an optimizer stays, for when it learns again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.training.modules import Model, named_parameters
from nbdebug.training.surgery_edits import Change, Originals, Plan, Setting
from nbdebug.training.surgery_slots import Learning, Mode
from nbdebug.training.surgery_tree import Tree, dotted

ON_PURPOSE = "it was frozen before any change made here: name it to let it learn"
NOTHING_LEARNS = "nothing would learn: the next backward pass would fail"


def plan_freeze(
    model: Model,
    layers: Sequence[str] | None = None,
    *,
    hold_statistics: bool = False,
    only: Collection[str] = (),
) -> Plan:
    """Freeze all parameters of these layers and of what is in them; of the whole model without names.

    ``only`` names places exactly, such as ``fc.weight`` and, for statistics, ``bn.training``; all others stay.

    ``hold_statistics`` also puts their norm layers with running statistics into evaluation mode, one by one: they use
    the statistics and stop updating them, until something calls ``train()`` on the model.
    """
    tree = Tree.of(model)
    hold = hold_statistics or bool(only)
    changes, refused = _for_each(tree, layers, learn=False, hold=hold, originals=None, only=only)
    frozen = {id(p) for change in changes for p in change.stopped}
    still = [p for p in named_parameters(model).values() if p.requires_grad and id(p) not in frozen]
    return Plan(tuple(changes), refused, () if still else (NOTHING_LEARNS,))


def plan_unfreeze(
    model: Model,
    layers: Sequence[str] | None = None,
    *,
    originals: Originals | None = None,
    only: Collection[str] = (),
) -> Plan:
    """Let these layers learn, and what is in them. Without names, whatever ``originals`` know to have learnt at first.

    What the user froze on purpose stays so unless it is named. The plan's ``parameters_added`` are those that an
    optimizer made since they froze does not hold. Norm layers held in evaluation mode go back to training mode.
    ``only`` is as for :func:`plan_freeze`.
    """
    changes, refused = _for_each(Tree.of(model), layers, learn=True, hold=False, originals=originals, only=only)
    return Plan(tuple(changes), refused)


def _for_each(
    tree: Tree,
    layers: Sequence[str] | None,
    *,
    learn: bool,
    hold: bool,
    originals: Originals | None,
    only: Collection[str] = (),
) -> tuple[list[Change], dict[str, str]]:
    known = {} if originals is None else originals.values
    by_place = {place: module for module in tree.names for place in tree.places(module)}
    by_place.update(tree.modules)
    chosen = {module for name in layers or () if name in by_place for module in by_place[name].modules()}
    refused = {name: "there is no layer of this name" for name in layers or () if name not in by_place}
    changes, seen = [], set[int]()
    for name, module in tree.modules.items():
        if layers is not None and module not in chosen:
            continue
        settings, parameters = list[Setting](), dict[str, nn.Parameter]()
        for key, parameter in module._parameters.items():
            if parameter is None or parameter.requires_grad is learn or id(parameter) in seen:
                continue
            place, slot = dotted(name, key), Learning(module, key)
            reason = _refusal(parameter, learn=learn)
            if only and place not in only:
                continue
            if learn and layers is None and not only and known.get(slot, ("", False))[1] is False:
                reason = reason or ON_PURPOSE
            if reason is not None:
                refused[place] = reason
                continue
            seen.add(id(parameter))
            parameters[place] = parameter
            settings.append(Setting(slot, place, not learn, learn))
        back = learn and (known.get(Mode(module), ("", False))[1] is True or dotted(name, "training") in only)
        if not only or dotted(name, "training") in only:
            settings += _modes(name, module, hold=hold, back=back)
        if settings:
            changes.append(_change(tree, name, module, settings, parameters, learn=learn))
    for name in layers or ():
        if name in by_place and not any(change.layer in _names_within(tree, by_place[name]) for change in changes):
            refused.setdefault(name, _nothing_to_do(by_place[name], learn=learn))
    return changes, refused


def _refusal(parameter: nn.Parameter, *, learn: bool) -> str | None:
    if isinstance(parameter, UninitializedTensorMixin):
        return "it is lazy: it has no shape before the first step"
    if learn and not (parameter.is_floating_point() or parameter.is_complex()):
        return f"numbers of type {parameter.dtype} can't learn"
    return None


def _modes(name: str, module: nn.Module, *, hold: bool, back: bool) -> list[Setting]:
    keeps = isinstance(module, _NormBase) and module.track_running_stats
    if keeps and ((hold and module.training) or (back and not module.training)):
        return [Setting(Mode(module), dotted(name, "training"), module.training, not module.training)]
    return []


def _change(
    tree: Tree,
    name: str,
    module: nn.Module,
    settings: list[Setting],
    parameters: dict[str, nn.Parameter],
    *,
    learn: bool,
) -> Change:
    notes = list(tree.notes(module, leaves=False))
    for place, parameter in parameters.items():
        tied = [other for other in tree.owners(parameter) if other != place]
        if tied:
            notes.append(f"{place} is tied to {', '.join(tied)}, which {'learns' if learn else 'freezes'} with it")
    holds = any(isinstance(setting.slot, Mode) for setting in settings)
    verb = ("learns" if learn else "freezes") if parameters else ""
    text = ", ".join(filter(None, (verb, f"statistics {'move' if learn else 'held'}" if holds else "")))
    return Change(
        name,
        tree.places(module),
        text,
        tuple(settings),
        notes=tuple(notes),
        added=tuple(parameters.items()) if learn else (),
        stopped=() if learn else tuple(parameters.values()),
    )


def _names_within(tree: Tree, module: nn.Module) -> set[str]:
    return {tree.names[inside] for inside in module.modules()}


def _nothing_to_do(module: nn.Module, *, learn: bool) -> str:
    parameters = [p for p in module.parameters() if isinstance(p, torch.Tensor)]
    if not parameters:
        return "it has no parameters"
    if any(isinstance(p, UninitializedTensorMixin) for p in parameters):
        return "it is lazy: it has no shape before the first step"
    return "it learns already" if learn else "it is frozen already"
