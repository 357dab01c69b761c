"""What a gradient scaler does is told as it is: skipped updates, true gradients, none of it disturbed."""

from __future__ import annotations

import numpy as np
import pytest

from nbdebug.records.signals import Signal
from tests.instruments import zoo
from tests.instruments.test_do_no_harm import STEPS, watched

SCALED = [name for name in zoo.KINDS if "scaled" in name]


@pytest.mark.parametrize("name", SCALED)
def test_skipped_updates_and_the_scale_are_told(name: str) -> None:
    case = zoo.KINDS[name].make()
    scaler, step = case.state["scaler"], case.step
    assert step is not None
    scales: list[float] = []

    def noted(*args: object) -> object:
        result = step(*args)
        scales.append(scaler.get_scale())
        return result

    case.step = noted
    zoo.train_plainly(case, STEPS)
    fell = np.diff([2.0**20, *scales]) < 0
    assert 3 <= fell.sum() <= STEPS - 3

    debugger = watched(zoo.KINDS[name].make(), "deep")
    debugger.run(steps=STEPS)
    debugger.close()
    history = debugger.history
    assert np.array_equal(history[str(Signal.SKIPPED_UPDATES)].values, fell.astype(float))
    assert np.array_equal(history[str(Signal.UPDATES)].values, 1.0 - fell)
    ratios = history[f"{Signal.UPDATE_RATIO}/0"]
    assert set(ratios.steps) == set(1 + np.flatnonzero(~fell)), "a skipped update has no ratio"
    norms = history[f"{Signal.GRADIENT_NORM}/0"]
    taken = np.isin(norms.steps, ratios.steps)
    assert taken.sum() == len(ratios.steps)
    values = np.asarray(norms.values)[taken]
    assert np.all((values > 1e-3) & (values < 10)), "in true units, whatever the scale"
