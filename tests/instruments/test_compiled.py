"""Looking into compiled models: as fast as before, since nothing is compiled again, and equal to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from nbdebug.probes.governor import Governor
from tests.instruments import zoo, zoo_compiled
from tests.instruments.specimen import Case, Kind
from tests.instruments.test_do_no_harm import assert_activations, differences, states, watched

STEPS = 200
INDUCTOR = Kind(lambda: zoo_compiled.compiled("inductor"), seen="_orig_mod.0 _orig_mod.1 _orig_mod.3", learning="")


@pytest.fixture(autouse=True)
def counted_anew() -> Iterator[None]:
    counters.clear()
    yield
    torch._dynamo.reset()


def compilations() -> dict[str, int]:
    """Frames and graphs compiled since the last call, and breaks in them."""
    found = {f"{kind} {name}": count for kind in ("frames", "stats") for name, count in counters[kind].items()}
    found["breaks"] = sum(counters["graph_break"].values())
    found["recompiles"] = sum(counters["recompiles"].values())
    counters.clear()
    return found


def trained_plainly(kind: Kind, steps: int) -> tuple[Case, dict[str, int]]:
    case = kind.make()
    zoo.train_plainly(case, steps)
    return case, compilations()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", [name for name in zoo.KINDS if "compiled" in name])
def test_nothing_is_compiled_again(name: str, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps with and without a look at the layers take turns, as they do under a budget."""
    turns = itertools.cycle([first, not first])
    monkeypatch.setattr(Governor, "wants_sample", lambda _: next(turns))
    _, expected = trained_plainly(zoo.KINDS[name], 6)
    assert expected["stats unique_graphs"] > 0
    debugger = watched(zoo.KINDS[name].make(), "deep")
    debugger.run(steps=6)
    debugger.close()
    assert compilations() == expected


def test_two_hundred_steps_of_inductor_with_dropout() -> None:
    plain, expected = trained_plainly(INDUCTOR, STEPS)
    case = INDUCTOR.make()
    debugger = watched(case, "deep")
    debugger.run(steps=STEPS)
    debugger.close()
    assert compilations() == expected
    assert differences(states(case), states(plain)) == []
    assert_activations(debugger, INDUCTOR)
    assert len(debugger.history["act_mean/_orig_mod.0"].steps) == STEPS
