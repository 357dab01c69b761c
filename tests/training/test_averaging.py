"""Averages of weights: equal to torch's own and to a plain sum, and training does not notice them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nbdebug import ConfigurationError
from nbdebug.training.averaging import Average, Ema, Swa
from tests.training import surgery_zoo as zoo
from tests.training.surgery_zoo import bits, imprint, random_states

NAMES = [name for name in zoo.MODELS if name not in ("lazy", "quantised")]
RULES = [Ema(0.9), Ema(0.9, corrected=True), Swa(), Swa(3, 2)]


class Run:
    """A model that learns, step by step."""

    def __init__(self, name: str) -> None:
        self.model, self.x, self.y = zoo.make(name)
        self.optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], 1e-2)

    def step(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x), self.y).backward()
        self.optimizer.step()

    def everything(self) -> object:
        state = [[(k, bits(v)) for k, v in held.items()] for held in self.optimizer.state.values()]
        versions = [t._version for t in (*self.model.parameters(), *self.model.buffers())]
        pointers = [t.data_ptr() for t in (*self.model.parameters(), *self.model.buffers())]
        return imprint(self.model), state, versions, pointers, random_states(), repr(np.random.get_state())


def averages(average: Average) -> dict[str, torch.Tensor]:
    return average.state_dict()["averages"]


def reference(rule: Ema | Swa, history: list[torch.Tensor]) -> torch.Tensor:
    """By the definition, in double precision."""
    rows = [row.double() for row in history]
    if isinstance(rule, Swa):
        taken = [
            row for step, row in enumerate(rows, 1) if step >= rule.start and (step - rule.start) % rule.every == 0
        ]
        return sum(taken) / len(taken)
    d, n = rule.decay, len(rows)
    if rule.corrected:
        return sum((1 - d) * d ** (n - 1 - i) * row for i, row in enumerate(rows)) / (1 - d**n)
    return d ** (n - 1) * rows[0] + sum((1 - d) * d ** (n - 1 - i) * row for i, row in enumerate(rows) if i)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_the_average_is_what_its_formula_says(name: str, rule: Ema | Swa) -> None:
    run, average = Run(name), Average(rule)
    history: dict[str, list[torch.Tensor]] = {n: [] for n, _ in run.model.named_parameters()}
    for _ in range(9):
        run.step()
        average.update(run.model)
        for n, p in run.model.named_parameters():
            history[n].append(p.detach().clone())
    assert set(averages(average)) == set(history)
    for n, rows in history.items():
        assert torch.allclose(averages(average)[n].double(), reference(rule, rows), rtol=1e-5, atol=1e-7), n
    assert average.taken == (4 if rule == Swa(3, 2) else 9)


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("name", [name for name in NAMES if "compiled" not in name and "scripted" not in name])
def test_it_equals_torchs_averaged_model(name: str, kind: str, buffers: bool) -> None:
    run = Run(name)
    function = get_ema_multi_avg_fn(0.9) if kind == "ema" else None
    theirs = AveragedModel(run.model, multi_avg_fn=function, use_buffers=buffers)
    ours = Average(Ema(0.9) if kind == "ema" else Swa(), buffers=buffers)
    for _ in range(6):
        run.step()
        theirs.update_parameters(run.model)
        ours.update(run.model)
    with ours.swapped(run.model):
        state = run.model.state_dict()
        for key, value in theirs.module.state_dict().items():
            if kind == "ema" and value.is_floating_point():
                assert torch.equal(state[key], value), key
            elif value.is_floating_point():
                assert torch.allclose(state[key], value, rtol=1e-5, atol=1e-7), key
            elif not buffers:
                assert torch.equal(state[key], value), key


@pytest.mark.parametrize("name", NAMES)
def test_training_does_not_notice(name: str) -> None:
    plain, watched = Run(name), Run(name)
    averages = [Average(rule, buffers=i % 2 == 0) for i, rule in enumerate(RULES)]
    torch.manual_seed(1)
    for _ in range(5):
        plain.step()
    expected = [bits(t) for t in plain.model.state_dict().values()], random_states()
    torch.manual_seed(1)
    for _ in range(5):
        watched.step()
        before = watched.everything()
        for average in averages:
            average.update(watched.model)
            evaluate(watched, average)
        assert watched.everything() == before
    assert ([bits(t) for t in watched.model.state_dict().values()], random_states()) == expected


def evaluate(run: Run, average: Average) -> torch.Tensor:
    flags = {m: m.training for m in run.model.modules()}
    with average.swapped(run.model, batches=[run.x, (run.x, run.y)]), torch.no_grad():
        run.model.eval()
        output = run.model(run.x)
    for module, flag in flags.items():
        module.training = flag
    return output


@pytest.mark.parametrize("name", ["cnn in place", "mlp", "tied", "computed weights"])
def test_what_happens_inside_is_put_back_also_on_errors(name: str) -> None:
    run, average = Run(name), Average(Ema(0.5))
    for _ in range(3):
        run.step()
        average.update(run.model)
    before = [(k, bits(v)) for k, v in run.model.state_dict().items()]
    pointers = [t.data_ptr() for t in run.model.state_dict().values()]
    kept = dict(run.model.named_buffers())
    with pytest.raises(ZeroDivisionError), average.swapped(run.model):
        run.model(run.x)
        run.model.double()
        for module in run.model.modules():
            for key in list(module._buffers):
                module._buffers[key] = torch.zeros(1)
        raise ZeroDivisionError
    assert [(k, bits(v)) for k, v in run.model.state_dict().items()] == before
    assert [t.data_ptr() for t in run.model.state_dict().values()] == pointers
    assert all(b is kept[n] for n, b in run.model.named_buffers())
    run.step()


def test_a_failure_on_the_way_in_leaves_no_trace() -> None:
    run, average = Run("cnn in place"), Average(Swa())
    average.update(run.model)
    before = run.everything()

    def fail(batch: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), average.swapped(run.model, batches=[1], forward=fail):
        raise AssertionError("not reached")
    assert run.everything() == before
    state = average.state_dict()
    average.load_state_dict({**state, "averages": {**state["averages"], "0.bias": torch.zeros(7)}})
    with (
        pytest.raises(ConfigurationError, match=r"0.bias is \(4,\), and its average \(7,\)"),
        average.swapped(run.model),
    ):
        pass
    assert run.everything() == before
