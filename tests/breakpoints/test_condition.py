"""What conditions read, when they are judged, and how a name or layer that there is not is refused."""

from __future__ import annotations

import copy
import math
import pickle
from collections import deque

import numpy as np
import pytest

from nbdebug.breakpoints.condition import ConditionError, Reading, compile_condition
from nbdebug.records.errors import ConfigurationError
from tests.breakpoints.cases import Past, before, compiled, of, ratios

NAN, INF = math.nan, math.inf
TEN = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 100.0]


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("loss > 5", of(loss=6), True),
        ("loss > 5", of(loss=5), False),
        ("loss > 5", {}, None),
        ("loss > 5", of(loss=NAN), False),
        ("loss != 5", of(loss=NAN), True),
        ("not loss < 5", of(loss=NAN), True),
        ("isnan(loss)", of(loss=NAN), True),
        ("isinf(loss)", of(loss=-INF), True),
        ("isfinite(loss)", of(loss=INF), False),
        ("isnan(loss) == True", of(loss=1), False),
        ("1 < loss <= 2", of(loss=2), True),
        ("1 < loss <= 2", of(loss=1), False),
        ("5 / loss == inf", of(loss=0), True),
        ("-5 / loss == -inf", of(loss=0), True),
        ("isnan(loss / loss)", of(loss=0), True),
        ("isnan(loss % 0)", of(loss=1), True),
        ("-7 % loss == 2", of(loss=3), True),
        ("loss ** 9 ** 9 == inf", of(loss=9), True),
        ("isnan(loss ** 0.5)", of(loss=-1), True),
        ("exp(loss) == inf", of(loss=1e6), True),
        ("log(loss) == -inf", of(loss=0), True),
        ("isnan(sqrt(loss))", of(loss=-1), True),
        ("log10(loss) == 3 and log2(loss) > 9", of(loss=1000), True),
        ("max(loss, lr) == 3", of(loss=3, lr=1), True),
        ("min(loss, lr, 0.5) == 0.5", of(loss=3, lr=1), True),
        ("max(5, loss) == 5", of(loss=3), True),
        ("max(loss, 5.0) == 5", of(loss=3), True),
        ("isnan(max(loss, lr))", of(loss=NAN, lr=1), True),
        ("max(update_ratio) > 0.1", ratios(0.01, 0.2), True),
        ("median(update_ratio) == 2", ratios(1, 2, 9), True),
        ("mean(update_ratio) == 4", ratios(1, 2, 9), True),
        ("sum(update_ratio) == 12 and min(update_ratio) == 1", ratios(1, 2, 9), True),
        ("max(update_ratio) > 0.1", of(loss=1), None),
        ("isnan(max(update_ratio))", ratios(1, NAN), True),
        ('update_ratio["blocks.2.attn"] > 5', ratios(1, 2, 9), True),
        ('update_ratio["blocks.2.attn"] > 5', ratios(1, 2), None),
        ("grad_norm > 1", {Reading("grad_norm", "fc1"): 5.0}, None),
        ("grad_norm['fc1'] > 1", {Reading("grad_norm", "fc1"): 5.0}, True),
        ("max(grad_norm) == 5", {Reading("grad_norm", "fc1"): 5.0, Reading("grad_norm"): 9.0}, True),
        ("loss > 5 or val_loss > 5", of(loss=6), True),  # whatever the other is
        ("loss > 5 or val_loss > 5", of(loss=5), None),
        ("loss > 5 and val_loss > 5", of(loss=5), False),
        ("loss > 5 and val_loss > 5", of(loss=6), None),
        ("not val_loss > 5", of(loss=6), None),
        ("1 < loss < val_loss", of(loss=0), False),
        ("1 < loss < val_loss", of(loss=2), None),
    ],
)
def test_a_verdict_on_the_present(text: str, values: dict[Reading, float], holds: bool | None) -> None:
    assert compiled(text).judge(values, {}) is holds


@pytest.mark.parametrize(
    ("text", "past", "holds"),
    [
        ("loss > 2 * median(loss, 10)", before(loss=TEN), True),  # 12 > 11
        ("loss > 2.2 * median(loss, 10)", before(loss=TEN), False),
        ("loss > median(loss, 20)", before(loss=TEN), True),
        ("loss > median(loss, 20)", before(loss=TEN[1:]), None),  # waits for ten
        ("loss > median(loss, 3)", before(loss=[1, 2, 3]), True),
        ("loss > median(loss, 3)", before(loss=[1, 2]), None),
        ("max(loss, 2) == 100 and min(loss, 2) == 9", before(loss=TEN), True),
        ("mean(loss, 10) == 14.5 and sum(loss, 10) == 145", before(loss=TEN), True),
        ("std(loss, 4) == 2.5", before(loss=[9, 1, 1, 6, 6]), True),
        ("max(loss, 5) > 100", before(loss=[*TEN, *[1] * 5]), False),
        ("previous(loss) == 100", before(loss=TEN), True),
        ("previous(loss, 10) == 1", before(loss=TEN), True),
        ("previous(loss, 11) == 1", before(loss=TEN), None),
        ("change(loss, 1) == -88 and change(loss) == -88 and change(loss, 2) == 3", before(loss=TEN), True),
        ("change(loss, 1) > 0", {}, None),
        ("change(loss, 1) > 0", before(loss=[NAN]), False),
        ("isnan(mean(loss, 2))", before(loss=[NAN, 1]), True),
        ("loss > max(loss, 10)", {Reading("loss"): deque(TEN)}, False),
        ("loss > max(loss, 9)", {Reading("loss"): np.array(TEN[:9])}, True),
        ("max(update_ratio['fc1'], 2) == 4", {Reading("update_ratio", "fc1"): [9, 3, 4]}, True),
    ],
)
def test_a_verdict_on_the_past(text: str, past: Past, holds: bool | None) -> None:
    assert compiled(text).judge(of(loss=12), past) is holds


def test_a_window_needs_no_present_value() -> None:
    assert compiled("max(val_loss, 2) > 1").judge({}, before(val_loss=[1, 2])) is True


def test_it_says_what_it_reads_and_how_far_back() -> None:
    condition = compiled(
        "loss > mean(loss, 20) + 3 * std(loss, 50) and max(update_ratio) > change(grad_mean['fc2'], 7)"
    )
    assert condition.readings == {Reading("loss"), Reading("update_ratio", "*"), Reading("grad_mean", "fc2")}
    assert condition.longest_window == {
        Reading("loss"): 50,
        Reading("update_ratio", "*"): 0,
        Reading("grad_mean", "fc2"): 7,
    }
    assert compiled("previous(lr) > lr").longest_window == {Reading("lr"): 1}


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("grad_nrom > 5", 1, "Did you mean grad_norm"),
        ("1 < Loss", 5, r"Did you mean loss\?"),
        ("zzz > 5", 1, "There are: accuracy, epoch.* of each layer: grad_mean"),
        ("update_ratoi > 5", 1, r'Did you mean update_ratio\? Write update_ratio\["fc1"\]'),
        ("update_ratio > 5", 1, r'Write update_ratio\["fc1"\] for one layer, max\(update_ratio\) over all'),
        ("max(update_ratio, 5) > 5", 5, r'Write update_ratio\["fc1"\]'),
        ("max(update_ratio, 5.0) > 5", 5, r'Write update_ratio\["fc1"\]'),
        ("max(-update_ratio) > 5", 1, "nothing to go over"),
        ("std(update_ratio) > 5", 5, "of each layer"),
        ('update_ratio["fc3"] > 1', 14, "Did you mean fc2 or fc1"),
        ('update_ratio["zzz"] > 1', 14, "There are: blocks.2.attn, fc1, fc2, größe"),
        ('update_ratio["*"] > 1', 14, r"max\(update_ratio\)"),
        ('update_ratio[""] > 1', 14, r"max\(update_ratio\)"),
        ('loss["fc1"] > 1', 1, "Write loss alone"),
        ('lss["fc1"] > 1', 1, "Did you mean loss"),
        ("lgo(loss) > 1", 1, "Did you mean log"),
        ("open(loss) > 1", 1, "There are: abs"),
        ("loss(1) > 1", 1, "a signal, not a function"),
        ("abs > 1", 1, "is a function"),
        ("abs() > 1", 1, "takes one number"),
        ("isnan(loss, 2)", 1, "takes one number"),
        ("max() > 1", 1, "does not take 0"),
        ("mean(loss, 1, 2) > 1", 1, "does not take 3"),
        ("change() > 1", 1, "does not take 0"),
        ("max(loss) > 1", 1, "nothing to go over"),
        ("mean(loss, 1e3) > 1", 12, "from 1 to 10,000"),
        ("mean(loss, 0) > 1", 12, "from 1 to 10,000"),
        ("mean(loss, 10001) > 1", 12, "from 1 to 10,000"),
        ("max(loss, -1) > 1", 11, r"max\(loss, 5.0\)"),
        ("mean(loss, lr) > 1", 12, "from 1 to 10,000"),
        ("mean(loss + 1, 5) > 1", 6, "single signal"),
        ("mean(5, 5) > 1", 6, "single signal"),
        ("previous(abs(loss)) > 1", 10, "single signal"),
        ("grad_norm", 1, "Compare it with something: grad_norm > 5"),
        ("loss > 1 and lr", 14, "Compare it with something: lr > 5"),
        ("not loss", 5, "Compare it"),
        ("abs(loss)", 1, "Compare it"),
        ("5", 1, "Compare it"),
        ("loss + 1", 1, "Compare it"),
        ("(loss > 1) + 1 > 0", 2, "True or False, not a number"),
        ("loss > True", 8, "True or False, not a number"),
        ("isnan(loss > 1)", 7, "True or False, not a number"),
        ("1 < 2", 1, "always true: it reads no signal"),
        ("2 < 1", 1, "always false: it reads no signal"),
        ("True", 1, "always true"),
        ("loss > 1 or True", 1, "always true: whatever"),
        ("1 > 2 and loss > 1", 1, "always false: whatever"),
        ("2 < 1 < loss", 1, "always false: whatever"),
        ("loss == loss", 1, r"itself(.|\n)*isnan\(loss\)"),
        ("lr < max( loss,5 ) >= max(loss, 5)", 6, "itself"),
        ("loss == nan", 9, r"isnan\(loss\)"),
        ("loss > inf - inf", 8, r"isnan\(loss\)"),
    ],
)
def test_a_mistake_is_explained_where_it_is(text: str, column: int, says: str) -> None:
    with pytest.raises(ConditionError, match=says) as caught:
        compiled(text)
    assert caught.value.column == column


def test_without_layers_there_is_still_advice() -> None:
    with pytest.raises(ConditionError, match=r'Write update_ratio\["fc1"\]'):
        compile_condition("update_ratio > 1", ["loss"], (), ["update_ratio"])
    with pytest.raises(ConditionError, match="There are: none"):
        compile_condition("a > 1", [])


def test_a_layer_s_name_may_be_any_text_without_quotes_of_its_own() -> None:
    values = {Reading("update_ratio", "größe"): 2.0}
    assert compiled("update_ratio['größe'] > 1").judge(values, {}) is True


@pytest.mark.parametrize("layer", ["", "*"])
def test_a_layer_without_a_name_of_its_own_is_none_that_can_be_written(layer: str) -> None:
    with pytest.raises(ConditionError, match="Over all layers write"):
        compile_condition(f'update_ratio["{layer}"] > 1', ["loss"], ["", "*", "fc1"], ["update_ratio"])


def test_no_text_is_refused_like_any_mistake() -> None:
    with pytest.raises(ConditionError, match="not function"):
        compile_condition(compiled, ["loss"])  # type: ignore[arg-type]


def test_the_error_is_one_of_configuration_and_can_be_copied() -> None:
    with pytest.raises(ConfigurationError) as caught:
        compiled("loss >")
    for same in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert isinstance(same, ConditionError) and same.column == 7 and str(same) == str(caught.value)
