"""Layers' clipping, noise and accumulation as knobs: as in a plain loop changed at that step; undone, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nbdebug import Debugger, Journal, Trainer
from nbdebug.records.commands import Changes, Clip, ClipMode, SetKnobs
from nbdebug.records.errors import CommandError, ConfigurationError
from tests.training.by_hand import Make, adam, data, lbfgs, made, network, plainly, same, sgd

# fmt: off
# What is set, and the same for the plain loop.
CASES: dict[str, tuple[Make, dict[str, Any], dict[str, Any]]] = {
    "a layer's norm": (sgd, {"clip_norm": {"fc1": 0.05}}, {"norms": {"fc1": 0.05}}),
    "a layer's values": (sgd, {"clip_value": {"fc2": 0.002}}, {"values": {"fc2": 0.002}}),
    "by pattern, each by itself": (sgd, {"clip_norm": {"fc*": 0.05}}, {"norms": {"fc*": 0.05}}),
    "patterns that overlap": (sgd, {"clip_norm": {"fc1": 0.02, "fc*": 0.05}}, {"norms": {"fc1": 0.02, "fc*": 0.05}}),
    "norm here, values there": (
        sgd, {"clip_norm": {"fc1": 0.05}, "clip_value": {"head": 1e-3}},
        {"norms": {"fc1": 0.05}, "values": {"head": 1e-3}},
    ),
    "in a closure": (lbfgs, {"clip_norm": {"fc1": 0.05}}, {"norms": {"fc1": 0.05}}),
    "noise": (sgd, {"gradient_noise": 0.01}, {"noise": 0.01}),
    "noise with Adam": (adam, {"gradient_noise": 0.3}, {"noise": 0.3}),
    "noise in a closure": (lbfgs, {"gradient_noise": 0.01}, {"noise": 0.01}),
    "accumulation": (sgd, {"accumulate": 3}, {"every": 3}),
    "accumulation with Adam": (adam, {"accumulate": 4}, {"every": 4}),
    "all of it": (
        sgd, {"clip_norm": {"fc*": 0.05}, "gradient_noise": 0.01, "accumulate": 2},
        {"norms": {"fc*": 0.05}, "noise": 0.01, "every": 2},
    ),
}
# fmt: on


@pytest.mark.parametrize("name", CASES)
def test_it_acts_from_the_next_step_on_and_is_exact_over_all_ways_back(name: str, tmp_path: Path) -> None:
    make, options, plain = CASES[name]
    model, case = made(make)
    case.run(steps=5)
    case.set(**options)
    case.run(steps=12)
    expected = plainly(make, {5: plain}, 17)
    assert same(model, expected)
    assert not same(model, plainly(make, {}, 17)), "the case would show nothing"
    case.rewind(11)
    assert same(model, plainly(make, {5: plain}, 11))
    case.snapshot(path=tmp_path / "midway.safetensors")
    case.rewind(2)
    case.checkout("main")
    assert same(model, expected)
    case.rerun(steps=6, start=3, **options)
    assert same(model, plainly(make, {3: plain}, 9))
    case.rewind(2, **options)
    case.run(steps=7)
    assert same(model, plainly(make, {2: plain}, 9))
    case.checkout(tmp_path / "midway.safetensors")
    case.run(steps=6)
    assert same(model, expected)
    case.close()


@pytest.mark.parametrize("name", ["by pattern, each by itself", "noise", "accumulation", "all of it"])
def test_while_training_runs(name: str) -> None:
    make, options, plain = CASES[name]
    model, case = made(make)
    case.start(steps=300)
    case.set(**options)
    case.wait()
    [made_at] = [each.step for each in case._session.timeline.lines["main"].interventions]
    assert same(model, plainly(make, {made_at: plain}, 300))
    case.close()


@pytest.mark.parametrize("name", ["norm here, values there", "noise", "accumulation", "all of it"])
def test_snapshots_that_went_to_files(name: str, tmp_path: Path) -> None:
    make, options, plain = CASES[name]
    model = network()
    torch.manual_seed(5)
    trainer = Trainer(make(model.parameters()), F.cross_entropy, data())
    case = Debugger(model, trainer, journal=None, snapshot_bytes=0, snapshot_folder=tmp_path)
    case.run(steps=4)
    case.set(**options)
    case.run(steps=7)
    case.snapshot("here")
    case.run(steps=5)
    case.rewind(3)
    case.checkout("here")
    case.run(steps=5)
    assert same(model, plainly(make, {4: plain}, 16))
    case.close()


def test_undo_and_words() -> None:
    model, case = made()
    case.run(steps=2)
    case.set(clip_norm={"fc1": 0.05, "fc2": 0.1})
    case.set(clip_norm={"fc1": None}, clip_value={"fc2": 0.01})
    case.set(gradient_noise=0.01, accumulate=2)
    texts = [mark.text for mark in case._journal.marks]
    assert texts == [
        "clip norm 0.05 in fc1, clip norm 0.1 in fc2",
        "clip off in fc1, clip value 0.01 in fc2",
        "gradient noise 0.01, accumulate 2",
    ]
    assert case.undo().text == "back to no gradient noise, accumulate 1"
    assert case.undo().text == "back to clip norm 0.05 in fc1, clip norm 0.1 in fc2"
    rules = dict(case._session.knobs.states().layer_clips)
    assert {name: str(clip) for name, clip in rules.items()} == {"fc1": "norm 0.05", "fc2": "norm 0.1"}
    assert "clip off in fc1" in case.undo().text
    with pytest.raises(CommandError, match="nothing to undo"):
        case.undo()
    case.run(steps=5)
    assert same(model, plainly(sgd, {}, 7))
    case.set(accumulate=3, gradient_noise=0.5)
    case.run(steps=2)
    assert "accumulate 3 (set at step 7 of main)" in case.rewind(8).text
    case.close()


# fmt: off
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"clip_norm": {"fc3": 1.0}}, "no layer is called, or matches, 'fc3': did you mean 'fc"),
    ({"clip_norm": {"zzz*": 1.0}}, "matches, 'zzz\\*': there are 'fc1', "),
    ({"clip_norm": {"drop": 1.0}}, "'drop' has no parameters"),
    ({"clip_norm": {"fc1": -1.0}}, r"clip_norm\['fc1'\]=-1.0 is out of range"),
    ({"clip_norm": {"fc1": 0}}, r"clip_norm\['fc1'\]=0 would stop all learning"),
    ({"clip_value": {"fc1": float("nan")}}, r"clip_value\['fc1'\]=nan is out of range"),
    ({"clip_value": {"fc1": "0.5"}}, r"clip_value\['fc1'\] must be a number, not '0.5'"),
    ({"clip_norm": {}}, "clip_norm={} names no layer"),
    ({"clip_norm": {"fc9": None}}, "no layer is called, or matches, 'fc9'"),
    ({"clip_norm": {"fc1": 1.0}, "clip_value": {"fc1": 1.0}}, "can't both be on for 'fc1'"),
    ({"gradient_noise": -0.1}, "gradient_noise=-0.1 is out of range"),
    ({"gradient_noise": float("nan")}, "gradient_noise=nan is out of range"),
    ({"gradient_noise": float("inf")}, "gradient_noise=inf is out of range"),
    ({"gradient_noise": True}, "gradient_noise must be a number, not True"),
    ({"gradient_noise": None}, "gradient_noise can't be None"),
    ({"accumulate": 0}, "accumulate=0: give a whole number"),
    ({"accumulate": 2.0}, "accumulate=2.0: give a whole number"),
    ({"accumulate": True}, "accumulate=True: give a whole number"),
    ({"noise": 0.1}, "unknown knob 'noise': did you mean 'gradient_noise'"),
    ({"accumulate": -1, "gradient_noise": "x", "clip_norm": {"fc1": -2}}, "(?s)fc1.*gradient_noise.*accumulate"),
]
# fmt: on


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_can_not_be_set_is_refused_all_at_once_and_the_run_is_unharmed(options: Any, message: str) -> None:
    model, case = made()
    case.run(steps=3)
    with pytest.raises(ConfigurationError, match=message):
        case.set(**options)
    with pytest.raises(ConfigurationError, match=message):
        case.rerun(steps=1, start=1, **options)
    with pytest.raises(ConfigurationError, match=message):
        case.rewind(1, **options)
    case.run(steps=3)
    assert same(model, plainly(sgd, {}, 6))
    assert not case._journal.marks
    case.close()


def test_it_is_on_record(tmp_path: Path) -> None:
    model = network()
    trainer = Trainer(sgd(model.parameters()), F.cross_entropy, data())
    case = Debugger(model, trainer, journal=tmp_path / "journal.sqlite")
    case.run(steps=2)
    case.set(clip_norm={"fc*": 0.5}, clip_value={"head": 1.0})
    case.set(gradient_noise=0.01, accumulate=4, clip_norm={"fc*": None})
    case.run(steps=1)
    case.close()
    stored = Journal.open(tmp_path / "journal.sqlite")
    assert [made.change for made in stored.interventions("main")] == [
        SetKnobs(Changes(layer_clips={"fc*": Clip(ClipMode.NORM, 0.5), "head": Clip(ClipMode.VALUE, 1.0)})),
        SetKnobs(Changes(layer_clips={"fc*": Clip()}, gradient_noise=0.01, accumulate=4)),
    ]
    stored.close()
