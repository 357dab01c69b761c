"""History: names, nearest names, arrays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training import zoo
from tests.training.test_do_no_harm import watched


def test_arrays_of_steps_and_values() -> None:
    debugger = watched(zoo.make("mlp"))
    with pytest.raises(KeyError, match="train a step first"):
        debugger.history["loss/train"]
    debugger.run(steps=3)
    steps, values = debugger.history["loss/train"]
    assert steps.dtype == np.int64
    assert steps.tolist() == [1, 2, 3]
    assert values.shape == (3,)
    assert "loss/train" in debugger.history
    assert "loss/test" not in debugger.history
    assert all(len(debugger.history[key].steps) for key in debugger.history)
    debugger.close()


def test_an_unknown_name_gets_its_nearest() -> None:
    debugger = watched(zoo.make("mlp"))
    debugger.run(steps=2)
    with pytest.raises(KeyError, match="did you mean 'loss/train'"):
        debugger.history["loss/trian"]
    with pytest.raises(KeyError, match="no run 'mian': did you mean 'main'"):
        debugger.history.of("mian")
    debugger.close()


def test_it_prints_as_a_table_of_what_there_is() -> None:
    debugger = watched(zoo.make("mlp"))
    assert "nothing recorded yet" in repr(debugger.history)
    debugger.run(epochs=1)
    text = repr(debugger.history)
    assert "loss/train, loss/val: loss, on each training batch and over the validation data" in text
    assert "activations/0, activations/1, activations/3: histogram of a layer's output" in text
    debugger.close()
