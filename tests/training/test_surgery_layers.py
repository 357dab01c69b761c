"""Changes to live models: structures, freezing, batch norms in and out."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from nbdebug.training.surgery import (
    Activation,
    Originals,
    apply,
    capture,
    plan_freeze,
    plan_insert_norms,
    plan_remove_norms,
    plan_swap,
    plan_unfreeze,
    restore,
    undo,
)
from tests.training import surgery_zoo as zoo
from tests.training.surgery_zoo import bits, imprint

EVERY = list(zoo.MODELS)
PLAIN = ("mlp of five", "cnn in place", "resnet", "module dict", "transformer", "nested", "used twice", "compiled")


# --- structures


def test_structures_come_back_in_any_order_with_the_same_objects() -> None:
    model, x, y = zoo.make("cnn in place")
    zoo.train(model, x, y)
    originals = Originals()
    plans = [
        lambda: plan_swap(model, Activation.PRELU, ["2"]),
        lambda: plan_freeze(model, ["0"], hold_statistics=True),
        lambda: plan_remove_norms(model, ["1"]),
        lambda: plan_swap(model, Activation.GELU, ["2", "5"]),
        lambda: plan_insert_norms(model, ["0"]),
        lambda: plan_unfreeze(model, originals=originals),
    ]
    moments = [(capture(originals), trees(model))]
    for plan in plans:
        apply(plan(), originals)
        moments.append((capture(originals), trees(model)))
    assert not moments[0][0].values
    assert moments[1][0].lines == ("2: PReLU, was SiLU",)
    chance = random.Random(0)
    for _ in range(40):
        structure, tree = chance.choice(moments)
        restore(structure)
        assert trees(model) == tree
        assert not restore(structure)
    restore(moments[0][0])
    assert trees(model) == moments[0][1]


def trees(model: nn.Module) -> object:
    found = imprint(model)
    return [found[key] for key in ("modules", "children", "buffers", "hooks")] + [
        [entry[:3] for entry in found["parameters"]]  # type: ignore[attr-defined]
    ]


def test_capturing_looks_at_the_changes_only() -> None:
    model = nn.Sequential(*[nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(50)])
    originals = Originals()
    apply(plan_swap(model, Activation.TANH, ["7.1"]), originals)
    assert len(originals.values) == len(capture(originals).values) == 1
    undo(apply(plan_swap(model, Activation.ELU, ["9.1"]), originals))
    assert len(capture(originals).values) == 1


# --- freezing


@pytest.mark.parametrize("name", [name for name in EVERY if name != "lazy"])
def test_frozen_layers_stay_and_come_back(name: str) -> None:
    model, x, y = zoo.make(name)
    if not list(model.parameters()):
        return
    zoo.train(model, x, y)
    before = imprint(model)
    layer = next(n for n, m in model.named_modules() if n not in ("", "_orig_mod") and any(map(learns, m.parameters())))
    applied = apply(plan_freeze(model, [layer]))
    frozen = dict(model.named_modules())[layer]
    values = [bits(p) for p in frozen.parameters()]
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())
    undo(applied)
    assert imprint(model) == before
    apply(plan_freeze(model, [layer]))
    if any(map(learns, model.parameters())):
        zoo.train(model, x, y)
    assert [bits(p) for p in frozen.parameters()] == values


def learns(parameter: torch.Tensor) -> bool:
    return parameter.requires_grad


def test_a_frozen_parameter_does_not_drift_with_momentum() -> None:
    model, x, y = zoo.make("mlp of five")
    optimizer = zoo.train(model, x, y)
    apply(plan_freeze(model, ["0"]))
    before = bits(model[0].weight)
    optimizer.step()
    assert bits(model[0].weight) == before


def test_tied_and_purposely_frozen_parameters_are_told() -> None:
    model, _, _ = zoo.make("tied")
    plan = plan_freeze(model, ["embed"])
    assert plan.changes[0].notes == ("embed.weight is tied to head.weight, which freezes with it",)
    every = plan_freeze(model).changes
    assert sum(len(change.stopped) for change in every) == len(list(model.parameters()))
    model, _, _ = zoo.make("cnn, frozen norm, dropout")
    originals = Originals()
    apply(plan_freeze(model, hold_statistics=True), originals)
    assert not model.bn2.training
    plan = plan_unfreeze(model, originals=originals)
    assert list(plan.refused) == ["bn1.weight", "bn1.bias"]
    assert "frozen before any change" in plan.refused["bn1.weight"]
    apply(plan, originals)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["bn1.weight", "bn1.bias"]
    assert not model.bn1.training
    assert model.bn2.training
    plan = plan_unfreeze(model, ["bn1"], originals=originals)
    assert list(plan.parameters_added) == ["bn1.weight", "bn1.bias"]


def test_freezing_tells_what_it_can_not_do() -> None:
    model, _, _ = zoo.make("lazy")
    plan = plan_freeze(model, ["0", "1", "7"])
    assert "lazy" in plan.refused["0.weight"]
    assert plan.refused["1"] == "it has no parameters"
    assert plan.refused["7"] == "there is no layer of this name"
    model, _, _ = zoo.make("mlp of five")
    plan = plan_freeze(model)
    assert "nothing would learn" in plan.notes[0]
    apply(plan)
    assert plan_freeze(model, ["0"]).refused == {"0": "it is frozen already"}
