"""A judgement makes as many array operations for 500 layers as for 50, and so does putting its window together."""

from __future__ import annotations

import numpy as np
import pytest

from nbdebug.checks.live.window import Window
from nbdebug.records.checks import CheckOutcome
from tests.benchmarks.live_checks import PARAMETERS, Watch, built, journal
from tests.checks.live.counting import calls, counted, operations

FEW, MANY = 50, 500


@pytest.fixture(scope="module", params=[False, True], ids=["learns", "stands still"])
def windows(request: pytest.FixtureRequest) -> tuple[Window, Window]:
    return tuple(built(journal(layers, faulty=request.param), layers) for layers in (FEW, MANY))


def counts(window: Window) -> tuple[int, int]:
    """Operations on arrays, and entries into numpy, of a judgement after the first one, which imports and caches."""
    watch, seen = Watch(), counted(window)
    watch.judge(seen, PARAMETERS)
    assert not [each for each in watch.results if each.outcome is CheckOutcome.BROKE]
    return operations(lambda: watch.judge(seen, PARAMETERS)), calls(lambda: watch.judge(window, PARAMETERS))


def test_the_number_of_operations_does_not_go_by_the_number_of_layers(windows: tuple[Window, Window]) -> None:
    few, many = (counts(window) for window in windows)
    assert few == many
    assert few[0] > 300, "the rules were not followed by the count"


def test_something_is_found_in_the_window_of_the_run_that_stands_still() -> None:
    watch = Watch()
    watch.judge(built(journal(FEW, faulty=True), FEW), PARAMETERS)
    found = {finding.cause: len(finding.layers) for result in watch.results for finding in result.findings}
    assert found["dead_relu"] >= FEW - 1 and found["saturated_activations"] >= FEW - 1


def test_putting_the_window_together_does_not_go_by_the_number_of_layers() -> None:
    made = [(journal(layers), layers) for layers in (FEW, MANY)]
    assert calls(lambda: built(*made[0])) == calls(lambda: built(*made[1])) > 0


@pytest.mark.parametrize(
    ("action", "count"),
    [
        (lambda x: x + 1, 1),
        (lambda x: (x * 2 - x).sum(), 3),
        (lambda x: np.sort(np.where(x > 0, x, 1)), 3),
        (lambda x: [each for each in range(len(x))], 0),
        (lambda x: sum(x[place] for place in range(len(x))), 10),
    ],
    ids=["an operator", "a chain", "functions", "no operation", "a loop"],
)
def test_operations_are_counted(action: object, count: int) -> None:
    x = counted({"a": np.arange(10.0)})["a"]
    assert operations(lambda: action(x)) == count  # type: ignore[operator]
