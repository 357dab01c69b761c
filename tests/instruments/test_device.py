"""On a GPU nobody waits: no synchronisation of ours in an ordinary step; the same is measured as on the CPU."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.signals import Signal, Split
from nbdebug.training.trainer import Trainer
from tests.probes.watched import Watched, watched

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none here")


def train(device: str, *, budget: float | None, clip: Clip = Clip()) -> tuple[Watched, nn.Module]:  # noqa: B008
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    batches = [(torch.randn(32, 64).to(device), torch.randint(0, 10, (32,)).to(device)) for _ in range(400)]
    case = watched(model, Trainer(optimizer, F.cross_entropy, batches), budget=budget, probes="deep")
    case.session.knobs.clip = clip
    return case, model


def synchronisations(case: Watched, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch says of every wait for the device within ordinary steps."""
    found: list[str] = []
    advance = case.session.stepper.advance

    def watched_advance(*args: Any, **options: Any) -> Any:
        sampled = case.governor.wants_sample()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return advance(*args, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                found.extend(str(each.message) for each in said if not sampled and "synchroniz" in str(each.message))

    monkeypatch.setattr(case.session.stepper, "advance", watched_advance)
    case.run(steps)
    return found


@needs_gpu
@pytest.mark.parametrize("clip", [Clip(), Clip(ClipMode.NORM, 1.0)], ids=["not clipped", "clipped"])
def test_an_ordinary_step_does_not_wait(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    case, _ = train("cuda", budget=0.05, clip=clip)
    case.run(20)
    assert synchronisations(case, 200, monkeypatch) == []
    assert len(case.recorder.series(Signal.LOSS, split=Split.TRAIN)) == 220
    case.session.close()


@needs_gpu
def test_the_count_would_see_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    case, _ = train("cuda", budget=0.05)
    case.run(20)
    take = case.session.loop.take_batch

    def waiting() -> bool:
        torch.ones(3, device="cuda").sum().item()
        return take()

    monkeypatch.setattr(case.session.loop, "take_batch", waiting)
    assert len(synchronisations(case, 50, monkeypatch)) >= 20
    case.session.close()


@needs_gpu
def test_the_same_is_measured_as_on_the_cpu() -> None:
    here, _ = train("cpu", budget=None)
    there, _ = train("cuda", budget=None)
    here.run(5)
    there.run(5)
    assert not there.broken, there.broken
    ours, theirs = here.recorder.frames[-1], there.recorder.frames[-1]
    assert ours.layers is not None and theirs.layers is not None
    assert ours.layers.layers == theirs.layers.layers
    for signal in (Signal.GRADIENT_NORM, Signal.UPDATE_RATIO, Signal.WEIGHT_NORM, Signal.ACTIVATION_STD):
        np.testing.assert_allclose(ours.layers.of(signal)[0], theirs.layers.of(signal)[0], rtol=1e-2, atol=1e-6)
    for a, b in zip(ours.histograms, theirs.histograms, strict=True):
        assert a.signal is b.signal and a.layers == b.layers
        np.testing.assert_allclose(a.counts.sum(1), b.counts.sum(1))
    here.session.close()
    there.session.close()


@needs_gpu
def test_watching_changes_no_bit_of_the_weights() -> None:
    weights = []
    for budget in (None, 1e-9):
        torch.use_deterministic_algorithms(True)
        try:
            case, model = train("cuda", budget=budget)
            case.run(30)
        finally:
            torch.use_deterministic_algorithms(False)
        weights.append([parameter.detach().cpu() for parameter in model.parameters()])
        case.session.close()
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
