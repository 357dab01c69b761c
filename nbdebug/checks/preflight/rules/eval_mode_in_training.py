"""Dropout that drops nothing and batch norms that gather no statistics in training: the model was left in eval mode."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.wiring import listed
from nbdebug.records.findings import Cause, Remedy, Severity

LAYERS = "layers_in_eval_mode"


def judge(look: Look, say: Say) -> None:
    """Layers that behave otherwise in training, and whose every call in a step was in eval mode."""
    if not any(backward.reached for trace in look.traces for backward in trace.backwards):
        say.skip("no parameter got a gradient")
    awake = [{call.layer for call in trace.layers if call.training} for trace in look.traces]
    asleep: dict[str, None] = {}
    for place, trace in enumerate(look.traces):
        elsewhere = set[str]().union(*(names for other, names in enumerate(awake) if other != place))
        called = dict.fromkeys(call.layer for call in trace.layers)
        for name in called:
            if name not in awake[place] and _counts(look, say, trace, name, name in elsewhere):
                asleep[name] = None
    if say.measure("dropout and batch norm layers in eval mode while training", len(asleep), LAYERS):
        _tell(look, say, list(asleep))


def _counts(look: Look, say: Say, trace: StepTrace, name: str, awake_elsewhere: bool) -> bool:
    """Whether it should be awake.

    Norms that are frozen, or that bring statistics of their own, may sleep, and a dropout that alone was put to sleep.
    """
    module = look.modules.get(name)
    reached = frozenset[str]().union(*(backward.reached for backward in trace.backwards))
    if isinstance(module, _DropoutNd):
        root = "" if isinstance(look.model, nn.Module) else name.partition(".")[0]
        learns = any(each.startswith(f"{root}.") or not root for each in reached)
        left = awake_elsewhere or (_root_asleep(trace, root) and not _brings_statistics(look))
        return module.p > 0 and learns and left
    if not isinstance(module, _BatchNorm) or module.running_mean is None:
        return False
    if module.weight is not None and f"{name}.weight" not in reached:
        return False
    root = "" if isinstance(look.model, nn.Module) else name.partition(".")[0]
    return _is_fresh(module) or awake_elsewhere or (say.step > 0 and _root_asleep(trace, root))


def _is_fresh(norm: _BatchNorm) -> bool:
    assert norm.running_mean is not None and norm.running_var is not None
    return not bool(torch.any(norm.running_mean)) and bool((norm.running_var == 1).all())


def _brings_statistics(look: Look) -> bool:
    norms = [each for each in look.modules.values() if isinstance(each, _BatchNorm) and each.running_mean is not None]
    return any(not _is_fresh(norm) for norm in norms)


def _root_asleep(trace: StepTrace, root: str) -> bool:
    """Whether the whole network was in eval mode each time, rather than some of its layers."""
    calls = [call for call in trace.models if call.root == root]
    return bool(calls) and not any(call.training for call in calls)


def _tell(look: Look, say: Say, asleep: list[str]) -> None:
    norms = [name for name in asleep if isinstance(look.modules[name], _BatchNorm)]
    drops = [name for name in asleep if name not in norms]
    effects = [f"dropout ({listed(drops)}) drops nothing"] if drops else []
    effects += [f"batch norm ({listed(norms)}) keeps to old statistics and gathers none"] if norms else []
    say.find(
        Cause.EVAL_MODE_IN_TRAINING,
        Severity.WARNING,
        "The model trains in eval mode",
        f"These layers were in eval mode in every forward of a training step: {' and '.join(effects)}. Usually a "
        "model.eval() for validation was not followed by model.train().",
        confidence=0.9,
        layers=tuple(asleep),
        remedies=(Remedy("Switch back at the start of each training step or epoch.", code="model.train()"),),
    )


CHECK = Check(
    "eval_mode_in_training",
    "dropout and batch norm are in training mode",
    judge,
    (Cause.EVAL_MODE_IN_TRAINING,),
    parameters=(Parameter(LAYERS, 0, "dropout and batch norm layers that may be in eval mode while training"),),
    source="37 reasons why your neural network is not working: check the mode of batch norm and dropout",
)
