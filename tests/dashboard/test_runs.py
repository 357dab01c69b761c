"""The tables of runs and snapshots, and the verdict's."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from nbdebug.dashboard import runs, snapshots, verdict, words
from nbdebug.dashboard.tree import Legend
from nbdebug.records.comparison import Verdict
from nbdebug.records.runs import Run
from nbdebug.records.snapshots import Reason
from nbdebug.records.status import State, Status
from nbdebug.records.view import Rewindable
from tests.dashboard import views


def rows(view):
    return {row["name"]: row for row in runs.state(view)["rows"]}


def test_a_row_says_where_a_run_comes_from_what_changed_and_how_it_did():
    shown = rows(views.forest())
    assert shown["clip norm 1"]["cells"][:3] == ["clip norm 1", "calmer @ 200", "200"]
    assert shown["main"]["cells"][:3] == ["–", "start", "400"]
    assert (shown["lr 0.02"]["title"], shown["lr 0.02"]["pinned"]) == ("calmer", True)
    assert shown["clip norm 1"]["caveat"] == "other batches"
    assert shown["main"]["noise"] == "6 reruns under other seeds" and shown["lr 0.5"]["noise"] == ""
    assert [name for name, row in shown.items() if row["in_model"]] == ["main"]


def test_the_table_is_plain_json_and_says_how_many_are_drawn():
    many = (views.run(train=[1.0]), *(views.branch(f"b{i}", "main", 1, [1.0]) for i in range(29)))
    state = runs.state(views.view(runs=many))
    json.dumps(state, allow_nan=False)
    assert state["summary"] == "30 runs · 12 drawn"
    assert sum(row["drawn"] for row in state["rows"]) == 12
    assert runs.state(views.view())["summary"] == ""


def measured(**metrics):
    """Two runs and a metric of each: ``name=(main, branch)``."""
    main = views.run(train=[1.0], metrics=tuple((name, pair[0]) for name, pair in metrics.items()))
    other = views.branch("b", "main", 1, [1.0], metrics=tuple((name, pair[1]) for name, pair in metrics.items()))
    return views.view(runs=(main, other))


@pytest.mark.parametrize(
    ("name", "pair", "best"),
    [
        ("accuracy", (0.9, 0.8), {"main"}),
        ("accuracy/val", (0.8, 0.9), {"b"}),
        ("val_error", (0.9, 0.8), {"b"}),
        ("RMSE", (0.9, 0.8), {"b"}),
        ("wordErrorRate", (2.0, 1.0), {"b"}),
        ("terror", (2.0, 1.0), {"main"}),
        ("accuracy", (0.9, 0.9), set()),
        ("accuracy", (math.nan, 0.9), set()),
    ],
)
def test_the_best_of_a_metric_is_marked_where_it_is_one(name, pair, best):
    marked = {run for run, row in rows(measured(**{name: pair})).items() if 5 in row["best"]}
    assert marked == best


def test_the_comparison_knows_better_than_the_name():
    view = measured(**{"accuracy/val": (0.8, 0.9)})
    row = replace(views.comparison().rows[1], lower_is_better=True)
    view = replace(view, comparison=views.comparison(rows=(row,)))
    assert [run for run, row in rows(view).items() if 5 in row["best"]] == ["main"]


@pytest.mark.parametrize(
    ("name", "compare", "delete"),
    [
        ("main", "no parent", "first run"),
        ("lr 0.02", "", "reruns under other seeds, clip norm 1 came from it"),
        ("clip norm 1", "", ""),
        ("lr 0.5", "", ""),
        ("empty", "no step", ""),
    ],
)
def test_what_cannot_be_done_with_a_run_has_a_reason(name, compare, delete):
    forest = views.forest()
    empty = replace(views.branch("empty", "main", 5, [1.0]), steps=0)
    row = rows(replace(forest, runs=(*forest.runs, empty)))[name]
    for said, expected in ((row["compare"], compare), (row["delete"], delete)):
        assert expected in said and bool(said) == bool(expected)


@pytest.mark.parametrize(
    ("rewindable", "steps_per_s", "step_s"),
    [(Rewindable(step_s=0.02), 5.0, 0.02), (Rewindable(), 5.0, 0.2), (Rewindable(), 0.0, 0.0)],
)
def test_the_time_of_a_comparison_follows_from_that_of_a_step(rewindable, steps_per_s, step_s):
    status = Status(State.PAUSED, step=3, steps_per_s=steps_per_s)
    assert runs.state(views.view(status=status, rewindable=rewindable))["step_s"] == step_s


def test_snapshots_are_summed_by_place_and_named_by_the_runs_title():
    state = snapshots.state(views.forest())
    assert state["summary"] == "12 snapshots · 13 MB in memory · 1.2 MB in files"
    by_name = {row["name"]: row for row in state["rows"]}
    assert by_name["best of lr 0.02"]["cells"] == ["calmer", "300", "epoch", "1.2 MB", "memory"]
    assert by_name["best of lr 0.02"]["tags"] == ["best"]
    assert (by_name["before the bump"]["cells"][4], by_name["before the bump"]["tags"]) == ("bump.nbd", ["pinned"])
    assert next(iter(by_name)) == "best of lr 0.02", "the latest first"
    assert snapshots.state(views.view())["summary"] == "none yet"


def test_snapshots_of_reruns_under_other_seeds_are_neither_listed_nor_counted():
    shown = (*views.noise("main", 1), views.run())
    taken = (views.snapshot("a", run="main seed 0"), views.snapshot("b"), views.snapshot("c", run="main seed 0"))
    state = snapshots.state(views.view(runs=shown, snapshots=taken))
    assert ([row["name"] for row in state["rows"]], state["summary"][:11]) == (["b"], "1 snapshot ")


def test_of_very_many_snapshots_the_latest_and_the_remarkable_are_listed():
    many = tuple(views.snapshot(f"s{i}", step=i, reason=Reason.SPACED, best=i == 7) for i in range(600))
    state = snapshots.state(views.view(snapshots=(views.snapshot("first", reason=Reason.START), *many)))
    names = [row["name"] for row in state["rows"]]
    assert len(names) == 100 and names[0] == "s599" and names[-2:] == ["s7", "first"]
    assert state["more"] == "and 501 more, taken along the way"


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [(0, "0 B"), (812, "812 B"), (1_240, "1.2 kB"), (999_700, "1.0 MB"), (14_000_000_000, "14 GB"), (9.96e6, "10 MB")],
)
def test_sizes(size_bytes, said):
    assert words.size(size_bytes) == said


def test_a_verdict_says_the_sentence_and_the_numbers():
    state = verdict.state(views.forest())
    assert state["title"] == "calmer against main"
    assert state["sentence"].startswith("lr 0.02 is better than main")
    assert state["rows"][0]["cells"] == [
        "loss/val", "0.187", "0.142", "−0.045 (−24.1 %)", "−0.052 to −0.038", "±9.0e-3", "better", "99.8 %",
    ]  # fmt: skip
    assert state["rows"][1]["verdict"] == "within noise"
    assert verdict.state(views.view()) is None


@pytest.mark.parametrize(
    ("judged", "confidence", "sure"),
    [
        (Verdict.BETTER, 0.998, "99.8 %"),
        (Verdict.WORSE, 0.9994, "99.9 %"),
        (Verdict.WORSE, 0.9996, "> 99.9 %"),
        (Verdict.BETTER, 1.0, "> 99.9 %"),
        (Verdict.WITHIN_NOISE, 0.9, "–"),
        (Verdict.UNDECIDED, 0.0, "–"),
    ],
)
def test_how_sure_is_told_of_better_and_worse_and_never_as_a_hundred_per_cent(judged, confidence, sure):
    row = replace(views.comparison().rows[0], verdict=judged, confidence=confidence)
    shown = verdict.state(views.view(comparison=views.comparison(rows=(row,))))
    assert shown["rows"][0]["cells"][-1] == sure


def test_a_verdict_on_runs_called_by_their_titles_is_headed_by_the_titles_of_now():
    *others, last = views.forest().runs
    view = views.forest(runs=(*others, replace(last, run=replace(last.run, title="wild"))))
    legend = Legend()
    for called in ("lr 0.5", "wild"):
        state = verdict.state(replace(view, comparison=views.comparison(run=called)), legend)
        assert (state["title"], state["heads"][2]) == ("wild against main", "wild")
        assert state["tones"] == [legend.tones(view.runs)[name] for name in ("main", "lr 0.5")]


def test_a_verdict_without_noise_and_of_what_diverged_is_plain_json():
    made = views.comparison(seeds=0)
    odd = replace(
        made.rows[0], run_level=math.inf, difference=math.inf, interval=(math.nan, math.nan), noise=math.nan,
        confidence=0.0,
    )  # fmt: skip
    state = verdict.state(views.view(comparison=replace(made, rows=(odd,))))
    json.dumps(state, allow_nan=False)
    assert state["rows"][0]["cells"][2:6] == ["inf", "inf", "–", "–"] and state["about"].endswith("no other seeds")


def test_the_verdicts_two_colours_always_differ():
    legend, made = Legend(), views.comparison()
    same = (views.run(train=[1.0]), *(views.branch(f"b{i}", "main", 1, [1.0]) for i in range(6)))
    view = views.view(runs=(*same, replace(views.branch("lr 0.02", "main", 1, [1.0]), run=Run("lr 0.02", "main", 1))))
    assert legend.tones(view.runs)["lr 0.02"] == legend.tones(view.runs)["main"]
    for shown in (view, views.forest(), replace(view, runs=())):
        parent, run = verdict.tones(legend, shown, made)
        assert parent != run
