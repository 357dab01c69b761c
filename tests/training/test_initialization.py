"""Re-initialisation: the right scale, in the right places, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nbdebug import ConfigurationError, Debugger, InitScheme, Trainer
from nbdebug.training.initialization import Draw, Function, Reset, Zero, plan, reinitialize
from tests.training import zoo
from tests.training.test_do_no_harm import watched

FAN_IN, FAN_OUT = 400, 200
DEVIATION = {
    InitScheme.KAIMING_NORMAL: math.sqrt(2 / FAN_IN),
    InitScheme.KAIMING_UNIFORM: math.sqrt(2 / FAN_IN),
    InitScheme.LECUN_NORMAL: math.sqrt(1 / FAN_IN),
    InitScheme.LECUN_UNIFORM: math.sqrt(1 / FAN_IN),
    InitScheme.XAVIER_NORMAL: math.sqrt(2 / (FAN_IN + FAN_OUT)),
    InitScheme.XAVIER_UNIFORM: math.sqrt(2 / (FAN_IN + FAN_OUT)),
    InitScheme.DEFAULT: math.sqrt(1 / (3 * FAN_IN)),
}


@pytest.mark.parametrize("scheme", DEVIATION)
def test_the_deviation_is_the_schemes(scheme: InitScheme) -> None:
    layer = nn.Linear(FAN_IN, FAN_OUT)
    reinitialize(layer, scheme, seed=1)
    assert layer.weight.std().item() == pytest.approx(DEVIATION[scheme], rel=0.02)
    assert layer.weight.mean().abs() < 0.002
    if scheme is not InitScheme.DEFAULT:
        assert not layer.bias.any()
    peak = layer.weight.abs().max().item() / layer.weight.std().item()
    assert (peak < 1.8) == (scheme.endswith("uniform") or scheme is InitScheme.DEFAULT)


def test_orthogonal_rows() -> None:
    layer = nn.Linear(50, 20)
    reinitialize(layer, InitScheme.ORTHOGONAL, seed=0)
    assert torch.allclose(layer.weight @ layer.weight.T, torch.eye(20), atol=1e-5)


def test_orthogonal_weights_of_any_layout() -> None:
    transposed = nn.ConvTranspose2d(4, 3, 2)
    reinitialize(transposed, InitScheme.ORTHOGONAL, seed=0)
    rows = transposed.weight.transpose(0, 1).reshape(3, -1)
    assert torch.allclose(rows @ rows.T, torch.eye(3), atol=1e-5)
    last = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    reinitialize(last, InitScheme.ORTHOGONAL, seed=0)
    rows = last.weight.reshape(6, -1)
    assert torch.allclose(rows @ rows.T, torch.eye(6), atol=1e-5)
    assert last.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_default_scheme_draws_what_building_the_model_draws() -> None:
    for name, (build, _) in zoo.MODELS.items():
        torch.manual_seed(11)
        fresh = build()
        model = build()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        reinitialize(model, InitScheme.DEFAULT, seed=11)
        if "transformer" in name:
            continue  # its attention is drawn after its children, its constructor before
        for (key, ours), theirs in zip(model.named_parameters(), fresh.parameters(), strict=True):
            assert torch.equal(ours, theirs), (name, key)


def test_transposed_convolutions_recurrent_gates_and_attention_use_their_own_fans() -> None:
    transposed = nn.ConvTranspose2d(64, 8, 3)
    reinitialize(transposed, InitScheme.LECUN_NORMAL, seed=0)
    assert transposed.weight.std().item() == pytest.approx(math.sqrt(1 / (64 * 9)), rel=0.05)
    lstm = nn.LSTM(100, 100)
    reinitialize(lstm, InitScheme.XAVIER_NORMAL, seed=0)
    assert lstm.weight_ih_l0.std().item() == pytest.approx(math.sqrt(2 / 200), rel=0.02)
    assert not lstm.bias_ih_l0.any()
    attention = nn.MultiheadAttention(64, 4)
    reinitialize(attention, InitScheme.XAVIER_NORMAL, seed=0)
    assert attention.in_proj_weight.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.03)
    assert not attention.in_proj_bias.any()


def test_norm_layers_and_buffers_are_reset_and_frozen_layers_stay() -> None:
    model = zoo.FrozenNormCnn()
    with torch.no_grad():
        for module in (model.bn1, model.bn2):
            module.weight.fill_(3.0)
            module.running_mean.fill_(5.0)
    redrawn = reinitialize(model, InitScheme.KAIMING_NORMAL, seed=0)
    assert model.bn1.weight.tolist() == [3.0] * 8
    assert model.bn1.running_mean.tolist() == [5.0] * 8
    assert model.bn2.weight.tolist() == [1.0] * 8
    assert model.bn2.running_mean.tolist() == [0.0] * 8
    assert redrawn.left == (("bn1", "frozen"),)


def test_tied_weights_are_drawn_once_as_the_heads() -> None:
    embed, head = nn.Embedding(300, 100), nn.Linear(100, 300)
    head.weight = embed.weight
    model = nn.ModuleList([embed, head])
    redrawn = reinitialize(model, InitScheme.LECUN_NORMAL, seed=0)
    assert embed.weight is head.weight
    assert head.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert len(redrawn.parameters) == 2


def test_the_seed_decides_and_the_runs_random_state_is_left_alone() -> None:
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    state = torch.get_rng_state()
    reinitialize(first, InitScheme.KAIMING_NORMAL, seed=4)
    reinitialize(second, InitScheme.KAIMING_NORMAL, seed=4)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_optimizer_state_of_redrawn_layers_is_cleared_unless_kept() -> None:
    case = zoo.make("mlp")
    debugger = watched(case)
    debugger.run(steps=3)
    debugger.reinitialize("kaiming_normal", seed=0, layers="3", keep_optimizer_state=True)
    assert len(case.optimizer.state) == 4
    before = case.model[0].weight.clone()
    outcome = debugger.reinitialize("kaiming_normal", seed=0, layers="3")
    assert torch.equal(case.model[0].weight, before)
    assert {id(p) for p in case.optimizer.state} == {id(p) for p in case.model[0].parameters()}
    assert "seed 0: 1 layer" in outcome.text
    debugger.run(steps=1)
    debugger.close()


def test_unknown_schemes_and_layers_get_their_nearest() -> None:
    debugger = watched(zoo.make("mlp"))
    with pytest.raises(ConfigurationError, match="unknown init scheme 'he': did you mean 'kaiming_normal'"):
        debugger.reinitialize("he")
    with pytest.raises(ConfigurationError, match="no layer '5'"):
        debugger.reinitialize("xavier_normal", layers=["5"])
    debugger.close()


def test_a_plan_changes_nothing_and_says_what_will_be_drawn() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 5))
    model[1].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    planned = plan(model, InitScheme.KAIMING_NORMAL)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    relu = Function("kaiming_normal_", "relu")
    assert planned.operations[:4] == (
        Draw("0", "weight", relu),
        Zero("0", "bias"),
        Reset("1", "reset_parameters", kept=("bias",)),
        Draw("2", "weight_ih_l0", relu, blocks=4),
    )
    assert planned.names[:3] == (("0", "weight"), ("0", "bias"), ("1", "weight"))
    assert planned.redrawn == reinitialize(model, InitScheme.KAIMING_NORMAL, seed=0)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.inner(x) * self.scale


def test_what_no_scheme_knows_is_left_and_said() -> None:
    model = Own()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    debugger = Debugger(model, Trainer(optimizer, nn.functional.mse_loss, [(torch.ones(1, 3), torch.ones(1, 3))]))
    outcome = debugger.reinitialize("orthogonal", seed=0)
    assert "Own has parameters of its own kind" in outcome.text
    assert model.scale.tolist() == [1.0] * 3
    debugger.close()
