"""Batch norm taken out again: an identity in its place, its statistics folded into the layer before or not.

Folding writes the layer's weight and bias in place, so that in evaluation the output is the same up to rounding:
w·γ/√(σ²+ε) and (b−μ)·γ/√(σ²+ε)+β. Planning is pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin

from nbdebug.training.modules import Model
from nbdebug.training.surgery_edits import Change, Plan, Setting
from nbdebug.training.surgery_flow import Flow, trace
from nbdebug.training.surgery_norms import BASE, NORM, is_transposed
from nbdebug.training.surgery_slots import ABSENT, ClassOf, Held, Store
from nbdebug.training.surgery_tree import Tree, dotted

UNKNOWN = "what comes before it is not certain: give an example input, or leave the statistics unfolded"


@dataclass(frozen=True, slots=True)
class Fold:
    """The statistics of a norm, folded into the layer before it; ``fresh``: its bias is new and counts as 0."""

    layer: Any
    norm: Any
    fresh: bool

    def run(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Computed in float64."""
        changed = [self.layer.weight] if self.fresh else [self.layer.weight, self.layer.bias]
        before = [(parameter, parameter.detach().clone()) for parameter in changed]
        fold_in(self.layer, self.norm, fresh=self.fresh)
        return before


def fold_in(layer: Any, norm: Any, *, fresh: bool) -> None:
    """Write what a norm does in evaluation into the layer before it; a ``fresh`` bias counts as 0."""
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.double()
        shift = 0.0 if norm.bias is None else norm.bias.double()
        start = 0.0 if fresh else layer.bias.double()
        layer.bias.copy_((start - norm.running_mean.double()) * scale + shift)
        weight = layer.weight.double()
        if not is_transposed(layer):
            layer.weight.copy_(weight * scale.reshape(-1, *[1] * (weight.dim() - 1)))
            return
        parts = weight.unflatten(0, (layer.groups, -1)) * scale.reshape(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        layer.weight.copy_(parts.flatten(0, 1))


def plan_remove_norms(
    model: Model, layers: Sequence[str] | None = None, *, fold: bool = False, example: Any = None
) -> Plan:
    """Put ``nn.Identity`` in the place of these batch norms, of all without names; an inserted one is taken off.

    To ``fold``, the layer before has to be certain: in a ``Sequential``, or from a pass on the side with an
    ``example``. A norm that can't be folded is refused then.
    """
    tree = Tree.of(model)
    flow = trace(model, example) if fold and example is not None and isinstance(model, nn.Module) else None
    norms = {name: module for name, module in tree.modules.items() if isinstance(module, _BatchNorm)}
    changes, refused = [], {}
    for name in layers or ():
        if name not in norms:
            refused[name] = "it is no batch norm" if name in tree.modules else "there is no layer of this name"
    folded: set[nn.Module] = set()
    for name, norm in norms.items():
        if layers is not None and name not in layers:
            continue
        reason = _refusal(tree, norm)
        layer = _layer_before(tree, norm, flow) if fold and reason is None else None
        reason = reason or (_unfoldable(tree, norm, layer, folded) if fold else None)
        if reason is not None:
            refused[name] = reason
            continue
        changes.append(_change(tree, name, norm, layer))
        folded |= {layer} if layer is not None else set()
    return Plan(tuple(changes), refused)


def _refusal(tree: Tree, norm: nn.Module) -> str | None:
    if isinstance(norm, LazyModuleMixin):
        return "it is lazy: its shape is not known before the first step"
    reason = tree.closed(norm) or tree.fixed_in_place(norm)
    keys = {key for _, key in tree.holders[norm]}
    return reason or tree.sources.objection(tree.ancestors(norm), keys, {type(norm).__name__, "Identity"})


def _layer_before(tree: Tree, norm: nn.Module, flow: Flow | None) -> nn.Module | None:
    """The layer whose output goes into this norm and nowhere else, where that is certain."""
    if len(tree.holders[norm]) != 1:
        return None
    parent, key = tree.holders[norm][0]
    if key == NORM:
        return parent
    if flow is not None:
        layer = next(iter(flow.makers(norm)), None)
        alone = layer is not None and flow.takers(layer) == [norm] and flow.calls[norm] == flow.calls[layer] == 1
        return layer if alone else None
    keys = list(parent._modules)
    if type(parent) is not nn.Sequential or keys.index(key) == 0:
        return None
    return parent._modules[keys[keys.index(key) - 1]]


def _unfoldable(tree: Tree, norm: Any, layer: Any, folded: set[nn.Module]) -> str | None:
    if norm.running_mean is None:
        return "it keeps no statistics that could be folded"
    if layer is None:
        return UNKNOWN
    if not isinstance(layer, (nn.Linear, _ConvNd)) or "bias" not in layer._parameters:
        return f"what comes before it is {type(layer).__name__}, which can't take the statistics in"
    closed = tree.closed(layer)
    if closed is not None:
        return f"the layer before it can't take the statistics in: {closed}"
    own = [p for p in layer._parameters.values() if p is not None]
    if layer in folded or len(tree.holders[layer]) > 1 or any(len(tree.owners(p)) > 1 for p in own):
        return "the layer before it is shared or tied: others would get the statistics too"
    width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return None if width == norm.num_features else "it norms another dimension than the layer before it gives"


def _change(tree: Tree, name: str, norm: nn.Module, layer: Any) -> Change:
    places = tree.places(norm)
    settings = _taken_off(tree, norm) or _replaced(tree, norm)
    gone = tuple((dotted(name, key), p) for key, p in norm.named_parameters())
    removed = tuple((place, p) for place, p in gone if len(tree.owners(p)) == 1)
    notes, added, rewritten, rewrites = list(tree.notes(norm)), [], [], []
    if layer is not None:
        where = tree.names[layer]
        fresh = layer.bias is None
        rewritten = [(dotted(where, "weight"), layer.weight)]
        if fresh:
            learns = layer.weight.requires_grad
            zeros = torch.zeros(norm.num_features, device=layer.weight.device, dtype=layer.weight.dtype)  # type: ignore[call-overload]
            bias = nn.Parameter(zeros, requires_grad=learns)
            settings.append(Setting(Held(layer, "bias", Store.PARAMETERS), dotted(where, "bias"), None, bias))
            added = [(dotted(where, "bias"), bias)]
        else:
            rewritten.append((dotted(where, "bias"), layer.bias))
        rewrites = [Fold(layer, norm, fresh)]
        notes.append(f"its statistics go into {where}: what it gives in evaluation stays, in training it does not")
    after = "nothing" if settings[0].after is ABSENT else "Identity"
    return Change(
        name,
        places,
        f"{type(norm).__name__} → {after}" + (f", folded into {tree.names[layer]}" if layer is not None else ""),
        tuple(settings),
        tuple(rewrites),
        tuple(notes),
        tuple(added),
        removed,
        tuple(rewritten),
        tuple(p for _, p in (*removed, *rewritten)),
    )


def _replaced(tree: Tree, norm: nn.Module) -> list[Setting]:
    identity = nn.Identity()
    identity.train(norm.training)
    return [
        Setting(Held(*at, Store.CHILDREN), name, norm, identity)
        for at, name in zip(tree.holders[norm], tree.places(norm), strict=True)
    ]


def _taken_off(tree: Tree, norm: nn.Module) -> list[Setting]:
    """Of a norm that was put after a layer: the layer is as it was, and another can be put there."""
    layer, key = tree.holders[norm][0]
    kind: Any = type(layer)
    if key != NORM or BASE not in vars(kind):
        return []
    name = tree.names[layer]
    return [
        Setting(Held(layer, NORM, Store.CHILDREN), dotted(name, NORM), norm, ABSENT),
        Setting(ClassOf(layer), name or kind.__name__, kind, vars(kind)[BASE]),
    ]
