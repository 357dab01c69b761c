from __future__ import annotations

import gc
import math
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nbdebug.records.stops import Origin, Phase
from nbdebug.tools import origin as origin_module
from nbdebug.tools.origin import find_origin
from nbdebug.tools.origin_watch import Watch
from tests.tools.faults import (
    FAULTS,
    FILE,
    Fault,
    Layer,
    Recurrent,
    Step,
    Within,
    attention_step,
    data,
    line_of,
    padding,
    step_of,
)


@pytest.fixture(autouse=True)
def watches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Watch]]:
    """The watching itself must not have failed anywhere."""
    made: list[Watch] = []

    class Kept(Watch):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(origin_module, "Watch", Kept)
    torch.manual_seed(0)
    yield made
    for watch in made:
        if watch.error is not None:
            raise watch.error


def find(step: Step) -> Origin | None:
    return find_origin(step.rerun, step.roots, step.optimizers, step.batch)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    origin = find(fault.build())
    assert origin is not None
    assert (origin.phase, origin.operation, origin.module) == (fault.phase, fault.operation, fault.module)
    assert origin.source == fault.source
    assert fault.advice in origin.advice and origin.advice
    if fault.kind is not None:
        assert origin.kind == fault.kind
    if fault.samples is not None:
        assert origin.samples == fault.samples
    if fault.module_type is not None:
        assert origin.module_type == fault.module_type
    if fault.marked:
        assert origin.line is not None
        assert (origin.line.file, origin.line.line) == (str(FILE), line_of(fault.name))
    if fault.inner:
        assert origin.inner_line is not None
        assert origin.inner_line.line == line_of(f"inner {fault.name}")


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        act = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        act.add_module("act", Layer(lambda x: torch.log(x * 0)))
        self.blocks = nn.ModuleList([nn.Linear(4, 4), act])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x[:, :2]


def test_the_path_leads_from_the_outermost_module_to_the_one_at_work() -> None:
    origin = find(step_of(Deep(), *data(), F.mse_loss))
    assert origin is not None
    assert origin.path == ("blocks", "blocks.1", "blocks.1.act")
    assert (origin.module, origin.module_type) == ("blocks.1.act", "Layer")


def test_inputs_and_parameters_are_described() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[1].eval()
    model[1].running_var[1] = -1.0
    origin = find(step_of(model, *data(), F.mse_loss))
    assert origin is not None
    ranges = {given.name: given for given in origin.inputs}
    assert ranges["1.running_var"].low == -1.0
    assert ranges["input"].shape == (6, 3)
    assert {given.name for given in origin.parameters} >= {"1.weight", "1.bias", "1.running_mean", "1.running_var"}


def test_ranges_of_values_that_are_not_finite() -> None:
    inputs, target = data()
    inputs[1, :3] = torch.tensor([math.nan, math.inf, 0.0])
    origin = find(step_of(nn.Linear(4, 2), inputs, target, F.mse_loss))
    assert origin is not None
    given = next(given for given in origin.inputs if given.name == "batch[0]")
    assert (given.nans, given.infs, given.zeros, given.dtype) == (1, 1, 1, "float32")
    assert given.high == inputs[inputs.isfinite()].max().item()


def test_time_before_batch() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x.log())[0][-1]

    inputs = torch.ones(5, 6, 4)
    inputs[1, 3] = 0.0
    origin = find(step_of(Net(), inputs, data()[1], F.mse_loss))
    assert origin is not None
    assert (origin.operation, origin.samples) == ("log", (3,))


def test_linear_layers_over_time_tell_samples() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Flatten(1), nn.Linear(6, 2))
    nn.init.constant_(model[0].weight, 2.0)
    inputs = torch.ones(6, 3, 4)
    inputs[5, 1] = 3e38
    origin = find(step_of(model, inputs, data()[1], F.mse_loss))
    assert origin is not None
    assert (origin.operation, origin.module, origin.samples) == ("linear", "0", (5,))


def test_attention_of_torch_itself() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden, _ = self.attention(x, x, x, key_padding_mask=padding(4))
            return hidden.mean(dim=1)[:, :2]

    origin = find(step_of(Net(), torch.rand(5, 3, 4), data(5)[1], F.mse_loss))
    assert origin is not None
    assert (origin.operation, origin.module, origin.samples) == ("softmax", "attention", (4,))
    assert "finfo" in origin.advice


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_of_torch(kind: type[nn.RNNBase]) -> None:
    model = Recurrent(kind)
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] = math.nan
    origin = find(step_of(model, torch.rand(6, 3, 4), data()[1], F.mse_loss))
    assert origin is not None
    assert (origin.phase, origin.source, origin.module) == (Phase.BEFORE, "rnn.weight_hh_l0", "rnn")


def test_what_was_bad_before_and_did_not_matter_is_no_origin() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[8] = math.nan
    words = torch.arange(6)
    optimizer = torch.optim.Adam(model.parameters(), foreach=True)
    assert find(step_of(model, words, data()[1], F.mse_loss, optimizer)) is None
    optimizer = torch.optim.Adam(model.parameters())
    origin = find(step_of(model, words + 3, data()[1], F.mse_loss, optimizer))
    assert origin is not None
    assert (origin.source, origin.module, origin.operation) == ("0.weight", "0", "embedding")


def test_running_statistics_do_not_matter_in_training() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[1].running_var[0] = math.nan
    model[1].running_mean[0] = math.nan
    assert find(step_of(model, *data(), F.mse_loss)) is None
    nn.init.constant_(model[1].weight, 3e38)
    origin = find(step_of(model, *data(), F.mse_loss))
    assert origin is not None
    assert (origin.phase, origin.operation, origin.source) == (Phase.FORWARD, "batch_norm", "")


def test_an_overflow_without_consequence_is_no_origin() -> None:
    def sigmoid(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return 1 / (1 + torch.exp(x * 1000))

    model = Within(Layer(sigmoid))
    assert find(step_of(model, *data(), F.mse_loss)) is None


def test_sparse_gradients_are_watched() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(9, 2, sparse=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(self.words(x) * 0)

    model = Net()
    origin = find(step_of(model, torch.arange(6), data()[1], F.mse_loss))
    assert origin is not None
    assert (origin.phase, origin.operation) == (Phase.BACKWARD, "sqrt")


def test_a_gradient_left_from_before() -> None:
    model, (inputs, target) = nn.Linear(4, 2), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.weight.grad = torch.full((2, 4), math.nan)

    def rerun() -> Any:
        loss = F.mse_loss(model(inputs), target)
        loss.backward()
        optimizer.step()
        return loss

    origin = find(Step(rerun, {"": model}, {"": optimizer}, (inputs, target)))
    assert origin is not None
    assert (origin.phase, origin.source) == (Phase.BEFORE, "weight.grad")
    assert "zero_grad" in origin.advice


def test_bad_state_of_an_optimizer() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters())
    step = step_of(model, *data(), F.mse_loss, optimizer)
    step.rerun()
    optimizer.state[model.weight]["exp_avg"][0, 0] = math.nan
    origin = find(step)
    assert origin is not None
    assert (origin.phase, origin.source) == (Phase.BEFORE, "exp_avg of weight")


def test_a_learning_rate_that_is_not_finite() -> None:
    model = nn.Linear(4, 2)
    origin = find(step_of(model, *data(), F.mse_loss, torch.optim.SGD(model.parameters(), lr=math.inf)))
    assert origin is not None
    assert origin.phase is Phase.OPTIMIZER
    assert "lr" in origin.advice


def test_an_update_is_settled_by_its_result() -> None:
    model = Within(nn.ReLU())
    inputs, target = data()
    inputs[:, 0] = 0.0
    origin = find(step_of(model, inputs, target, F.mse_loss, torch.optim.Adadelta(model.parameters(), eps=0.0)))
    assert origin is not None
    assert (origin.phase, origin.operation, origin.module) == (Phase.OPTIMIZER, "div", "fc1")


def test_functional_transforms_in_a_step() -> None:
    model, (inputs, target) = nn.Linear(4, 2), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss_of(weights: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (torch.func.functional_call(model, weights, (x,)) * 0 - y).log().sum()

    def rerun() -> float:
        weights = dict(model.named_parameters())
        gradients = torch.func.vmap(torch.func.grad(loss_of), in_dims=(None, 0, 0))(weights, inputs, target * 0)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].mean(dim=0)
        optimizer.step()
        return 0.0

    origin = find(Step(rerun, {"": model}, {"": optimizer}, (inputs, target)))
    assert origin is not None
    assert (origin.phase, origin.operation) == (Phase.BACKWARD, "log")


@pytest.mark.parametrize("returned", ["tensor", "mapping", "object", "number"])
def test_the_loss_in_any_form(returned: str) -> None:
    model, (inputs, target) = nn.Linear(4, 2), data()

    def rerun() -> Any:
        loss = (model(inputs) * 0).log().mean()
        forms = {"tensor": loss, "mapping": {"loss": loss}, "object": SimpleNamespace(loss=loss), "number": loss.item}
        return forms[returned]() if returned == "number" else forms[returned]

    with warnings.catch_warnings(action="ignore"):
        origin = find(Step(rerun, {"": model}, {}, (inputs, target)))
    assert origin is not None
    assert origin.operation == "log"


@dataclass
class Record:
    x: torch.Tensor
    more: list[Any]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (lambda x: x, "batch"),
        (lambda x: (torch.zeros(6), {"deep": [x]}), 'batch[1]["deep"][0]'),
        (lambda x: {"x": x}, 'batch["x"]'),
        (lambda x: Record(torch.zeros(6), [x]), "batch.more[0]"),
    ],
)
def test_a_tensor_of_the_batch_is_named_as_python_reaches_it(place: Any, name: str) -> None:
    inputs, target = data()
    inputs[2, 2] = math.nan
    plain = step_of(nn.Linear(4, 2), inputs, target, F.mse_loss)
    origin = find(Step(plain.rerun, plain.roots, plain.optimizers, place(inputs)))
    assert origin is not None
    assert (origin.source, origin.samples) == (name, (2,))


def healthy_steps() -> dict[str, Step]:
    inputs, target = data()
    return {
        "masked": attention_step(padding(None), "added"),
        "large": step_of(nn.Linear(4, 2), inputs * 1e15, target, F.mse_loss),
        "norm at zero": step_of(nn.Linear(4, 2), inputs, target, lambda output, _: (output * 0).norm()),
        "closure": step_of_closure(inputs, target),
        "recurrent": step_of(Recurrent(nn.LSTM), torch.rand(6, 3, 4), target, F.mse_loss),
        "integers": step_of(nn.Embedding(9, 2), torch.arange(6), target, F.mse_loss),
        "nothing to train": Step(lambda: torch.zeros(0).sum(), {"": nn.Identity()}, {}, None),
    }


def step_of_closure(inputs: torch.Tensor, target: torch.Tensor) -> Step:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def evaluate() -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), target)
        loss.backward()
        return loss

    return Step(lambda: optimizer.step(evaluate), {"": model}, {"": optimizer}, (inputs, target))


@pytest.mark.parametrize("name", healthy_steps())
def test_a_healthy_step_has_none_and_is_left_as_it_was(name: str) -> None:
    step = healthy_steps()[name]
    assert find(step) is None
    assert nothing_left(step)


def nothing_left(step: Step) -> bool:
    modules = [module for root in step.roots.values() for module in root.modules()]
    hooks = [*(module._forward_hooks for module in modules), *(module._forward_pre_hooks for module in modules)]
    hooks += [optimizer._optimizer_step_pre_hooks for optimizer in step.optimizers.values()]
    hooks += [optimizer._optimizer_step_post_hooks for optimizer in step.optimizers.values()]
    return not any(hooks) and not torch._C._len_torch_dispatch_stack() and not torch.is_anomaly_enabled()


def test_watching_changes_nothing_of_the_step() -> None:
    def after(watched: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2))
        step = step_of(model, *data(), F.mse_loss, torch.optim.Adam(model.parameters()))
        for _ in range(3):
            if watched:
                find(step)
            else:
                step.rerun()
        return [*model.state_dict().values(), torch.rand(3)]

    assert all(torch.equal(one, other) for one, other in zip(after(True), after(False), strict=True))


def test_a_step_that_is_broken_off_leaves_nothing_behind() -> None:
    model = nn.Linear(4, 2)

    def rerun() -> None:
        model(data()[0])
        raise KeyboardInterrupt

    step = Step(rerun, {"": model}, {"": torch.optim.SGD(model.parameters(), lr=0.1)}, None)
    with pytest.raises(KeyboardInterrupt):
        find(step)
    assert nothing_left(step)


def test_an_error_in_the_watching_does_not_reach_the_step(
    watches: list[Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("unreadable")

    monkeypatch.setattr(Watch, "_judge", fails)
    model = nn.Linear(4, 2)
    origin = find(step_of(model, *data(), lambda output, _: (output * 0).log().mean()))
    assert origin is not None
    assert (origin.operation, origin.phase) == ("", Phase.FORWARD)
    assert str(watches.pop().error) == "unreadable"


def test_no_memory_is_held_after_the_step(watches: list[Watch]) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.log(x * 0)
        seen.append(weakref.ref(y))
        return y

    model = Within(Layer(function))
    assert find(step_of(model, *data(), lambda output, _: output.sum())) is not None
    gc.collect()
    assert watches
    assert seen[0]() is None
