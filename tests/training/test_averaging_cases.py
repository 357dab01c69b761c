"""Averages in odd cases: special bits, statistics, states, half precision, models that change."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from nbdebug import ConfigurationError
from nbdebug.training.averaging import Average, Ema, Swa
from nbdebug.training.surgery import Activation, apply, plan_insert_norms, plan_swap, undo
from tests.training import surgery_zoo as zoo
from tests.training.surgery_zoo import bits, random_states
from tests.training.test_averaging import RULES, Run, averages


def test_special_bits_survive() -> None:
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[float("nan"), -0.0, float("inf")]]))
    before, average = bits(model.weight), Average(Ema(0.5))
    average.update(nn.Linear(3, 1, bias=False))
    with average.swapped(model):
        assert model.weight.isfinite().all()
    assert bits(model.weight) == before


def test_statistics_are_those_of_the_averaged_weights_as_torch_makes_them() -> None:
    run = Run("cnn in place")
    theirs, ours = AveragedModel(run.model), Average(Swa())
    for _ in range(4):
        run.step()
        theirs.update_parameters(run.model)
        ours.update(run.model)
    batches = [run.x, run.x + 1, run.x * 2]
    update_bn(batches, theirs)
    with ours.swapped(run.model, batches=batches):
        for key, value in theirs.module.state_dict().items():
            assert torch.allclose(run.model.state_dict()[key], value, rtol=1e-4, atol=1e-5), key
        assert run.model.training
        assert run.model[1].momentum == 0.1


def test_a_frozen_norm_keeps_its_statistics() -> None:
    run, average = Run("cnn, frozen norm, dropout"), Average(Swa())
    run.step()
    average.update(run.model)
    frozen, moving = bits(run.model.bn1.running_var), bits(run.model.bn2.running_var)
    with average.swapped(run.model, batches=[run.x]):
        assert bits(run.model.bn1.running_var) == frozen
        assert bits(run.model.bn2.running_var) != moving
    assert bits(run.model.bn2.running_var) == moving


def test_the_state_goes_on_where_it_was() -> None:
    for rule in RULES:
        run, average = Run("cnn in place"), Average(rule, buffers=True)
        for _ in range(4):
            run.step()
            average.update(run.model)
        kept, model, optimizer = copy.deepcopy((average.state_dict(), run.model, run.optimizer.state_dict()))
        outcomes = []
        for _ in range(2):
            other = Average(rule, buffers=True)
            other.load_state_dict(kept)
            run.model.load_state_dict(model.state_dict())
            run.optimizer.load_state_dict(copy.deepcopy(optimizer))
            for _ in range(3):
                run.step()
                other.update(run.model)
            outcomes.append({n: bits(t) for n, t in averages(other).items()})
        assert outcomes[0] == outcomes[1]
        assert other.steps == 7
        assert all(
            torch.equal(a, b) for a, b in zip(kept["averages"].values(), averages(average).values(), strict=True)
        )
    with pytest.raises(ConfigurationError, match=r"is by .*'Swa'.*, and the state's by .*'Ema'"):
        Average(Swa()).load_state_dict(Average(Ema()).state_dict())


def test_wrong_rules_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="decay is 1"):
        Ema(1.0)
    with pytest.raises(ConfigurationError, match=r"(?s)start is 0.*every is -1"):
        Swa(0, -1)


def test_half_precision_is_averaged_in_float32() -> None:
    model = nn.Linear(2, 2, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = Average(Ema(0.999))
    average.update(model)
    with torch.no_grad():
        model.weight.fill_(2.0)
    for _ in range(1000):
        average.update(model)
    assert averages(average)["weight"].dtype is torch.float32
    assert averages(average)["weight"][0, 0].item() == pytest.approx(2 - 0.999**1000, rel=1e-3)
    assert average.size_bytes == 16
    with average.swapped(model):
        assert model.weight.dtype is torch.bfloat16
        assert 1.5 < model.weight[0, 0].item() < 1.7
    assert (model.weight == 2).all()


def test_before_the_first_average_the_live_weights_serve() -> None:
    run, average = Run("mlp"), Average(Swa(start=5))
    average.update(run.model)
    before = run.everything()
    with average.swapped(run.model):
        assert run.everything()[0] == before[0]
    assert average.taken == average.size_bytes == 0


def test_parameters_that_come_and_go_with_a_change_of_the_model() -> None:
    run, average = Run("mlp of five"), Average(Swa())
    for _ in range(3):
        run.step()
        average.update(run.model)
    plans = [plan_swap(run.model, Activation.PRELU), plan_insert_norms(run.model, ["0"])]
    applied = [apply(plan) for plan in plans]
    fresh = [p for plan in plans for p in plan.parameters_added.values()]
    run.optimizer.add_param_group({"params": fresh})
    slopes = []
    for _ in range(2):
        run.step()
        average.update(run.model)
        slopes.append(run.model[1].weight.detach().clone())
    assert torch.allclose(averages(average)["1.weight"], sum(slopes) / 2)
    assert "0.inserted_norm.weight" in averages(average)
    assert average.taken == 5
    for done in reversed(applied):
        undo(done)
    average.update(run.model)
    assert set(averages(average)) == set(dict(run.model.named_parameters()))


def test_lazy_parameters_join_once_they_have_a_shape_and_models_may_be_several() -> None:
    model, x, _ = zoo.make("lazy")
    average = Average(Swa())
    average.update(model)
    assert set(averages(average)) == {"3.weight", "3.bias"}
    model(x)
    average.update(model)
    assert set(averages(average)) == {name for name, _ in model.named_parameters()}
    pair = {"G": nn.Linear(2, 2), "D": nn.Linear(2, 2)}
    both = Average(Ema())
    both.update(pair)
    assert list(averages(both)) == ["G.weight", "G.bias", "D.weight", "D.bias"]
    norm = {"G": nn.BatchNorm1d(2)}
    with (
        pytest.raises(ConfigurationError, match="give forward="),
        Average(Swa()).swapped(norm, batches=[torch.ones(2, 2)]),
    ):
        pass


def test_a_model_moved_to_another_type_takes_its_average_along() -> None:
    model = nn.Linear(2, 2)
    average = Average(Swa())
    average.update(model)
    model.double()
    average.update(model)
    assert {t.dtype for t in averages(average).values()} == {torch.float64}


def test_tied_weights_count_once() -> None:
    run, average = Run("tied"), Average(Ema())
    average.update(run.model)
    assert "head.weight" not in averages(average)
    with average.swapped(run.model):
        assert run.model.head.weight is run.model.embed.weight


def test_no_random_number_is_drawn_by_shuffled_batches() -> None:
    run, average = Run("cnn in place"), Average(Ema())
    average.update(run.model)
    loader = torch.utils.data.DataLoader([x for x in run.x], batch_size=4, shuffle=True)
    states = random_states(), repr(np.random.get_state()), random.getstate()
    with average.swapped(run.model, batches=loader):
        pass
    assert (random_states(), repr(np.random.get_state()), random.getstate()) == states
