"""Clipping layer by layer: each rule has a layer's name, or a pattern, and a limit of its own. Training thread.

A name stands for all in that layer, taken together; a pattern (``*``, ``?``, ``[...]``) for every layer that matches
it, each by itself with the parameters of its own. Rules act one after the other in the order of their names, before
the clipping of all gradients, and on each optimizer's own parameters.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from nbdebug.records.commands import Clip, ClipMode
from nbdebug.training.clipping import clip_gradients, total_norm
from nbdebug.training.layer_names import covered
from nbdebug.training.modules import Model, named_modules

Rules = Mapping[str, Clip]


def clip_layers(model: Model, rules: Rules, held: Sequence[nn.Parameter], scale: torch.Tensor | None) -> None:
    """Clip in place what ``held``, an optimizer's parameters, have of each rule's layers."""
    modules, known = named_modules(model), {id(parameter) for parameter in held}
    for name, clip in sorted(rules.items()):
        for parameters in covered(modules, name):
            gradients = [p.grad for p in parameters if id(p) in known and p.grad is not None]
            if gradients:
                norm = total_norm(gradients)[0] if clip.mode is ClipMode.NORM else None
                clip_gradients(gradients, norm, clip, scale)


def layer_mistakes(model: Model, present: Rules, wanted: Rules) -> list[str]:
    """Layers that there are none of, or without parameters; a rule of now can be taken away whatever became of it."""
    modules, found = named_modules(model), []
    for name, clip in wanted.items():
        if clip.mode is ClipMode.OFF and name in present:
            continue
        if not isinstance(name, str) or not (name in modules or any(fnmatchcase(each, name) for each in modules)):
            near = difflib.get_close_matches(str(name), [each for each in modules if each], 1, 0.4)
            some = ", ".join(repr(each) for each in list(modules)[:8] if each)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {some}"
            found.append(f"no layer is called, or matches, {name!r}: {hint}")
        elif not any(covered(modules, name)):
            found.append(f"{name!r} has no parameters, so nothing can be clipped there")
    return found


def changed(present: Rules, wanted: Rules) -> dict[str, Clip]:
    """The rules after a change; one that is off is gone."""
    return {name: clip for name, clip in {**present, **wanted}.items() if clip.mode is not ClipMode.OFF}


def difference(before: Rules, after: Rules) -> dict[str, Clip]:
    """The change that leads from one set of rules to another."""
    gone = {name: Clip() for name in before if name not in after}
    return {**gone, **{name: clip for name, clip in after.items() if before.get(name) != clip}}
