"""The tree of runs: its order and lines, colours that stay, and which curves are drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbdebug.dashboard import theme, tree
from nbdebug.dashboard.tree import MOST_DRAWN, Legend, ordered
from nbdebug.records.runs import Run
from nbdebug.records.status import Status
from tests.dashboard import views


def family(*pairs: tuple[str, str]):
    """Runs by name and parent, after ``main``."""
    return (views.run(train=[1.0] * 9), *(views.branch(name, parent, 3, [1.0]) for name, parent in pairs))


@pytest.mark.parametrize(
    ("pairs", "drawn"),
    [
        ((), ["main"]),
        ((("a", "main"), ("b", "main")), ["main", "tee b", "elbow a"]),
        (
            (("a", "main"), ("aa", "a"), ("b", "main"), ("ba", "b")),
            ["main", "tee b", "through elbow ba", "elbow a", "blank elbow aa"],
        ),
        ((("a", "main"), ("lost", "gone")), ["lost", "main", "elbow a"]),
    ],
)
def test_branches_stand_under_their_parent_the_latest_first(pairs, drawn):
    told = [" ".join([*branch.guides, branch.run.run.name]) for branch in ordered(family(*pairs))]
    assert told == drawn


def test_a_thousand_branches_of_branches_need_no_recursion():
    names = [f"b{i}" for i in range(1500)]
    chain = list(zip(names, ["main", *names[:-1]], strict=True))
    assert [branch.run.run.name for branch in ordered(family(*chain))] == ["main", *names]


def test_noise_runs_are_counted_and_neither_listed_nor_drawn():
    runs = (*family(("a", "main")), *views.noise("main", 4), *views.noise("a", 2))
    assert [(branch.run.run.name, branch.noise) for branch in ordered(runs)] == [("main", 4), ("a", 2)]
    assert [run.run.name for run in Legend().drawn(views.view(runs=runs))] == ["main", "a"]


@pytest.mark.parametrize(
    ("called", "read"),
    [
        ("lr 0.02", "calmer"),
        ("calmer", "calmer"),
        ("b", "main"),  # a name before another run's title
        ("main", "b"),
        ("gone", "gone"),
        ("", ""),
    ],
)
def test_a_run_is_found_by_its_name_and_by_its_title_and_read_by_its_title(called, read):
    titles = {"lr 0.02": "calmer", "main": "b", "b": "main", "plain": ""}
    runs = tuple(views.run(run=Run(name, title=title)) for name, title in titles.items())
    assert tree.shown(views.view(runs=runs), called) == read


def test_colours_stay_when_another_run_is_deleted_and_noise_takes_none():
    legend = Legend()
    runs = (*family(("a", "main"), ("b", "main")), *views.noise("main", 5), *family(("c", "main"))[1:])
    first = legend.tones(runs)
    assert list(first.values()) == list(theme.RUNS[:4])
    without = tuple(run for run in runs if run.run.name != "a")
    assert legend.tones(without) == {name: tone for name, tone in first.items() if name != "a"}
    later = legend.tones((*without, *family(("d", "main"))[1:]))
    assert later["d"] == first["a"], "a colour that nobody has is taken before one that somebody has"


@pytest.mark.parametrize(
    ("choices", "gone", "kept"),
    [
        ({}, {"r0", "r17"}, {"main", "r5", "r19"}),
        ({"r0": True}, {"r17"}, {"main", "r0", "r5", "r19"}),
        ({"r19": False}, {"r19"}, {"main", "r5", "r18"}),
        ({"main": False, "r5": False}, {"main", "r5"}, {"r19"}),
    ],
)
def test_the_first_the_models_and_the_latest_are_drawn_unless_chosen_otherwise(choices, gone, kept):
    runs = family(*((f"r{i}", "main") for i in range(20)))
    legend = Legend()
    for run, drawn in choices.items():
        legend.choose(run, drawn)
    drawn = {run.run.name for run in legend.drawn(views.view(runs=runs, status=Status(run="r5")))}
    assert kept <= drawn and len(drawn) <= MOST_DRAWN
    assert gone - {"r17"} <= {run.run.name for run in runs} - drawn


def test_a_choice_gives_new_choices_and_leaves_the_old_alone():
    legend = Legend()
    before = legend.choices
    legend.choose("a", False)
    assert (dict(before), dict(legend.choices)) == ({}, {"a": False})


def test_all_switched_off_leaves_nothing():
    legend = Legend()
    legend.choose("main", False)
    assert legend.drawn(views.view()) == []
    assert legend.drawn(replace(views.view(), runs=())) == []
