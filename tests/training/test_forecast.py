"""The forecast: its update ratios are those that the next step then has, and making it changes no bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nbdebug import Debugger
from nbdebug.records.errors import ConfigurationError
from nbdebug.training.rng import reseed
from tests.training.setups import SETUPS
from tests.training.test_stops import weights

CHANGES: list[dict[str, Any]] = [{}, {"lr": 0.2}, {"clip_norm": 0.05}, {"lr": 0.01, "weight_decay": 0.3}]


def made(name: str, **options: Any) -> tuple[Any, Debugger]:
    reseed(3)
    setup = SETUPS[name]()
    reseed(4)
    return setup, Debugger(setup.model, setup.trainer, journal=None, budget=None, **options)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("name", ["sgd, momentum, batch norm, dropout", "adam, augmentation", "cosine by epoch"])
def test_the_ratios_are_those_that_the_next_step_then_has(name: str, changes: dict[str, Any]) -> None:
    _, case = made(name)
    case.run(steps=7)
    told = case.forecast(**changes)
    if changes:
        case.set(**changes)
    case.run(steps=1)
    for layer, ratio in zip(told.layers, told.ratios.tolist(), strict=True):
        if f"update_ratio/{layer}" in case.history and not np.isnan(ratio):
            steps, values = case.history[f"update_ratio/{layer}"][:2]
            assert steps[-1] == 8
            np.testing.assert_allclose(ratio, values[-1], rtol=2e-3)
    assert case.history["loss/train"].values[-1] == pytest.approx(told.loss, rel=1e-6)
    assert case.history["grad_norm"].values[-1] == pytest.approx(told.grad_norm, rel=1e-5)
    case.close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("name", SETUPS)
def test_it_changes_no_bit(name: str) -> None:
    setup, case = made(name)
    case.run(steps=4)
    case.forecast(lr=0.3, clip_norm=0.1)
    case.run(steps=3)
    case.forecast()
    case.forecast(lr=0.1)
    case.run(epochs=1)
    expected, other = made(name)
    other.run(steps=4)
    other.run(steps=3)
    other.run(epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(weights(setup).values(), weights(expected).values(), strict=True))
    assert {k: f() for k, f in setup.others.items()} == {k: f() for k, f in expected.others.items()}
    case.close()
    other.close()


def test_it_tells_what_would_have_been_clipped_and_refuses_what_can_not_be() -> None:
    _, case = made("adam, augmentation")
    case.run(steps=9)
    norms = case.history["grad_norm"].values
    threshold = float(np.median(norms))
    told = case.forecast(clip_norm=threshold)
    assert told.clipped == np.mean(norms > threshold) and told.recent == 9
    assert "would have been clipped" in str(told) and all(layer in str(told) for layer in told.layers)
    with pytest.raises(ConfigurationError, match="unknown knob 'learning_rate'"):
        case.forecast(learning_rate=1)
    case.close()
