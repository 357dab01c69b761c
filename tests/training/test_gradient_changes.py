"""Clipping layer by layer, and noise: what is clipped with what, in which order, whose random numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.training.gradient_noise import SEED
from tests.training.by_hand import LAYERS, data, made, network, plainly, same, sgd


def test_layers_before_all_and_a_rule_taken_away() -> None:
    model, case = made()
    case.run(steps=3)
    case.set(clip_norm=0.5)
    case.set(clip_norm={"fc1": 0.05}, clip_value={"head": 1e-3})
    case.run(steps=4)
    case.set(clip_norm={"fc1": None})
    case.run(steps=4)
    case.set(clip_value={"head": None}, clip_norm={"fc*": 0.1})
    case.run(steps=4)
    changes = {
        3: {"whole": 0.5, "norms": {"fc1": 0.05}, "values": {"head": 1e-3}},
        7: {"gone": ["fc1"]},
        11: {"gone": ["head"], "norms": {"fc*": 0.1}},
    }
    assert same(model, plainly(sgd, changes, 15))
    assert case._session.knobs.states().layer_clips[0][0] == "fc*"
    case.close()


def test_a_name_is_all_of_a_layer_together_and_a_pattern_each_by_itself() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 3))
    twin = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 3))
    for name, clip in (("0", [["0"]]), ("0.*", [["0.0"], ["0.1"]]), ("0*", [["0.0"], ["0.1"]])):
        twin.load_state_dict(model.state_dict())
        case = Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data()), journal=None)
        case.set(clip_norm={name: 0.01})
        case.run(steps=1)
        case.close()
        x, y = data()[0]
        F.cross_entropy(twin(x), y).backward()
        for layers in clip:
            nn.utils.clip_grad_norm_([p for layer in layers for p in twin.get_submodule(layer).parameters()], 0.01)
        torch.optim.SGD(twin.parameters(), 0.1).step()
        twin.zero_grad()
        assert same(model, twin), name


def test_nobody_elses_random_numbers_move_and_none_is_as_never() -> None:
    model, case = made()
    case.set(gradient_noise=0.5)
    case.set(gradient_noise=0)
    case.run(steps=9)
    assert same(model, plainly(sgd, {}, 9))
    state = case._session.random.state().torch_cpu
    case.rerun(steps=9, start="start", gradient_noise=0.5)
    assert torch.equal(case._session.random.state().torch_cpu, state)
    case.set(gradient_noise=0.0)
    case.run(steps=2)
    case.set(gradient_noise=0.1)
    case.run(steps=3)
    assert same(model, plainly(sgd, {0: {"noise": 0.5}, 9: {"noise": 0.0}, 11: {"noise": 0.1}}, 14))
    case.close()


def test_another_seed_draws_other_noise() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(8, 3)
        case = Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data()), journal=None)
        case.set(gradient_noise=1.0)
        case.run(steps=1)
        first = model.weight.detach().clone()
        case.rerun(steps=1, start="start", gradient_noise=1.0, seed=seed)
        found = model.weight.detach().clone()
        case.rewind(0)
        case.checkout("main")
        assert torch.equal(model.weight, first)
        case.checkout(list(case.runs)[-1])
        assert torch.equal(model.weight, found)
        case.close()
        assert not torch.equal(found, first)
        return found

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_size_of_noise() -> None:
    model = nn.Linear(200, 300)
    before = model.weight.detach().clone()
    trainer = Trainer(
        torch.optim.SGD(model.parameters(), 1.0), lambda out, _: 0 * out.sum(), [(torch.randn(2, 200),) * 2]
    )
    case = Debugger(model, trainer, journal=None)
    case.set(gradient_noise=0.25)
    case.run(steps=1)
    moved = model.weight.detach() - before
    assert abs(float(moved.mean())) < 0.005
    assert abs(float(moved.std()) - 0.25) < 0.005
    case.close()


def test_several_optimizers_each_clip_and_draw_for_their_own() -> None:
    def setup() -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
        torch.manual_seed(0)
        parts = {"a": nn.Linear(8, 4), "b": nn.Linear(4, 3)}
        return parts, {name: torch.optim.SGD(part.parameters(), 0.1) for name, part in parts.items()}

    def step(models: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss = loss_fn(models["b"](models["a"](batch[0])), batch[1])
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        return loss

    parts, optimizers = setup()
    case = Debugger(parts, Trainer(optimizers, F.cross_entropy, data(), step=step), journal=None)
    case.set(clip_norm={"a": 0.02, "*": 0.05}, gradient_noise=0.01)
    case.run(steps=4)
    twins, others = setup()
    generator = torch.Generator().manual_seed(SEED)
    for x, y in data()[:4]:
        for optimizer in others.values():
            optimizer.zero_grad()
        F.cross_entropy(twins["b"](twins["a"](x)), y).backward()
        for name in ("a", "b"):
            nn.utils.clip_grad_norm_(twins[name].parameters(), 0.05)
            if name == "a":
                nn.utils.clip_grad_norm_(twins[name].parameters(), 0.02)
            for parameter in twins[name].parameters():
                parameter.grad += torch.randn(parameter.shape, generator=generator) * 0.01
            others[name].step()
    assert all(same(parts[name], twins[name]) for name in parts)
    case.close()


def test_what_is_measured_after_clipping_is_after_all_of_it_and_before_noise() -> None:
    model = network()
    torch.manual_seed(5)
    case = Debugger(model, Trainer(sgd(model.parameters()), F.cross_entropy, data()), journal=None, budget=None)
    case.set(clip_norm={"fc1": 0.02}, gradient_noise=0.5)
    case.set(clip_norm=0.1)
    case.run(steps=1)
    twin = network()
    torch.manual_seed(5)
    x, y = data()[0]
    F.cross_entropy(twin(x), y).backward()
    layers = {name: list(twin.get_submodule(name).parameters()) for name in LAYERS}
    raw = {name: float(nn.utils.get_total_norm([p.grad for p in held])) for name, held in layers.items()}
    whole = float(nn.utils.get_total_norm([p.grad for p in twin.parameters()]))
    nn.utils.clip_grad_norm_(twin.fc1.parameters(), 0.02)
    limited = float(nn.utils.clip_grad_norm_(twin.parameters(), 0.1))
    history = case.history
    assert history["grad_norm"].values[0] == pytest.approx(whole)
    assert history["clip_rate"].values[0] == (limited > 0.1)
    for name, held in layers.items():
        after = float(nn.utils.get_total_norm([p.grad for p in held]))
        assert history[f"grad_norm/{name}"].values[0] == pytest.approx(raw[name], rel=1e-5)
        assert history[f"grad_norm_clipped/{name}"].values[0] == pytest.approx(after, rel=1e-5), name
    case.close()


def test_the_rate_of_clipping_goes_by_what_layers_clipping_left() -> None:
    _, case = made()
    case.set(clip_norm={"*": 1e-4})
    case.set(clip_norm=0.1)
    case.run(steps=1)
    assert case.history["grad_norm"].values[0] > 0.1
    assert case.history["clip_rate"].values[0] == 0
    case.close()
