"""Batch norms put into live models and taken out."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import CommandError
from nbdebug.training.surgery import (
    Activation,
    apply,
    plan_freeze,
    plan_insert_norms,
    plan_remove_norms,
    plan_swap,
    undo,
)
from tests.training import surgery_zoo as zoo
from tests.training.surgery_zoo import bits, imprint, random_states

EVERY = list(zoo.MODELS)
PLAIN = ("mlp of five", "cnn in place", "resnet", "module dict", "transformer", "nested", "used twice", "compiled")


# --- batch norm put in


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("exampled", [False, True])
def test_norms_put_in_keep_all_names_and_undone_leave_no_trace(name: str, exampled: bool) -> None:
    model, x, y = zoo.make(name)
    model = getattr(model, "_orig_mod", model)
    if name == "lazy" and exampled:
        with pytest.raises(CommandError, match="lazy"):
            plan_insert_norms(model, example=x)
        return
    if name not in ("lazy", "quantised"):
        F.cross_entropy(model(x), y).backward()
    before, states, keys = imprint(model), random_states(), list(model.state_dict())
    plan = plan_insert_norms(model, example=x if exampled else None)
    assert imprint(model) == before
    assert random_states() == states
    applied = apply(plan)
    assert [key for key in model.state_dict() if "inserted_norm" not in key] == keys
    assert len(plan.parameters_added) == 2 * len(plan.changes)
    assert set(plan.parameters_added) <= set(dict(model.named_parameters()))
    undo(applied)
    assert imprint(model) == before


def test_a_norm_put_in_norms_and_trains() -> None:
    model, x, y = zoo.make("mlp of five")
    x = torch.randn(64, 10)
    plain = model.eval()(x)
    model.train()
    plan = plan_insert_norms(model, ["0"], example=x)
    apply(plan)
    hidden = model[0](x)
    assert torch.allclose(hidden.mean(0), torch.zeros(12), atol=1e-5)
    assert torch.allclose(hidden.var(0, unbiased=False), torch.ones(12), atol=1e-2)
    fresh = zoo.make("mlp of five")[0]
    apply(plan_insert_norms(fresh, ["0"]))
    assert torch.allclose(fresh.eval()(x), plain, atol=1e-4)
    model.train()
    zoo.train(model, x[:8], y)
    assert model[0].inserted_norm.weight.detach().ne(1).any()


def test_sequences_are_normed_over_all_but_their_features() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    x = torch.randn(5, 6, 6) * 3
    apply(plan_insert_norms(model, example=x))
    hidden = model[0](x)
    assert hidden.shape == (5, 6, 6)
    assert torch.allclose(hidden.mean((0, 1)), torch.zeros(6), atol=1e-5)


def test_half_precision_is_normed_in_float32() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(6, 2)).bfloat16()
    apply(plan_insert_norms(model, ["0"]))
    assert model[0].inserted_norm.weight.dtype is torch.float32
    assert model(torch.randn(2, 1, 8, 8).bfloat16()).dtype is torch.bfloat16


def test_a_normed_model_copies_and_pickles() -> None:
    model, x, _ = zoo.make("mlp of five")
    apply(plan_insert_norms(model))
    model.eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
        assert twin[0].inserted_norm is not model[0].inserted_norm
        assert isinstance(twin[0], nn.Linear)


INSERTION_REFUSED = {
    ("cnn, frozen norm, dropout", "conv2"): "bn2 norms its output already",
    ("cnn in place", "0"): "1 norms its output already",
    ("resnet", "blocks.0.conv2"): "blocks.0.bn2 norms its output already",
    ("mlp of five", "4"): "it is the last layer",
    ("tied", "head"): "shared or tied",
    ("transformer", "encoder.layers.0.linear1"): "read its weight without calling it",
    ("computed weights", "0"): "it is parametrised",
    ("scripted", "0"): "scripted",
    ("lazy", "0"): "lazy",
    ("lstm", "lstm"): "LSTM is neither Linear nor a convolution",
    ("quantised", "0"): "quantised",
}


@pytest.mark.parametrize(("name", "layer"), INSERTION_REFUSED)
@pytest.mark.parametrize("exampled", [False, True])
def test_insertions_refused(name: str, layer: str, exampled: bool) -> None:
    model, x, _ = zoo.make(name)
    plan = plan_insert_norms(model, [layer], example=x if exampled and name != "lazy" else None)
    assert plan.changes == ()
    assert INSERTION_REFUSED[name, layer] in plan.refused[layer]


def test_one_sample_and_repeated_calls_are_refused() -> None:
    model, x, _ = zoo.make("mlp of five")
    assert "one sample" in plan_insert_norms(model, ["0"], example=x[:1]).refused["0"]
    assert "one sample" in plan_insert_norms(model, ["0"], batch_size=1).refused["0"]
    model, x, _ = zoo.make("shared layer")
    assert "called 3 times" in plan_insert_norms(model, ["inner"], example=x).refused["inner"]
    apply(plan_insert_norms(zoo_model := zoo.mlp(), ["0"]))
    assert "already" in plan_insert_norms(zoo_model, ["0"]).refused["0"]


# --- batch norm taken out


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", ["cnn in place", "resnet", "cnn, frozen norm, dropout"])
def test_norms_taken_out_and_undone_leave_no_trace(name: str, fold: bool) -> None:
    model, x, y = zoo.make(name)
    zoo.train(model, x, y)
    before, evaluated = imprint(model), model.eval()(x)
    model.train()
    if "frozen" in name:
        model.bn1.eval()
    plan = plan_remove_norms(model, fold=fold, example=x)
    assert len(plan.changes) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert imprint(model) == before
    applied = apply(plan)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert torch.allclose(model.eval()(x), evaluated, atol=1e-5) is fold
    model.train()
    if fold:
        fresh = [n for n in plan.parameters_added]
        assert fresh == (["blocks.0.conv1.bias", "blocks.0.conv2.bias", "blocks.1.conv1.bias", "blocks.1.conv2.bias"]
                         if name == "resnet" else [])  # fmt: skip
        assert len(plan.parameters_rewritten) + len(fresh) == 2 * len(plan.changes)
    undo(applied)
    if "frozen" in name:
        model.bn1.eval()
    assert imprint(model) == before
    again = apply(plan)
    assert torch.allclose(model.eval()(x), evaluated, atol=1e-5) is fold
    undo(again)


def test_inserted_norms_fold_into_their_layer() -> None:
    model, x, y = zoo.make("mlp of five")
    apply(plan_insert_norms(model))
    zoo.train(model, x, y, steps=5)
    before = model.eval()(x)
    plan = plan_remove_norms(model, fold=True)
    assert [change.layer for change in plan.changes] == ["0.inserted_norm", "2.inserted_norm"]
    apply(plan)
    assert torch.allclose(model(x), before, atol=1e-5)


def test_folds_that_are_not_certain_are_refused() -> None:
    model, _, _ = zoo.make("resnet")
    assert "not certain" in plan_remove_norms(model, ["blocks.0.bn1"], fold=True).refused["blocks.0.bn1"]
    first = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    refused = plan_remove_norms(first, fold=True).refused
    assert "not certain" in refused["0"]
    assert "what comes before it is ReLU" in refused["2"]
    assert "no statistics" in refused["3"]
    shared = nn.Linear(3, 3)
    twice = nn.Sequential(shared, nn.BatchNorm1d(3), shared, nn.BatchNorm1d(3))
    assert all("shared" in reason for reason in plan_remove_norms(twice, fold=True).refused.values())
    assert "lazy" in plan_remove_norms(zoo.make("lazy")[0]).refused["2"]


def test_the_same_plan_twice_is_the_same() -> None:
    for name in PLAIN:
        found = []
        for _ in range(2):
            model, _, _ = zoo.make(name)
            plans = [plan_swap(model, Activation.PRELU), plan_insert_norms(model), plan_freeze(model)]
            found.append(
                [
                    (change.layer, change.places, change.text, change.notes, [(n, bits(p)) for n, p in change.added])
                    for plan in plans
                    for change in plan.changes
                ]
            )
        assert found[0] == found[1]


def test_a_norm_put_into_a_model_in_evaluation_mode_is_in_it_too() -> None:
    model, _, _ = zoo.make("mlp of five")
    model.eval()
    apply(plan_insert_norms(model))
    assert not any(module.training for module in model.modules())


class Forked(nn.Module):
    """The layer's output goes into the norm, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.act = nn.Linear(10, 5), nn.BatchNorm1d(5), nn.ReLU()

    def forward(self, x):
        y = self.fc(x)
        return self.norm(y) + self.act(y)


def test_a_layer_whose_output_goes_elsewhere_too_takes_no_statistics_in() -> None:
    model = Forked()
    plan = plan_remove_norms(model, fold=True, example=torch.randn(4, 10))
    assert "not certain" in plan.refused["norm"]
    assert plan_remove_norms(model, example=torch.randn(4, 10)).changes
