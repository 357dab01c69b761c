"""Other parts as lines of Python: layers exchanged, frozen, normed; averages; from the plan that was carried out.

Pure functions of a plan and what it found. Names are those of ``modules`` in the script: every module by its first
dotted name, made anew after each exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nbdebug.training.averaging import Ema, Rule
from nbdebug.training.modules import Model, named_modules
from nbdebug.training.script_words import parameter_text, quoted, wrapped
from nbdebug.training.surgery import Change, Plan
from nbdebug.training.surgery_edits import Setting
from nbdebug.training.surgery_norms import NORM
from nbdebug.training.surgery_norms_out import Fold
from nbdebug.training.surgery_slots import ABSENT, ClassOf, Held, Learning, Mode, Store

MANY = 3
LOOK_AGAIN = "look_again(modules, roots)"


def surgery_lines(plan: Plan, fresh: Sequence[str], first: str, *, gone: bool) -> list[str]:
    """A plan that was carried out; ``fresh`` parameters went into the last group of the optimizer named ``first``.

    ``gone`` says that optimizers held parameters that left.
    """
    settings = list(plan.settings)
    removed = [parameter_at(name) for name in plan.parameters_removed]
    forgotten = [*(parameter_at(name) for name in plan.parameters_rewritten), *removed]
    lines = wrapped("gone = [", removed, "]") if removed else []
    rewritten = [parameter_at(name) for name in plan.parameters_rewritten]
    lines += wrapped("rewritten = [", rewritten, "]") if rewritten else []
    exchanged = [line for change in _by_text(plan.changes) for line in change]
    lines += [*exchanged, *([LOOK_AGAIN] if exchanged else []), *_learning_lines(settings)]
    lines += _mode_lines(settings)
    if fresh:
        held = f'optimizers[{quoted(first)}].param_groups[-1]["params"]'
        lines += wrapped(f"{held} += [", map(parameter_at, fresh), "]")
    names = [name for name, some in (("rewritten", rewritten), ("gone", removed)) if some]
    if forgotten:
        lines += [f"for parameter in {' + '.join(names)}:", "    parameter.grad = None"]
        lines.append(f"forget(optimizers, {' + '.join(names)})")
    return [*lines, *(["drop(optimizers, gone)"] if removed and gone else [])]


def average_lines(rule: Rule | None) -> list[str]:
    """An average of the weights from here on, or none."""
    if rule is None:
        return ["averages.clear()"]
    options = f"decay={rule.decay!r}" if isinstance(rule, Ema) else f"start={rule.start}, every={rule.every}"
    return [f"averages[:] = [Average({options})]"]


def made(module: nn.Module) -> str:
    """The expression that makes a module like this one."""
    options = _tensor_options(module)
    if isinstance(module, _BatchNorm):
        given = [str(module.num_features), *options]
    else:
        default = vars(type(module)())
        given = [f"{k}={v!r}" for k, v in constants(module).items() if default.get(k) != v] + options
    return f"nn.{type(module).__name__}({', '.join(given)})" + ("" if module.training else ".eval()")


def constants(module: nn.Module) -> dict[str, Any]:
    """The arguments that an activation of torch's was made with."""
    return {name: getattr(module, name) for name in getattr(module, "__constants__", ())}


def parameter_at(place: str) -> str:
    """A parameter by its dotted name."""
    layer, _, name = place.rpartition(".")
    return parameter_text(layer, name)


def _tensor_options(module: nn.Module) -> list[str]:
    held = next(module.parameters(recurse=False), None)
    if held is None:
        return []
    options = [] if held.device.type == "cpu" else [f"device={quoted(str(held.device))}"]
    return options + ([] if held.dtype is torch.get_default_dtype() else [f"dtype={held.dtype}"])


# -- layers ---------------------------------------------------------------------------------------------------------


def _by_text(changes: Sequence[Change]) -> list[list[str]]:
    """The lines of each change; where many plain exchanges are alike, those as a loop."""
    single: dict[str, list[tuple[str, str]]] = {}
    others: list[list[str]] = []
    for change in changes:
        children = _children(change)
        beside = change.rewrites or _is_norming(change) or any(map(_plain, change.settings))
        if len(children) == 1 and not beside:
            parent, key, module = children[0]
            single.setdefault(made(module), []).append((parent, key))
        else:
            others.append(_change_lines(change, children))
    found = []
    for text, places in single.items():
        if len(places) <= MANY:
            found += [[put(parent, key, text)] for parent, key in places]
        else:
            pairs = (f"({quoted(parent)}, {quoted(key)})" for parent, key in places)
            head = wrapped("for parent, key in [", pairs, "]:")
            found.append([*head, f"    setattr(modules[parent], key, {text})"])
    return found + others


def _children(change: Change) -> list[tuple[str, str, nn.Module]]:
    return [
        (_parent(setting), setting.slot.key, setting.after)
        for setting in change.settings
        if isinstance(setting.slot, Held) and setting.slot.store is Store.CHILDREN and setting.after is not ABSENT
    ]


def _is_norming(change: Change) -> bool:
    return any(isinstance(setting.slot, ClassOf) for setting in change.settings)


def _change_lines(change: Change, children: Sequence[tuple[str, str, nn.Module]]) -> list[str]:
    lines = []
    folds = [rewrite for rewrite in change.rewrites if isinstance(rewrite, Fold)]
    if folds:
        lines.append(f"norm = modules[{quoted(change.layer)}]")
    if _is_norming(change):
        lines += _norming(change, children)
    elif len(children) == 1:
        parent, key, module = children[0]
        lines.append(put(parent, key, made(module)))
    elif children:
        lines.append(f"shared = {made(children[0][2])}")
        lines += [put(parent, key, "shared") for parent, key, _ in children]
    lines += [line for setting in change.settings for line in _plain(setting)]
    for fold in folds:
        layer = next(name.rpartition(".")[0] for name, parameter in change.rewritten if parameter is fold.layer.weight)
        lines.append(f"fold_in(modules[{quoted(layer)}], norm, fresh={fold.fresh})")
    return lines


def _norming(change: Change, children: Sequence[tuple[str, str, nn.Module]]) -> list[str]:
    if children:
        return [f"put_norm_after(modules[{quoted(change.layer)}], {made(children[0][2])})"]
    layer = next(_parent(s) for s in change.settings if isinstance(s.slot, Held) and s.slot.key == NORM)
    return [f"take_norm_off(modules[{quoted(layer)}])"]


def put(parent: str, key: str, text: str) -> str:
    """A child in its place."""
    holder = f"modules[{quoted(parent)}]"
    return f"{holder}.{key} = {text}" if key.isidentifier() else f"setattr({holder}, {quoted(key)}, {text})"


def _plain(setting: Setting) -> list[str]:
    """What is no child: a flag beside an activation, a new parameter. An attribute goes with the child set before."""
    slot, after = setting.slot, setting.after
    if not isinstance(slot, Held) or slot.store is Store.CHILDREN or after is ABSENT or isinstance(after, nn.Module):
        return []
    if not isinstance(after, nn.Parameter):
        return [put(_parent(setting), slot.key, repr(after))]
    options = [] if after.device.type == "cpu" else [f"device={quoted(str(after.device))}"]
    options += [] if after.dtype is torch.get_default_dtype() else [f"dtype={after.dtype}"]
    zeros = f"torch.zeros({', '.join([str(tuple(after.shape)), *options])})"
    return [put(_parent(setting), slot.key, f"nn.Parameter({zeros}, requires_grad={after.requires_grad})")]


def _parent(setting: Setting) -> str:
    key = getattr(setting.slot, "key", "training")
    return setting.place[: -len(key)].removesuffix(".")


# -- freezing -------------------------------------------------------------------------------------------------------


def _learning_lines(settings: Sequence[Setting]) -> list[str]:
    changed = [setting for setting in settings if isinstance(setting.slot, Learning)]
    if not changed:
        return []
    learns = bool(changed[0].after)
    names = [(_parent(setting), setting.slot.key) for setting in changed if isinstance(setting.slot, Learning)]
    head = wrapped("for parameter in [", (parameter_text(*name) for name in names), "]:")
    lines = [*head, f"    parameter.requires_grad_({learns})"]
    return lines if learns else [*lines, "    parameter.grad = None"]


def _mode_lines(settings: Sequence[Setting]) -> list[str]:
    changed = [setting for setting in settings if isinstance(setting.slot, Mode)]
    return [f"modules[{quoted(_parent(setting))}].training = {setting.after}" for setting in changed]


def whole_layers(lines: Sequence[str], model: Model, layers: Sequence[str], plan: Plan) -> Sequence[str]:
    """The same lines, a list of all parameters of some layers being put as these layers' ``parameters()``."""
    changed = {setting.place: setting for setting in plan.settings if isinstance(setting.slot, Learning)}
    if len(changed) <= MANY or not layers:
        return lines
    modules = named_modules(model)
    if not all(name in modules for name in layers):
        return lines
    learns = bool(next(iter(changed.values())).after)
    slots = {id(s.slot.module._parameters[s.slot.key]) for s in changed.values() if isinstance(s.slot, Learning)}
    inside = {id(p): p for name in layers for p in modules[name].parameters()}
    alike = all(p.requires_grad is learns and (learns or p.grad is None) for p in inside.values())
    if not (alike and slots <= inside.keys()):
        return lines
    start = next(index for index, line in enumerate(lines) if line.startswith("for parameter in ["))
    end = next(i for i in range(start, len(lines)) if lines[i].endswith("]:"))
    body = [line for line in lines[end + 1 :] if line.startswith("    parameter.")]
    rest = [line for line in lines[end + 1 :] if not line.startswith("    parameter.")]
    loops = [each for name in layers for each in (f"for parameter in modules[{quoted(name)}].parameters():", *body)]
    return [*lines[:start], *loops, *rest]
