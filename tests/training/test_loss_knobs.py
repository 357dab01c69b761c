"""Label smoothing and the weights of a loss's parts, changed while training, as in a plain loop written with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.commands import Changes, SetKnobs
from nbdebug.records.errors import ConfigurationError
from nbdebug.records.status import State

LAST = 20
Plain = Callable[[Any, Any], torch.Tensor]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))


def data(count: int = 6) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    sizes = [6, 6, 4, 6, 5, 6][:count]
    return [(torch.randn(n, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator)) for n in sizes]


def made(loss_fn: Any, kind: Any = torch.optim.SGD, **options: Any) -> Debugger:
    model = network()
    optimizer = kind(model.parameters(), 0.05)
    return Debugger(model, Trainer(optimizer, loss_fn, data(), data(3), **options), journal=None)


def plainly(losses: dict[int, Plain], steps: int = LAST, kind: Any = torch.optim.SGD) -> tuple[Any, list[float], Any]:
    """Weights, training losses and validation losses where the loss is another after so many steps."""
    model = network()
    optimizer = kind(model.parameters(), 0.05)
    batches, train, val = data(), [], []
    loss_fn = losses[0]
    for step in range(steps):
        x, y = batches[step % 6]

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)  # noqa: B023
            loss.backward()
            return loss

        train.append(float(optimizer.step(closure).detach()))
        loss_fn = losses.get(step + 1, loss_fn) if (step + 1) % 6 else loss_fn
        if (step + 1) % 6 == 0:
            model.eval()
            with torch.no_grad():
                found = [(loss_fn(model(x), y).item(), len(y)) for x, y in data(3)]
            val.append(sum(v * n for v, n in found) / sum(n for _, n in found))
            model.train()
            loss_fn = losses.get(step + 1, loss_fn)
    return values(model), train, val


def values(of: nn.Module | Debugger) -> list[torch.Tensor]:
    model: Any = of._model if isinstance(of, Debugger) else of
    return [value.clone() for value in model.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def smoothed(value: float) -> Plain:
    return lambda output, target: F.cross_entropy(output, target, label_smoothing=value)


def size(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output**2).mean()


def bias(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return output.sum(1).pow(2).mean()


def weighted(ce: float, size_: float, bias_: float) -> Plain:
    def loss(output: Any, target: Any) -> torch.Tensor:
        return ce * F.cross_entropy(output, target) + size_ * size(output, target) + bias_ * bias(output, target)

    return loss


def own_step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    optimizer.zero_grad()
    loss = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


PARTS = {"ce": F.cross_entropy, "size": size, "bias": bias}
WEIGHTS = {"size": 0.3, "bias": 0.07}


@pytest.mark.parametrize("make_loss", [lambda: F.cross_entropy, nn.CrossEntropyLoss], ids=["function", "module"])
@pytest.mark.parametrize("options", [{}, {"step": own_step}], ids=["plain", "own step"])
def test_label_smoothing_acts_from_the_next_step_on_and_is_gone_back_over(make_loss: Any, options: Any) -> None:
    case = made(make_loss(), **options)
    case.run(steps=4)
    assert case.set(label_smoothing=0.1).text == "label smoothing 0.1"
    case.run(steps=3)
    middle = values(case)
    case.set(label_smoothing=0.4)
    case.run(steps=LAST - 7)
    expected, train, val = plainly({0: smoothed(0), 4: smoothed(0.1), 7: smoothed(0.4)})
    assert same(values(case), expected)
    assert case.history["loss/train"].values.tolist() == train and case.history["loss/val"].values.tolist() == val
    for kept in case.snapshots[1:]:
        case.drop_snapshot(kept)
    for step, value in ((7, 0.1), (2, 0.0), (9, 0.4), (7, 0.1)):
        case.rewind(step)
        assert case._knob_states().label_smoothing == value
    assert same(values(case), middle)
    case.checkout("main")
    assert same(values(case), expected) and not case.findings
    case.rerun(steps=LAST - 5, start=5, label_smoothing=0.2)
    assert same(values(case), plainly({0: smoothed(0), 4: smoothed(0.1), 5: smoothed(0.2)})[0])
    case.close()


def test_label_smoothing_is_undone_and_known_by_hand() -> None:
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.05)
    case = made(loss_fn)
    case.run(steps=2)
    case.set(label_smoothing=0.3)
    assert dict(case._knob_states().origins)["label_smoothing"] == "set at step 2 of main"
    assert case.undo().text == "back to label smoothing 0.05" and loss_fn.label_smoothing == 0.05
    loss_fn.label_smoothing = 0.5
    case.run(steps=LAST - 2)
    assert same(values(case), plainly({0: smoothed(0.05), 2: smoothed(0.5)})[0])
    changes = [each.change for each in case._session.timeline.lines["main"].interventions]
    assert changes[-1] == SetKnobs(Changes(label_smoothing=0.5))
    case.rewind(1)
    assert loss_fn.label_smoothing == 0.05
    case.close()


def test_a_forecast_and_the_record_of_a_running_change() -> None:
    case = made(F.cross_entropy)
    case.run(steps=2)
    told = case.forecast(label_smoothing=0.9)
    assert case._knob_states().label_smoothing == 0.0 and told.ratios.tolist() != told.ratios_now.tolist()
    case.run(steps=1)
    case.start(steps=300)
    case.set(label_smoothing=0.2)
    case.wait()
    at = case._session.timeline.lines["main"].interventions[-1].step
    assert same(values(case), plainly({0: smoothed(0), at: smoothed(0.2)}, 303)[0])
    case.close()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
@pytest.mark.parametrize("options", [{}, {"step": own_step}], ids=["plain", "own step"])
def test_weights_of_parts_act_as_in_the_sum_written_out(kind: Any, options: Any) -> None:
    if kind is torch.optim.LBFGS and options:
        options = {"step": _step_with_closure}
    case = made(PARTS, kind, loss_weights=WEIGHTS, **options)
    case.run(steps=4)
    assert case.set(loss_weights={"bias": 0.5}).text == "weight of bias 0.5"
    case.run(steps=3)
    middle = values(case)
    case.set(loss_weights={"ce": 0.9, "size": -0.1})
    case.run(steps=LAST - 7)
    losses = {0: weighted(1.0, 0.3, 0.07), 4: weighted(1.0, 0.3, 0.5), 7: weighted(0.9, -0.1, 0.5)}
    expected, train, val = plainly(losses, kind=kind)
    assert same(values(case), expected)
    assert case.history["loss/train"].values.tolist() == train and case.history["loss/val"].values.tolist() == val
    for kept in case.snapshots[1:]:
        case.drop_snapshot(kept)
    case.rewind(7)
    assert same(values(case), middle)
    assert case._knob_states().loss_weights == (("ce", 1.0), ("size", 0.3), ("bias", 0.5))
    case.rewind(3)
    assert dict(case._knob_states().loss_weights) == {"ce": 1.0, **WEIGHTS}
    case.checkout("main")
    assert same(values(case), expected) and not case.findings
    case.undo()
    assert dict(case._knob_states().loss_weights) == {"ce": 1.0, "size": 0.3, "bias": 0.5}
    case.rerun(steps=LAST - 5, start=5, loss_weights={"bias": 0.0})
    again = {0: losses[0], 4: losses[4], 5: weighted(1.0, 0.3, 0.0)}
    assert same(values(case), plainly(again, kind=kind)[0])
    case.close()


def _step_with_closure(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return optimizer.step(closure)


def test_each_part_is_a_series_of_its_own_without_its_weight() -> None:
    seen: list[list[float]] = []

    def count(output: Any, target: Any) -> float:
        seen.append([float(part(output, target)) for part in PARTS.values()])
        return 1.0

    case = made(PARTS, loss_weights=WEIGHTS, metrics={"one": count})
    case.run(epochs=2)
    train = np.array(seen[:6] + seen[9:15])
    for column, name in enumerate(PARTS):
        assert case.history[f"{name}/train"].values.tolist() == train[:, column].tolist()
        counts = np.array([6, 6, 4])
        expected = [sum(np.array(seen)[a:b, column] * counts) / 16 for a, b in ((6, 9), (15, 18))]
        assert np.allclose(case.history[f"{name}/val"].values, expected, rtol=1e-12)
    total = train @ np.array([1.0, 0.3, 0.07])
    assert np.allclose(case.history["loss/train"].values, total, rtol=1e-5)
    assert case.history["one/train"].values.tolist() == [1.0] * 12
    case.break_when("size > 0")
    case.run(steps=3)
    assert case.status.step == 13, "a part can be named in a breakpoint"
    case.stop_early("val_ce", patience=9)
    case.close()


def test_a_step_that_calls_the_loss_now_and_then_leaves_gaps() -> None:
    calls: list[int] = []

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        calls.append(1)
        optimizer.zero_grad()
        output = model(batch[0])
        loss = loss_fn(output, batch[1]) if len(calls) % 2 else F.cross_entropy(output, batch[1])
        loss.backward()
        optimizer.step()
        return loss

    case = made({"ce": F.cross_entropy, "size": size}, step=step)
    case.run(steps=5)
    assert case.history["size/train"].steps.tolist() == [1, 3, 5]
    assert len(case.history["loss/train"].values) == 5
    case.close()


def test_parts_that_are_modules_come_back_with_the_rest(tmp_path: Path) -> None:
    class Centred(nn.Module):
        """Keeps a running mean of what it gets, and has a weight that learns."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.scale = nn.Parameter(torch.ones(3))
            self.mean: torch.Tensor

        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            self.mean = 0.9 * self.mean + 0.1 * output.detach().mean(0)
            return ((output - self.mean) * self.scale).pow(2).mean()

    for wrapped in (dict, nn.ModuleDict):
        model, part = network(), Centred()
        optimizer = torch.optim.SGD([*model.parameters(), *part.parameters()], 0.05)
        parts: Any = wrapped({"ce": nn.CrossEntropyLoss(), "centred": part})
        case = Debugger(model, Trainer(optimizer, parts, data(), data(2)), journal=None)
        case.run(steps=4)
        there = [*values(case), part.mean.clone(), part.scale.detach().clone()]
        case.snapshot(path=tmp_path / "kept.safetensors")
        case.set(loss_weights={"centred": 3.0}, label_smoothing=0.1)
        case.run(steps=9)
        end = [*values(case), part.mean.clone(), part.scale.detach().clone()]
        case.rewind(4)
        assert same([*values(case), part.mean, part.scale.detach()], there)
        case.checkout("main")
        assert same([*values(case), part.mean, part.scale.detach()], end)
        case.checkout(tmp_path / "kept.safetensors")
        assert same([*values(case), part.mean, part.scale.detach()], there)
        assert case._knob_states().loss_weights == (("ce", 1.0), ("centred", 1.0))
        case.set(loss_weights={"centred": 3.0}, label_smoothing=0.1)
        case.run(steps=9)
        assert same([*values(case), part.mean, part.scale.detach()], end)
        case.close()


def test_smoothing_reaches_the_one_cross_entropy_among_the_parts() -> None:
    case = made(PARTS, loss_weights={"bias": 0.0})
    case.run(steps=3)
    case.set(label_smoothing=0.2)
    case.run(steps=LAST - 3)

    def later(output: Any, target: Any) -> torch.Tensor:
        return 1.0 * smoothed(0.2)(output, target) + 1.0 * size(output, target) + 0.0 * bias(output, target)

    assert same(values(case), plainly({0: weighted(1.0, 1.0, 0.0), 3: later})[0])
    case.close()


def test_what_was_set_after_an_epochs_last_step_acts_on_its_validation() -> None:
    case = made(F.cross_entropy)
    case.run(steps=5)
    case.break_when("loss < 100")
    case.run(steps=LAST - 5)
    assert (case.status.step, case.status.epoch, case.state) == (6, 0, State.PAUSED)
    case.set(label_smoothing=0.5)
    for told in case.breakpoints:
        case.remove_breakpoint(told.number)
    case.resume()
    case.wait()
    end = values(case)
    for kept in case.snapshots[1:]:
        case.drop_snapshot(kept)
    judged: list[float] = []
    validate = case._session.loop.validate
    case._session.loop.validate = lambda *a: (judged.append(validate(*a).loss), validate(*a))[1]  # type: ignore[func-returns-value, method-assign]
    case.rewind(10)
    assert judged == case.history["loss/val"].values[:1].tolist()
    case.checkout("main")
    assert same(values(case), end)
    case.close()


class Smart(nn.CrossEntropyLoss):
    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(input, target)


@pytest.mark.parametrize(
    ("loss_fn", "options", "messages"),
    [
        (F.cross_entropy, {"label_smoothing": 1.5}, ["label_smoothing=1.5 is out of range: it must be from 0 to 1"]),
        (F.cross_entropy, {"label_smoothing": -0.1}, ["label_smoothing=-0.1 is out of range"]),
        (F.cross_entropy, {"label_smoothing": float("nan")}, ["label_smoothing=nan is out of range"]),
        (F.cross_entropy, {"label_smoothing": True}, ["label_smoothing must be a number, not True"]),
        (F.cross_entropy, {"label_smoothing": "a"}, ["label_smoothing must be a number, not 'a'"]),
        (F.cross_entropy, {"label_smoothing": None}, ["label_smoothing can't be None"]),
        (F.nll_loss, {"label_smoothing": 0.1}, ["the loss is nll_loss, and only torch.nn.CrossEntropyLoss and"]),
        (Smart(), {"label_smoothing": 0.1}, ["the loss is Smart, and only torch.nn.CrossEntropyLoss"]),
        (partial(F.cross_entropy), {"label_smoothing": 0.1}, ["the loss is partial, and only"]),
        ({"a": F.cross_entropy, "b": F.cross_entropy}, {"label_smoothing": 0.1}, ["2 of the loss's parts are cross"]),
        ({"a": size}, {"label_smoothing": 0.1}, ["the loss is size, and only"]),
        (
            F.cross_entropy,
            {"loss_weights": {"a": 1.0}},
            ["loss_weights can't be set: the loss has no parts: give them"],
        ),
        (PARTS, {"loss_weights": 0.5}, ["loss_weights must be a mapping of part to weight, not 0.5: there are 'ce'"]),
        (PARTS, {"loss_weights": {}}, ["loss_weights={} names no part"]),
        (PARTS, {"loss_weights": {"siz": 1.0}}, ["the loss has no part 'siz': did you mean 'size'?"]),
        (
            PARTS,
            {"loss_weights": {"kl": 1}, "lr": -1},
            ["no part 'kl': there are 'ce', 'size', 'bias'", "lr=-1 is out"],
        ),
        (
            PARTS,
            {"loss_weights": {"ce": float("nan"), "size": True, "bias": "x"}, "label_smoothing": 2, "batch_size": 4},
            [
                r"loss_weights\['ce'\]=nan must be finite",
                r"loss_weights\['size'\] must be a number, not True",
                r"loss_weights\['bias'\] must be a number, not 'x'",
                "label_smoothing=2 is out of range",
                "batch_size can't be set: train_loader is a list of batches",
            ],
        ),
    ],
)
def test_what_can_not_be_is_refused_and_the_run_unharmed(loss_fn: Any, options: Any, messages: list[str]) -> None:
    case = made(loss_fn)
    before = case._knob_states()
    for message in messages:
        for change in (case.set, partial(case.rerun, 1), partial(case.rewind, 0), case.forecast):
            with pytest.raises(ConfigurationError, match=message):
                change(**options)
    assert case._knob_states() == before and not case._journal.marks
    case.close()


@pytest.mark.parametrize(
    ("loss_fn", "options", "message"),
    [
        ({}, {}, "loss_fn is an empty mapping: give at least one part"),
        ({"loss": size}, {}, r"loss_fn\['loss'\] has the sum's own name"),
        ({"one": size}, {"metrics": {"one": size}}, r"loss_fn\['one'\] has a metric's name"),
        ({1: size}, {}, "the name of a part of loss_fn must be text; got 1"),
        ({"a": nn.MSELoss}, {}, r"loss_fn\['a'\] is the class MSELoss: call it, as in MSELoss\(\)"),
        ({"a": 3}, {}, r"loss_fn\['a'\] must be callable; got a int"),
        ({"a": size}, {"loss_weights": {"b": 1.0}}, "the loss has no part 'b': there are 'a'"),
        ({"a": size}, {"loss_weights": {"a": float("inf")}}, r"loss_weights\['a'\]=inf must be finite"),
        (size, {"loss_weights": {"a": 1.0}}, "loss_weights can't be set: the loss has no parts"),
        ({"a": size}, {"loss_weights": [1.0]}, r"loss_weights must be a mapping of part to weight, not \[1.0\]"),
    ],
)
def test_a_trainer_with_parts_that_can_not_be(loss_fn: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        made(loss_fn, **options)


def test_a_part_that_gives_no_number_is_told_by_its_name() -> None:
    case = made({"ce": F.cross_entropy, "all": lambda output, target: output})
    with pytest.raises(
        TypeError, match=r"part 'all' of the loss must return a tensor of one number, not shape \(6, 3\)"
    ):
        case.run(steps=1)
    case.close()
