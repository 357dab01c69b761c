"""What can be chosen to be measured, and what the mistakes say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import ConfigurationError, Debugger, Trainer
from nbdebug.probes.presets import DEEP, PRESETS, chosen, layer_mistakes, matches, probe_mistakes

MODULES = ["", "stem", "blocks", "blocks.0", "blocks.0.fc", "blocks.10", "blocks.10.fc", "head"]


def test_each_preset_has_all_of_the_one_before() -> None:
    assert chosen("light") < chosen("normal") < chosen("deep") == set(DEEP)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("head", ["head"]),
        ("blocks.*", ["blocks.0", "blocks.0.fc", "blocks.10", "blocks.10.fc"]),
        ("blocks.0", ["blocks.0", "blocks.0.fc"]),
        ("blocks.1", []),
        ("*.fc", ["blocks.0.fc", "blocks.10.fc"]),
        ("blocks.?.fc", ["blocks.0.fc"]),
    ],
)
def test_patterns(pattern: str, expected: list[str]) -> None:
    assert [name for name in MODULES if matches(name, (pattern,))] == expected


@pytest.mark.parametrize(
    ("probes", "words"),
    [
        ("depp", "did you mean 'deep'"),
        ("everything", "there are 'light', 'normal', 'deep'"),
        (["gradient"], "did you mean 'gradients'"),
        ([], "give one of"),
        (3, "give one of"),
    ],
)
def test_mistakes_with_probes(probes: Any, words: str) -> None:
    [mistake] = probe_mistakes(probes)
    assert words in mistake


@pytest.mark.parametrize(
    ("layers", "words"), [("blcks.*", "did you mean 'blocks"), ([], "give a name or pattern"), ([7], "is no text")]
)
def test_mistakes_with_layers(layers: Any, words: str) -> None:
    [mistake] = layer_mistakes(layers, MODULES)
    assert words in mistake


def debugger(**options: Any) -> Debugger:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(4, 6), torch.randint(0, 3, (4,))) for _ in range(4)]
    return Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, batches), **options)


def test_the_constructor_lists_all_mistakes() -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)budget=7.*no preset"):
        debugger(probes="depp", budget=7)
    with pytest.raises(ConfigurationError, match="matches, 'conv"):
        debugger(layers="conv*")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_measures_what_it_says(preset: str) -> None:
    made = debugger(probes=preset, budget=None)
    made.run(steps=3)
    keys = {key.partition("/")[0] for key in made.history}
    assert {"grad_norm", "update_ratio", "weight_norm", "time_optimizer"} <= keys
    assert ("activations" in keys) == (preset != "light") == ("gradients" in keys)
    assert ("changes" in keys) == (preset == "deep") == ("memory_optimizer" in keys)
    assert {name for name, _ in made.cost.probes} >= {"gradients", "updates"}
    made.close()


def test_something_else_can_be_watched_while_training() -> None:
    made = debugger(probes="light", budget=None)
    made.run(steps=2)
    outcome = made.watch("deep", layers="0", budget=None)
    assert outcome.ok and "deep of 0" in outcome.text
    made.run(steps=2)
    assert list(made.history["act_std/0"].steps) == [3, 4]
    assert "act_std/2" not in made.history
    with pytest.raises(ConfigurationError, match="no preset"):
        made.watch("depp")
    assert list(made.history["update_ratio/0"].steps) == [1, 2, 3, 4]
    made.close()
