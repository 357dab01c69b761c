"""History without a debugger: keys of layers, windows of curves, what every signal means."""

from __future__ import annotations

import numpy as np
import pytest

from nbdebug.journal.history import HISTOGRAMS, History
from nbdebug.journal.journal import Journal
from nbdebug.journal.meaning import MEANING
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import BINS, LayerValues
from nbdebug.records.runs import Run
from nbdebug.records.signals import Series, Signal
from tests.journal.made import TRAIN, fill, histograms, layer_values

LOSS = (TRAIN,)


def recorded() -> tuple[Journal, History]:
    journal = Journal()
    journal.begin_run(Run("main"))
    fill(journal, 1, 700)
    journal.begin_run(Run("b", "main", 500))
    fill(journal, 501, 900, "b")
    return journal, History(journal, lambda: "b")


def test_every_signal_has_a_meaning_that_says_how_exact_it_is() -> None:
    assert set(MEANING) == set(Signal)
    of_layers = [signal for signal in Signal if list(Signal).index(signal) > list(Signal).index(Signal.GRADIENT_STATE)]
    for signal in of_layers:
        words = MEANING[signal]
        assert "exact" in words or "4,096" in words or "bytes" in words, signal
    assert len(set(MEANING.values())) == len(MEANING)


def test_keys_name_all_but_the_state_of_gradients() -> None:
    _, history = recorded()
    keys = list(history)
    assert len(keys) == len(set(keys))
    assert {"loss/train", "grad_norm", "grad_mean/conv1", "update_ratio/fc", "activations/fc", "weights/fc"} <= set(
        keys
    )
    assert not [key for key in keys if key.startswith("grad_state")] and "grad_state/fc" not in history
    assert all(len(history[key].steps) for key in keys)
    text = repr(history)
    assert "update_ratio/conv1, update_ratio/fc: norm of what the optimizer changed" in text
    assert "standard error of sqrt(p (1 - p) / n)" in text


def test_layers_from_the_first_step_on_and_nothing_where_nothing_was_measured() -> None:
    _, history = recorded()
    sampled = list(range(7, 900, 7))
    assert history["update_ratio/fc"].steps.tolist() == sampled
    expected = [layer_values(step).of(Signal.UPDATE_RATIO)[0][1] for step in sampled]
    np.testing.assert_array_equal(history["update_ratio/fc"].values, np.float32(expected))
    assert history["weight_norm/fc"].steps.tolist() == [step for step in sampled if step % 2 == 0]
    means = history["grad_mean/fc"]
    assert np.isnan(means.values[means.steps == 420]).all() and (means.values[means.steps == 721] == np.inf).all()
    assert history.of("b")["update_ratio/fc"].steps.tolist() == [step for step in sampled if step > 500]


def test_histograms_with_their_edges() -> None:
    _, history = recorded()
    found = history["activations/fc"]
    assert found.counts.shape == (len(found.steps), BINS)
    given = histograms(896)[0]
    assert found.steps[-1] == 896 and found.counts[-1].tolist() == given.counts[1].tolist()
    borders = found.edges()
    assert borders.shape == (BINS + 1,) and (np.diff(borders) > 0).all()
    assert (borders[0], borders[-1]) == (-given.limit[1], given.limit[1])
    assert found.edges(0)[-1] == histograms(7)[0].limit[1]


def test_a_series_of_the_model_and_one_of_a_layer_share_a_signal() -> None:
    journal = Journal()
    journal.begin_run(Run("main"))
    norms = LayerValues(("fc",), (Signal.GRADIENT_NORM,), np.array([[2.0]]), np.ones((1, 1), dtype=np.bool_))
    journal.record(Frame("main", 1, 0, ((Series(Signal.GRADIENT_NORM), 3.0),), layers=norms))
    journal.record(Frame("main", 1, 0, ((Series(Signal.EFFECTIVE_RATE, "group 0"), 0.1),)))
    history = History(journal, lambda: "main")
    assert history["grad_norm"].values.tolist() == [3.0] and history["grad_norm/fc"].values.tolist() == [2.0]
    assert history["effective_lr/group 0"].values.tolist() == [0.1]


# -- windows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["loss/train", "loss/val", "update_ratio/fc", "grad_mean/fc", "lr"])
@pytest.mark.parametrize(("first", "last"), [(1, 900), (480, 520), (501, 501), (600, 9_999), (0, 6), (700, 300)])
def test_a_window_is_what_history_says_of_these_steps(key: str, first: int, last: int) -> None:
    _, history = recorded()
    window, whole = history.window(key, first, last, 10_000), history[key]
    inside = (whole.steps >= first) & (whole.steps <= last)
    assert window.steps.tolist() == whole.steps[inside].tolist()
    np.testing.assert_array_equal(window.values, whole.values[inside])


def test_a_window_of_many_steps_has_few_points_and_all_spikes() -> None:
    journal = Journal()
    journal.begin_run(Run("main"))
    values = np.random.default_rng(0).normal(size=(100_000, 1))
    values[[20_000, 60_000, 90_000], 0] = 1e6, -1e6, np.nan
    journal.record_rows(Rows("main", 0, LOSS, np.arange(1, 100_001), values))
    journal.begin_run(Run("b", "main", 70_000))
    journal.record_rows(Rows("b", 0, LOSS, np.arange(70_001, 120_001), values[:50_000]))
    history = History(journal, lambda: "b")
    for first, last, spikes in ((1, 120_000, [1e6, -1e6, 1e6]), (50_000, 65_000, [-1e6]), (65_000, 95_000, [1e6])):
        window = history.window("loss/train", first, last, 200)
        assert 50 <= len(window.steps) <= 202 and (np.diff(window.steps) > 0).all()
        assert [value for value in window.values if abs(value) > 1e5] == spikes
        assert window.steps[0] >= first and window.steps[-1] <= last
    main = history.of("main").window("loss/train", 80_000, 100_000, 50)
    assert np.isnan(main.values).sum() == 1 and main.steps[np.isnan(main.values)] == 90_001


def test_a_window_of_what_is_no_curve() -> None:
    _, history = recorded()
    with pytest.raises(ValueError, match=r"'activations/fc' are histograms, no curve: take history\["):
        history.window("activations/fc", 1, 10)
    with pytest.raises(KeyError, match="did you mean 'update_ratio/fc'"):
        history.window("update_ration/fc", 1, 10)


def test_signals_of_histograms_are_those_without_numbers() -> None:
    named = {signal for signal in Signal if MEANING[signal].startswith("histogram")}
    assert named == HISTOGRAMS
