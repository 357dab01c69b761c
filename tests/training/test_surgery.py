"""Changes to live models: what is done, what is refused, and that undoing leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.training.surgery import (
    Activation,
    apply,
    plan_insert_norms,
    plan_swap,
    undo,
)
from tests.training import surgery_zoo as zoo
from tests.training.surgery_zoo import imprint, outputs, random_states

EVERY = list(zoo.MODELS)
PLAIN = ("mlp of five", "cnn in place", "resnet", "module dict", "transformer", "nested", "used twice", "compiled")


@pytest.mark.parametrize("kind", [Activation.PRELU, Activation.GELU, Activation.NOISY_RELU, Activation.IDENTITY])
@pytest.mark.parametrize("name", EVERY)
def test_a_swap_undone_leaves_no_trace(name: str, kind: Activation) -> None:
    model, x, y = zoo.make(name)
    if name != "lazy" and name != "quantised":
        F.cross_entropy(model(x), y).backward()
    before, states = imprint(model), random_states()
    plan = plan_swap(model, kind)
    assert imprint(model) == before
    shape = model.__class__
    applied = apply(plan)
    assert (imprint(model) == before) is (not plan.changes)
    assert random_states() == states
    undo(applied)
    assert imprint(model) == before
    assert shape is model.__class__


@pytest.mark.parametrize("name", [name for name in EVERY if name != "lazy"])
def test_outputs_are_back_bit_for_bit_after_training_nothing(name: str) -> None:
    model, x, _ = zoo.make(name)
    before = outputs(model, x)
    for kind in (Activation.TANH, Activation.ELU):
        plan = plan_swap(model, kind)
        applied = apply(plan)
        during = outputs(model, x)
        assert (during != before) is bool(plan.changes), plan.refused
        undo(applied)
        assert outputs(model, x) == before


@pytest.mark.parametrize("name", zoo.LEARNING)
def test_a_swapped_model_trains(name: str) -> None:
    for kind in Activation:
        model, x, y = zoo.make(name)
        if name == "lazy":
            model(x)
        plan = plan_swap(model, kind)
        apply(plan)
        model.train()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer = zoo.train(model, x, y)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert all(id(p) in held for p in plan.parameters_added.values())
        assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] in ([], ["bn1.weight", "bn1.bias"])
        assert all(p.isfinite().all() for p in model.parameters())


def test_the_new_module_is_the_one_asked_for() -> None:
    expected = {
        Activation.RELU: F.relu, Activation.LEAKY_RELU: F.leaky_relu, Activation.ELU: F.elu, Activation.SELU: F.selu,
        Activation.GELU: F.gelu, Activation.SILU: F.silu, Activation.SOFTPLUS: F.softplus, Activation.TANH: torch.tanh,
        Activation.SIGMOID: torch.sigmoid, Activation.IDENTITY: lambda t: t,
        Activation.PRELU: lambda t: F.leaky_relu(t, 0.25),
        Activation.NOISY_RELU: lambda t: F.leaky_relu(t, (1 / 8 + 1 / 3) / 2),
    }  # fmt: skip
    assert set(expected) == set(Activation)
    for kind, function in expected.items():
        model, x, _ = zoo.make("mlp of five")
        model.eval()
        plan = plan_swap(model, kind, ["1", "3"])
        apply(plan)
        hidden = x
        for layer in (model[0], model[2]):
            hidden = function(layer(hidden))
        if not plan.refused:
            assert torch.equal(model(x), model[4](hidden)), kind
        else:
            assert list(plan.refused.values()) == [
                f"it is {type(model[int(next(iter(plan.refused)))]).__name__} already"
            ]


def test_a_module_in_many_places_is_exchanged_in_all() -> None:
    model, _, _ = zoo.make("resnet")
    relu = model.relu
    plan = plan_swap(model, Activation.PRELU, ["blocks.1.relu"])
    (change,) = plan.changes
    assert change.layer == "relu"
    assert change.places == ("relu", "blocks.0.relu", "blocks.1.relu")
    assert "it hangs in 3 places: relu, blocks.0.relu, blocks.1.relu" in change.notes
    applied = apply(plan)
    assert model.relu is model.blocks[0].relu is model.blocks[1].relu is not relu
    assert list(plan.parameters_added) == ["relu.weight"]
    assert plan.parameters_added["relu.weight"] is model.relu.weight
    undo(applied)
    assert model.relu is model.blocks[0].relu is model.blocks[1].relu is relu


def test_in_place_flags_are_kept_where_there_is_one() -> None:
    for kind in Activation:
        model, _, _ = zoo.make("cnn in place")
        plan = plan_swap(model, kind, ["2", "5"])
        apply(plan)
        for change in plan.changes:
            new = model[int(change.layer)]
            assert getattr(new, "inplace", False) is hasattr(new, "inplace")
            told = any("worked in place" in note for note in change.notes)
            assert told is not hasattr(new, "inplace")
    model, _, _ = zoo.make("mlp of five")
    apply(plan_swap(model, Activation.ELU))
    assert not model[1].inplace


def test_new_parameters_have_the_device_and_type_of_their_neighbours_and_come_in_order() -> None:
    model = nn.Sequential(nn.Linear(4, 4).double(), nn.ReLU(), nn.Linear(4, 4).half(), nn.ReLU(), nn.Linear(4, 2))
    plans = [plan_swap(model, Activation.PRELU) for _ in range(2)]
    assert [list(plan.parameters_added) for plan in plans] == [["1.weight", "3.weight"]] * 2
    dtypes = [p.dtype for p in plans[0].parameters_added.values()]
    assert dtypes == [torch.float64, torch.float16]
    assert all(p.item() == 0.25 for plan in plans for p in plan.parameters_added.values())
    assert any("no optimizer has yet" in note for note in plans[0].changes[0].notes)


def test_a_prelu_swapped_out_tells_its_parameters_and_loses_its_gradient_until_undone() -> None:
    model, x, y = zoo.make("nested")
    F.cross_entropy(model(x), y).backward()
    gradient = model[0][1].weight.grad
    plan = plan_swap(model, Activation.RELU)
    weight = model[0][1].weight
    assert list(plan.parameters_removed) == ["0.1.weight", "1.0.1.weight"]
    applied = apply(plan)
    assert weight.grad is None
    undo(applied)
    assert weight.grad is gradient


def test_hooks_on_an_exchanged_module_are_told_and_come_back() -> None:
    model, x, _ = zoo.make("mlp of five")
    calls: list[int] = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    plan = plan_swap(model, Activation.GELU, ["1"])
    assert plan.changes[0].notes == ("1 hook on it will not be called until this is undone",)
    applied = apply(plan)
    model(x)
    assert calls == []
    undo(applied)
    model(x)
    assert calls == [1]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["compiled", "compiled in place"])
def test_compiled_models_run_the_new_layers_and_then_the_old(name: str) -> None:
    model, x, _ = zoo.make(name)
    inner = getattr(model, "_orig_mod", model)
    torch._dynamo.reset()
    model.eval()
    before = model(x)
    plans = [plan_swap(model, Activation.SOFTPLUS), plan_insert_norms(model)]
    for plan in plans:
        assert plan.changes
        assert all(any("compiled again" in note for note in change.notes) for change in plan.changes)
        applied = apply(plan)
        for training in (True, False):
            model.train(training)
            torch.manual_seed(0)
            hidden = x
            for layer in inner:
                hidden = layer(hidden)
            ours = model(x)
            assert torch.allclose(ours, hidden)
        assert not torch.equal(ours, before)
        undo(applied)
        assert torch.equal(model(x), before)
