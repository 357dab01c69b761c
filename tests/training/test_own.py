"""What the user adds of their own: knobs, buttons, functions at epochs' ends, early stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.status import State


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))


def data() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator)) for _ in range(6)]


def debugger(loss_fn: Any = F.cross_entropy, lr: float = 0.05, **options: Any) -> Debugger:
    model = network()
    trainer = Trainer(torch.optim.SGD(model.parameters(), lr), loss_fn, data(), data()[:2], **options)
    return Debugger(model, trainer, journal=None)


def values(case: Debugger) -> list[torch.Tensor]:
    return [value.clone() for value in case._model.state_dict().values()]  # type: ignore[union-attr]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def plainly(temperatures: list[float]) -> list[torch.Tensor]:
    """One step for each of these temperatures."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step, temperature in enumerate(temperatures):
        x, y = data()[step % 6]
        optimizer.zero_grad()
        F.cross_entropy(model(x) / temperature, y).backward()
        optimizer.step()
    return list(model.state_dict().values())


def test_a_knob_of_ones_own_acts_is_on_record_and_comes_back() -> None:
    case: Debugger
    holder: dict[str, Any] = {}

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output / holder["t"], target)

    case = debugger(loss_fn)
    holder["t"] = case.knob("temperature", 1.0, low=0.1, high=10.0, log=True)
    case.run(steps=4)
    case.set(temperature=2.5)
    case.run(steps=5)
    there = values(case)
    assert "temperature 2.5" in case._journal.marks[-1].text
    case.rewind(2)
    assert holder["t"].value == 1.0
    case.checkout("main")
    assert holder["t"].value == 2.5 and same(values(case), there)
    case.undo()
    assert float(holder["t"]) == 1.0
    again = case.knob("temperature", 3.0, low=0.1, high=10.0)
    assert again is holder["t"] and again.value == 1.0
    case.close()
    model = network()
    with torch.random.fork_rng():
        assert len(list(model.parameters())) == 4
    assert same(there, plainly([1.0] * 4 + [2.5] * 5))


def test_a_knob_reckons_with_numbers_and_tensors() -> None:
    case = debugger()
    knob = case.knob("weight", 0.5, low=0.0, high=2.0)
    tensor = torch.tensor([1.0, 2.0])
    assert [2 * knob, knob * 2, 1 + knob, 1 - knob, knob - 1, 1 / knob, knob / 2] == [1, 1, 1.5, 0.5, -0.5, 2, 0.25]
    for made in (tensor * knob, knob * tensor):
        assert torch.equal(made, torch.tensor([0.5, 1.0]))
    assert torch.equal(tensor / knob, torch.tensor([2.0, 4.0])) and torch.equal(tensor + knob, tensor + 0.5)
    case.close()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("lr", 1.0), {}, "name of another knob"),
        (("not a name", 1.0), {}, "give a name"),
        (("t", 5.0), {"high": 2.0}, "must lie between"),
        (("t", 0.0), {"log": True, "low": 0.0}, "above 0 on a log scale"),
        (("t", "x"), {}, "finite number"),
    ],
)
def test_a_knob_that_can_not_be_is_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    case = debugger()
    with pytest.raises(ConfigurationError, match=message):
        case.knob(*arguments, **options)
    case.knob("t", 1.0, low=0.5, high=2.0)
    with pytest.raises(ConfigurationError, match="t=3 is out of range"):
        case.set(t=3)
    with pytest.raises(ConfigurationError, match="unknown knob 'tt': did you mean"):
        case.set(tt=1)
    case.close()


def test_a_button_runs_between_two_steps_and_is_gone_back_over() -> None:
    case = debugger()
    case.button("halve", lambda: [p.data.mul_(0.5) for p in case._model.parameters()] and None)  # type: ignore[union-attr]
    case.run(steps=3)
    before = values(case)
    assert case.press("halve").text == "halve: done"
    assert torch.equal(values(case)[0], before[0] * 0.5)
    case.run(steps=3)
    there = values(case)
    case.rewind(3)
    assert same(values(case), before), "the first side of it"
    case.checkout("main")
    assert same(values(case), there)
    case.rewind(5)
    case.run(steps=1)
    assert same(values(case), there)
    with pytest.raises(CommandError, match="no button 'double': there are 'halve'"):
        case.press("double")
    case.button("broken", lambda: 1 / 0)
    with pytest.raises(CommandError, match="ZeroDivisionError"):
        case.press("broken")
    case.close()


def test_functions_at_an_epochs_end_are_shown_and_disturb_nothing() -> None:
    case, other = debugger(), debugger()
    calls: list[int] = []

    @case.on_epoch_end
    def score() -> float:
        calls.append(1)
        case._model.eval()  # type: ignore[union-attr]
        torch.rand(3), np.random.rand()
        return len(calls) / 10

    class Figure:
        def savefig(self, file: Any, **options: Any) -> None:
            file.write(b"\x89PNG figure")

    case.on_epoch_end(lambda: "a translated sentence", name="words")
    case.on_epoch_end(Figure, name="picture")
    case.on_epoch_end(lambda: 1 / 0, name="broken")
    case.run(epochs=3)
    other.run(epochs=3)
    assert same(values(case), values(other))
    assert case.history["score"].values.tolist() == [0.1, 0.2, 0.3]
    panels = {panel.name: panel for panel in case._view(10).panels}
    assert panels["words"].text == "a translated sentence" and panels["words"].epoch == 3
    assert panels["picture"].picture == b"\x89PNG figure"
    assert [finding.title for finding in case.findings] == ["broken is off"]
    case.rewind(4)
    assert len(calls) == 3, "what is repeated is not shown again"
    case.close()
    other.close()


def test_a_run_that_does_not_get_better_is_ended_and_the_best_kept() -> None:
    case = debugger(lr=2.0)
    case.stop_early("val_loss", patience=3)
    case.run(epochs=60)
    losses = case.history["loss/val"].values
    best = int(np.argmin(losses))
    assert case.state is State.IDLE and len(losses) == best + 4 < 60
    assert "stopped early" in case.status.message and case.findings[-1].cause == "early_stop"
    case.go_to_best()
    assert case.status.epoch == best + 1
    assert [info.name for info in case.snapshots if info.name.startswith("best ")] == [f"best loss {losses[best]:.4g}"]
    case.stop_early(None)
    case.run(epochs=2)
    case.close()


def test_early_stopping_that_can_not_be_is_refused() -> None:
    case = debugger()
    with pytest.raises(ConfigurationError, match=r"(?s)val_accuracy.*patience=0.*least=-1"):
        case.stop_early("val_accuracy", patience=0, least=-1)
    with pytest.raises(CommandError, match="no best epoch"):
        case.go_to_best()
    case.close()
