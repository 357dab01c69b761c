"""On any model, whatever is measured of it at each step: training goes as without, and all layers are accounted for."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbdebug import Debugger, Trainer
from nbdebug.records.findings import Cause
from nbdebug.records.layers import GradientState
from nbdebug.records.signals import Signal
from tests.instruments import zoo
from tests.instruments.specimen import Case, Kind

STEPS = 12
PRESETS = ("light", "normal", "deep")


def roots(model: Any) -> dict[str, nn.Module]:
    return {"": model} if isinstance(model, nn.Module) else dict(model)


def bits(value: Any) -> Any:
    """Something that is equal only where every bit is: of tensors type, shape and bytes, sparse ones as stored."""
    if isinstance(value, torch.Tensor) and value.is_sparse:
        return ("sparse", value.is_coalesced(), bits(value._indices()), bits(value._values()))
    if isinstance(value, torch.Tensor):
        if torch.nn.parameter.is_lazy(value):
            return "lazy"
        stored = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return (str(value.dtype), tuple(value.shape), stored)
    if isinstance(value, dict):
        return {str(key): bits(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(each) for each in value]
    return repr(value)


def states(case: Case) -> dict[str, Any]:
    """All that must be equal, by name."""
    found: dict[str, Any] = {}
    for name, root in roots(case.model).items():
        found.update({f"weight {name}.{n}": bits(p) for n, p in root.named_parameters()})
        found.update({f"buffer {name}.{n}": bits(b) for n, b in root.named_buffers()})
        found.update({f"gradient {name}.{n}": bits(p.grad) for n, p in root.named_parameters()})
        found.update({f"requires a gradient {name}.{n}": p.requires_grad for n, p in root.named_parameters()})
        found.update({f"mode {name}.{n}": m.training for n, m in root.named_modules()})
        found.update({f"hooks {name}.{n}": hooks(m) for n, m in root.named_modules()})
        found.update({f"attributes {name}.{n}": sorted(vars(m)) for n, m in root.named_modules()})
    optimizers = case.optimizer if isinstance(case.optimizer, dict) else {"": case.optimizer}
    for name, optimizer in optimizers.items():
        found[f"optimizer {name}"] = bits(optimizer.state_dict())
    for name, other in case.state.items():
        found[f"state {name}"] = bits(other.state_dict())
    found["torch random state"] = bits(torch.get_rng_state())
    found["numpy random state"] = bits(np.random.get_state()[1].tolist())
    found["python random state"] = random.getstate()
    return found


def hooks(module: nn.Module) -> list[int]:
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return [len(kind) for kind in kinds]


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


@cache
def plain_states(name: str) -> dict[str, Any]:
    case = zoo.KINDS[name].make()
    zoo.train_plainly(case, STEPS)
    return states(case)


def watched(case: Case, preset: str) -> Debugger:
    trainer = Trainer(case.optimizer, case.loss_fn, case.batches, step=case.step, state=case.state)
    return Debugger(case.model, trainer, budget=None, probes=preset, journal=None)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", zoo.KINDS)
def test_every_bit_is_as_without_us_and_every_layer_is_accounted_for(name: str, preset: str) -> None:
    theirs = plain_states(name)
    kind = zoo.KINDS[name]
    case = kind.make()
    debugger = watched(case, preset)
    debugger.run(steps=STEPS)
    debugger.close()
    assert differences(states(case), theirs) == []
    told = [finding for finding in debugger.findings if finding.cause is not Cause.TOO_FEW_SAMPLES]  # as there are
    assert tuple(finding.title for finding in told) == kind.findings
    assert len(debugger.history["loss/train"].steps) == STEPS
    assert_activations(debugger, kind if preset != "light" else None)
    assert_gradients(debugger, kind)


def layers_of(debugger: Debugger, signal: Signal) -> set[str]:
    head = f"{signal}/"
    return {key.removeprefix(head) for key in debugger.history if key.startswith(head)}


def assert_activations(debugger: Debugger, kind: Kind | None) -> None:
    """Nothing is to be seen without a kind."""
    expected = set(kind.seen.split()) if kind else set()
    assert layers_of(debugger, Signal.ACTIVATIONS) == expected
    assert layers_of(debugger, Signal.ACTIVATION_MEAN) == expected
    unseen = {each.layer: each.why for each in debugger.unseen if each.what == "activations"}
    reasons = dict(kind.unseen) if kind else {}
    assert unseen.keys() == reasons.keys()
    assert {name: why for name, why in unseen.items() if reasons[name] not in why} == {}


def assert_gradients(debugger: Debugger, kind: Kind) -> None:
    """By state; those that learn show gradients and updates, those without a gradient were left as they were."""
    expected = {
        GradientState.PRESENT: set(kind.learning.split()),
        GradientState.FROZEN: set(kind.frozen.split()),
        GradientState.MISSING: set(kind.missing.split()),
    }
    latest = debugger._view(1).layers.latest
    assert latest is not None
    found: dict[GradientState, set[str]] = {state: set() for state in GradientState}
    for layer, value, there in zip(latest.layers, *latest.of(Signal.GRADIENT_STATE), strict=True):
        if there:
            found[GradientState(int(value))].add(layer)
    assert found == expected
    learning, missing = expected[GradientState.PRESENT], expected[GradientState.MISSING]
    assert layers_of(debugger, Signal.GRADIENT_MEAN) == learning
    assert layers_of(debugger, Signal.UPDATE_RATIO) == learning | missing
    for layer in missing:
        assert not np.any(debugger.history[f"{Signal.UPDATE_RATIO}/{layer}"].values), layer


def test_it_would_be_noticed() -> None:
    """The comparison itself: one bit of one weight, a draw, a mode, a hook."""
    name = "mlp"
    disturbances = {
        "weight": lambda case: case.model[0].weight.data.view(torch.int32)[0, 0].add_(1),
        "torch random": lambda case: torch.rand(1),
        "numpy random": lambda case: np.random.rand(),
        "python random": lambda case: random.random(),
        "mode": lambda case: case.model[2].eval(),
        "hooks": lambda case: case.model[1].register_forward_hook(print),
        "attributes": lambda case: setattr(case.model[1], "_left_behind", 1),
        "optimizer": lambda case: case.optimizer.state[case.model[0].weight]["exp_avg"].mul_(1.001),
        "gradient": lambda case: case.model[0].weight.grad.neg_(),
    }
    for what, disturb in disturbances.items():
        case = zoo.KINDS[name].make()
        zoo.train_plainly(case, STEPS)
        disturb(case)
        found = differences(states(case), plain_states(name))
        assert found and all(each.startswith(what) for each in found), what
