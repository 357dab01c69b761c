"""Swaps that are refused, transformer layers, plans that no longer fit, copies."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import CommandError
from nbdebug.training.surgery import (
    Activation,
    activation_layers,
    apply,
    plan_swap,
    undo,
    why_not,
)
from tests.training import surgery_zoo as zoo
from tests.training.surgery_zoo import imprint, outputs

EVERY = list(zoo.MODELS)
PLAIN = ("mlp of five", "cnn in place", "resnet", "module dict", "transformer", "nested", "used twice", "compiled")


REFUSED = {
    ("scripted", "1"): "part of a scripted module",
    ("partly scripted", "0.1"): "part of a scripted module",
    ("peeking", "act"): "the forward of Peeking reads its attribute 'negative_slope'",
    ("peeking", "last"): "the forward of Peeking asks for the type ReLU",
    ("hiding", "act"): "also held by 'steps', outside of the tree",
    ("lstm", "lstm"): "gates are part of its kernel",
    ("mlp of five", "9"): "no layer of this name",
    ("mlp of five", "0"): "Linear is no activation",
    ("functional", ""): "calls F.relu, x.sigmoid",
}


@pytest.mark.parametrize(("name", "layer"), REFUSED)
def test_what_cannot_be_swapped_is_refused_with_the_reason(name: str, layer: str) -> None:
    model, _, _ = zoo.make(name)
    plan = plan_swap(model, Activation.ELU, [layer])
    assert plan.changes == ()
    assert REFUSED[name, layer] in plan.refused[layer]


def test_more_refusals() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        static = torch.ao.nn.quantized.Linear(3, 3)
    computed = nn.Sequential(nn.Linear(3, 3), nn.PReLU(3))
    nn.utils.parametrizations.weight_norm(computed[1], dim=None)
    positive = nn.Linear(3, 3)
    nn.utils.parametrize.register_parametrization(positive, "weight", nn.Softplus())
    alone = nn.Sequential(nn.Linear(3, 3), torch.compile(nn.ReLU(), backend="eager"))
    cases = {
        "quantised": (nn.Sequential(static, nn.ReLU()), "1"),
        "parametrised": (computed, "1"),
        "computes a parameter": (positive, "parametrizations.weight.0"),
        "compiled by itself": (alone, "1._orig_mod"),
        "the model itself": (nn.ReLU(), ""),
        "across a dimension": (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), "1"),
        "ReLU already": (zoo.mlp(), "1"),
    }
    for reason, (model, layer) in cases.items():
        kind = Activation.RELU if "already" in reason else Activation.ELU
        plan = plan_swap(model, kind, [layer])
        assert plan.changes == ()
        assert reason in plan.refused[layer], reason


def test_the_output_and_identities_are_exchanged_by_name_only() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Identity(), nn.Linear(3, 1), nn.Sigmoid())
    plan = plan_swap(model, Activation.ELU)
    assert [change.layer for change in plan.changes] == ["1"]
    assert plan.refused == {"4": "it makes the output: name it to exchange it"}
    plan = plan_swap(model, Activation.ELU, ["2", "4"])
    assert [change.text for change in plan.changes] == ["Identity → ELU", "Sigmoid → ELU"]
    assert list(activation_layers(model)) == ["1", "4"]


def test_why_not_tells_layer_by_layer() -> None:
    functional, _, _ = zoo.make("functional")
    assert why_not(functional)[""] == (
        "its forward calls F.relu, x.sigmoid: only modules can be exchanged, not functions; "
        "it holds a function as act: only modules can be exchanged, not functions"
    )
    assert "gates" in why_not(zoo.make("lstm")[0])["lstm"]
    assert list(why_not(zoo.make("scripted")[0])) == ["1", "3"]
    assert set(why_not(zoo.make("peeking")[0])) == {"act", "last"}
    assert why_not(zoo.make("mlp of five")[0]) == {}


def test_the_activation_of_a_transformer_layer_may_be_a_function() -> None:
    model, x, _ = zoo.make("transformer")
    first = model.encoder.layers[0]
    plan = plan_swap(model, Activation.GELU)
    assert [change.layer for change in plan.changes] == [f"encoder.layers.{i}.activation" for i in (0, 1)]
    applied = apply(plan)
    assert first.activation_relu_or_gelu == 2
    assert isinstance(first.activation, nn.GELU)
    with torch.no_grad():
        slow = [model.eval()(x), None]
        torch.backends.mha.set_fastpath_enabled(False)
        slow[1] = model(x)
        torch.backends.mha.set_fastpath_enabled(True)
    assert torch.allclose(*slow, atol=1e-5)
    undo(applied)
    assert first.activation is F.relu
    assert first.activation_relu_or_gelu == 1
    assert "activation" not in first._modules


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padded_batches_in_evaluation_take_no_path_made_for_relu() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 1)
    x, padding = torch.randn(2, 4, 8), torch.tensor([[False] * 4, [False, False, True, True]])
    assert model.use_nested_tensor
    applied = apply(plan_swap(model, Activation.TANH))
    assert not model.use_nested_tensor
    with torch.no_grad():
        train, evaluation = (model.train(mode)(x, src_key_padding_mask=padding)[~padding] for mode in (True, False))
    assert torch.allclose(train, evaluation, atol=1e-6)
    undo(applied)
    assert model.use_nested_tensor


def test_a_stale_plan_and_an_undoing_out_of_order_are_refused() -> None:
    model, _, _ = zoo.make("mlp of five")
    old = plan_swap(model, Activation.GELU)
    first = apply(plan_swap(model, Activation.ELU, ["1"]))
    with pytest.raises(CommandError, match="can't change 1: it is another since"):
        apply(old)
    assert isinstance(model[3], nn.Tanh)
    second = apply(plan_swap(model, Activation.SELU, ["1"]))
    with pytest.raises(CommandError, match="can't undo the change of 1: it was changed again since"):
        undo(first)
    undo(second)
    undo(first)
    with pytest.raises(CommandError, match="changed again"):
        undo(first)


def test_a_mode_set_meanwhile_holds_for_what_comes_back() -> None:
    model, _, _ = zoo.make("mlp of five")
    applied = apply(plan_swap(model, Activation.GELU))
    model.eval()
    undo(applied)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["decoder", "transformer", "module dict", "resnet"])
def test_copies_of_a_swapped_model_compute_the_same(name: str) -> None:
    model, x, _ = zoo.make(name)
    before = imprint(model)
    first = apply(plan_swap(model, Activation.TANH))
    second = apply(plan_swap(model, Activation.PRELU))
    twin = copy.deepcopy(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert outputs(twin, x) == outputs(model, x)
    undo(second)
    undo(first)
    assert imprint(model) == before


def test_what_comes_new_into_a_model_in_evaluation_mode_is_in_it_too() -> None:
    for name in ("transformer", "mlp of five"):
        model, _, _ = zoo.make(name)
        model.eval()
        apply(plan_swap(model, Activation.NOISY_RELU))
        assert not any(module.training for module in model.modules())
