"""The table in the docs is that of the checks; every cause is told by something, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nbdebug.checks.live.registry import live_checks
from nbdebug.checks.preflight.registry import checks, table
from nbdebug.checks.ranking import EXPLAINS
from nbdebug.debugger_preflight import all_parameters
from nbdebug.records.findings import Cause
from scripts import checks_table

PAGE = checks_table.PAGE.read_text(encoding="utf-8")


def test_the_table_is_as_the_checks_are() -> None:
    assert checks_table.page(PAGE) == PAGE, "run: python -m scripts.checks_table"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(checks_table.PAGE).parent / link).resolve().exists()


def test_what_is_known_before_training_is_checked_now() -> None:
    """Only what shows while training goes on may be told later."""
    told = {cause for check in checks() for cause in check.causes} | set(checks_table.TOOLS)
    before = """parameters_not_in_optimizer frozen_parameters detached_graph loss_reduction_sum dropout_too_high
        softmax_before_cross_entropy sigmoid_before_bce_with_logits nll_on_probabilities softmax_wrong_dim
        loss_shape_broadcast single_class_softmax output_activation_mismatch padding_in_loss bad_initialization
        symmetric_initialization missing_nonlinearity degenerate_normalization tensor_layout_error unnormalized_input
        unnormalized_target input_label_mismatch label_encoding_error unshuffled_data class_imbalance constant_input
        repeated_batch nan_in_data target_leakage train_val_mismatch model_ignores_input"""
    assert {Cause(name) for name in before.split()} - told == set()


def test_names_of_checks_and_parameters_are_each_used_once() -> None:
    names = [check.name for check in (*checks(), *live_checks())]
    assert len(set(names)) == len(names)
    known = [parameter.name for check in (*checks(), *live_checks()) for parameter in check.parameters]
    assert len(set(known)) == len(known)
    assert set(table()) | set(known) == set(all_parameters({}))


def test_every_check_says_what_it_is_and_whose_advice_it_follows() -> None:
    assert [check.name for check in (*checks(), *live_checks()) if not (check.title and check.source)] == []


def test_shipped_values_are_within_their_ranges() -> None:
    parameters = all_parameters({})
    assert parameters.mistakes({name: parameters[name] for name in parameters}) == []


def test_no_two_causes_explain_each_other_for_ever() -> None:
    for cause, explained in EXPLAINS.items():
        assert cause not in explained
