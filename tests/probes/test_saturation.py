"""Saturation against the derivative of each activation function, at its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbdebug.probes.activations import ActivationsProbe
from nbdebug.records.signals import Signal
from tests.probes.looking import names_of, sample, values

BENDS: dict[str, tuple[nn.Module, Callable[[np.ndarray[Any, Any]], Any]]] = {
    "tanh": (nn.Tanh(), lambda x: 1 - np.tanh(x) ** 2 < 0.05),
    "sigmoid": (nn.Sigmoid(), lambda x: 4 / (1 + np.exp(-x)) * (1 - 1 / (1 + np.exp(-x))) < 0.05),
    "softsign": (nn.Softsign(), lambda x: 1 / (1 + np.abs(x)) ** 2 < 0.05),
    "hardtanh": (nn.Hardtanh(-2, 5), lambda x: (x <= -2) | (x >= 5)),
    "hardtanh in place": (nn.Hardtanh(-2, 5, inplace=True), lambda x: (x <= -2) | (x >= 5)),
    "relu6": (nn.ReLU6(), lambda x: x >= 6),
    "relu6 in place": (nn.ReLU6(inplace=True), lambda x: x >= 6),
    "hardsigmoid": (nn.Hardsigmoid(inplace=True), lambda x: np.abs(x) >= 3),
}


@pytest.mark.parametrize("name", list(BENDS))
def test_saturation_is_where_the_derivative_of_the_input_has_gone(name: str) -> None:
    module, saturated = BENDS[name]
    torch.manual_seed(0)
    x = torch.randn(40, 100) * 4
    truth = float(np.mean(saturated(x.double().numpy())))
    model = nn.Sequential(module)
    reading = sample(ActivationsProbe(names_of(model)), lambda: model(x.clone()))
    assert values(reading, Signal.SATURATED) == {"0": pytest.approx(truth, abs=1e-9)}
    assert 0.02 < truth < 0.7


def test_others_do_not_saturate() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Softmax(-1), nn.GELU())
    assert not values(sample(ActivationsProbe(names_of(model)), lambda: model(torch.randn(3, 4))), Signal.SATURATED)
