"""What a journal says of layers: the latest, tracks and stories for the dashboard, in bounded memory over all runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nbdebug.journal import journal
from nbdebug.journal.histogram_track import HistogramTrack
from nbdebug.journal.journal import Journal
from nbdebug.journal.layer_table import LayerTable
from nbdebug.journal.layers import newest
from nbdebug.records.frames import Frame
from nbdebug.records.layers import BINS, Histograms, LayerValues, Unseen
from nbdebug.records.runs import Run, RunKind
from nbdebug.records.signals import Series, Signal
from nbdebug.records.view import Focus
from tests.journal.made import fill, frame, histogram, histograms, layer_values, rows

FOCUS = Focus("fc", Signal.ACTIVATIONS, (Signal.UPDATE_RATIO, Signal.GRADIENT_STATE), (Signal.GRADIENT_MAX,))


def started(*runs: Run) -> Journal:
    made = Journal()
    for run in runs or (Run("main"),):
        made.begin_run(run)
    return made


# -- the latest numbers -----------------------------------------------------------------------------------------


def table(layers: str, signals: tuple[Signal, ...], values: list[list[float | None]]) -> LayerValues:
    present = np.array([[value is not None for value in row] for row in values])
    return LayerValues(tuple(layers), signals, np.array([[value or 0.0 for value in row] for row in values]), present)


A, B, C = Signal.UPDATE_RATIO, Signal.WEIGHT_NORM, Signal.GRADIENT_MEAN


@pytest.mark.parametrize(
    ("known", "more", "joined"),
    [
        (None, table("xy", (A,), [[1, 2]]), {"A": [1, 2]}),
        (table("xy", (A,), [[1, 2]]), table("xy", (A,), [[None, 3]]), {"A": [None, 3]}),
        (table("xy", (A, B), [[1, 2], [3, 4]]), table("xy", (A, B), [[5, 6], [None] * 2]), {"A": [5, 6], "B": [3, 4]}),
        (table("xy", (A, B), [[1, 2], [3, 4]]), table("xy", (A,), [[5, 6]]), {"A": [5, 6], "B": [3, 4]}),
        (table("xy", (A,), [[1, 2]]), table("xy", (B, C), [[3, 4], [5, 6]]), {"A": [1, 2], "B": [3, 4], "C": [5, 6]}),
        (table("xy", (A, B), [[1, 2], [3, 4]]), table("yz", (A,), [[5, 6]]), {"A": [5, 6], "B": [4, None]}),
    ],
)  # fmt: skip
def test_the_latest_joins_the_newest_of_every_signal(
    known: LayerValues | None, more: LayerValues, joined: dict[str, list[float | None]]
) -> None:
    found = newest(known, more)
    assert found.layers == more.layers and len(found.signals) == len(joined)
    for name, expected in joined.items():
        values, present = found.of({"A": A, "B": B, "C": C}[name])
        assert [value if there else None for value, there in zip(values, present, strict=True)] == expected


def test_the_latest_is_as_it_was_recorded() -> None:
    live = started()
    tiny = table("xy", (A, Signal.GRADIENT_STATE), [[1e-42, 1e300], [1, 2]])
    live.record(Frame("main", 1, 0, (), layers=tiny))
    latest = live.layers_view("main").latest
    assert latest.of(A)[0].tolist() == [1e-42, 1e300]
    assert latest.of(Signal.GRADIENT_STATE)[0].tolist() == [1, 2]
    live.record(Frame("main", 2, 0, (), layers=table("xy", (B,), [[7, 8]])))
    view = live.layers_view("main")
    assert view.step == 2 and view.latest.of(A)[0].tolist() == [1e-42, 1e300]


# -- histograms over time ---------------------------------------------------------------------------------------


def test_histograms_are_thinned_and_the_newer_stay() -> None:
    track = HistogramTrack(Signal.GRADIENTS)
    for step in range(3, 3_000, 3):
        track.append(step, histogram(Signal.GRADIENTS, step, ("a", "b")))
    story = track.story("b")
    assert 32 < len(story.steps) <= 128 and story.steps[-1] == 2_997 and track.width == 32
    assert all(step + 3 >= (step // track.width + 1) * track.width for step in story.steps[:-1].tolist())
    for step, counts, limit in zip(story.steps.tolist(), story.counts, story.limits.tolist(), strict=True):
        given = histogram(Signal.GRADIENTS, step, ("a", "b"))
        assert counts.tolist() == given.counts[1].tolist() and limit == given.limit[1]
    assert track.latest[0].counts.tolist() == histogram(Signal.GRADIENTS, 2_997, ("a", "b")).counts.tolist()
    assert track.story("c") is None


@pytest.mark.parametrize("limit", [2.0**-149, 2.0**-1060, 1.0, 2.0**128, 2.0**1000])
def test_large_counts_and_extreme_limits_are_kept(limit: float) -> None:
    counts = np.zeros((2, BINS))
    counts[0, :4], counts[1, 7] = (3_000_000, 1, 50, 700_000), 65_535
    track, of = HistogramTrack(Signal.WEIGHTS), np.full(2, 4_000_000)
    track.append(1, Histograms(Signal.WEIGHTS, ("a", "b"), counts, np.full(2, limit), of, of))
    large, small = track.story("a"), track.story("b")
    assert (large.counts[0] > 0).tolist() == (counts[0] > 0).tolist(), "a bin that is not empty stays so"
    np.testing.assert_allclose(large.counts[0], counts[0], atol=3_000_000 / 65_535)
    assert small.counts[0].tolist() == counts[1].tolist()
    assert large.limits.tolist() == [limit]


def test_a_layer_that_was_replaced_keeps_its_story() -> None:
    track = HistogramTrack(Signal.GRADIENTS)
    for step in range(1, 60):
        track.append(step, histogram(Signal.GRADIENTS, step, ("a", "old") if step < 30 else ("a", "new")))
    assert list(track.layers) == ["a", "new", "old"]
    assert track.story("old").steps.tolist() == list(range(1, 30))
    assert track.story("new").steps.tolist() == list(range(30, 60))


# -- the view ---------------------------------------------------------------------------------------------------


def test_the_same_objects_until_something_new_comes() -> None:
    live = started()
    fill(live, 1, 70)
    view = live.layers_view("main", FOCUS)
    assert live.layers_view("main", FOCUS) is view
    live.record_rows(rows(71, 80))
    assert live.layers_view("main", replace(FOCUS)) is view, "one that asks for the same"
    other = live.layers_view("main", Focus("conv1", tracks=FOCUS.tracks))
    assert other.latest is view.latest and other.tracks[0] is view.tracks[0] and other.story is not view.story
    assert all(one is two for one, two in zip(other.histograms, view.histograms, strict=True))
    fill(live, 81, 84)
    after = live.layers_view("main", FOCUS)
    assert after.step == 84 and after.latest is not view.latest
    assert after.histograms[0] is not view.histograms[0]
    assert after.histograms[1] is view.histograms[1], "no new histogram of weights"


def test_what_is_asked_for_is_what_was_recorded() -> None:
    live = started()
    fill(live, 1, 70)
    view = live.layers_view("main", FOCUS)
    [tracks], story = view.tracks, view.story
    assert tracks.steps.tolist() == story.steps.tolist() == list(range(7, 71, 7))
    for row, step in enumerate(tracks.steps.tolist()):
        expected = layer_values(step).of(Signal.GRADIENT_MAX)[0].astype(np.float32)
        assert tracks.low[row].tolist() == tracks.high[row].tolist() == expected.tolist()
        assert story.counts[row].tolist() == histograms(step)[0].counts[1].tolist()
    [(signal, points)] = story.curves  # the state of gradients is no curve
    assert signal is Signal.UPDATE_RATIO
    expected = [np.float32(layer_values(step).of(signal)[0][1]) for step in range(7, 71, 7)]
    assert points.values.tolist() == expected
    assert live.layers_view("main", Focus("nowhere")).story is None
    assert live.layers_view("main", Focus("fc", Signal.DATA)).story.counts.shape == (0, BINS)
    assert live.layers_view("nobody").latest is None


def test_a_branch_shows_what_it_came_from_until_it_has_its_own() -> None:
    live = started(Run("main"))
    fill(live, 1, 70)
    live.begin_run(Run("b", "main", 70))
    live.begin_run(Run("c", "b", 75))
    live.begin_run(Run("early", "main", 30))
    assert live.layers_view("b", FOCUS) is live.layers_view("main", FOCUS)
    assert live.layers_view("c", FOCUS).step == 70
    assert live.layers_view("early").latest is None, "the latest there is of a later step"
    fill(live, 71, 77, "b")
    assert live.layers_view("b").step == 77 and live.layers_view("main").step == 70
    assert live.layers_view("c").step == 70, "b went on after c had left it"
    live.record(frame(76, "c", sampled=True))
    assert live.layers_view("c").step == 76


def test_what_can_not_be_seen_holds_for_branches_until_they_say_otherwise() -> None:
    live = started(Run("main"), Run("b", "main", 5))
    assert live.unseen("b") == ()
    told = (Unseen("fc", "activations", "not called as a module"),)
    live.record_unseen("main", told)
    assert live.unseen("b") is told and live.layers_view("b").unseen is told
    view = live.layers_view("b")
    assert live.layers_view("b") is view
    live.record_unseen("b", ())
    assert live.unseen("b") == () and live.unseen("main") is told
    assert live.layers_view("b").unseen == ()


def test_rows_are_the_same_as_frames() -> None:
    one, many = started(), started()
    for step in range(1, 301):
        one.record(frame(step))
    for first, last in ((1, 1), (2, 40), (41, 299), (300, 300)):
        many.record_rows(rows(first, last))
    many.record_rows(rows(301, 300))  # of no step at all
    for left, right in zip(one.run_views(100), many.run_views(100), strict=True):
        for name in ("train", "smooth", "val"):
            assert getattr(left, name).steps.tolist() == getattr(right, name).steps.tolist()
            np.testing.assert_array_equal(getattr(left, name).values, getattr(right, name).values)
        assert (left.metrics, left.steps) == (right.metrics, right.steps) and left.steps == 300


def test_rows_of_fewer_series_that_come_later_do_not_set_a_run_back() -> None:
    live = started()
    live.record_rows(rows(1, 50))
    live.record_rows(rows(40, 45, series=(Series(Signal.CLIP_RATE),)))
    assert live.run_views(100)[0].steps == 50


# -- memory -----------------------------------------------------------------------------------------------------


KINDS = (Signal.ACTIVATIONS, Signal.GRADIENTS, Signal.WEIGHTS, Signal.BIASES, Signal.CHANGES, Signal.DATA)


def large_sample(layers: int, signals: int = 30, kinds: int = 6) -> Frame:
    names = tuple(f"blocks.{index}" for index in range(layers))
    some = tuple(signal for signal in Signal if signal is not Signal.GRADIENT_STATE)[:signals]
    shape = (signals, layers)
    values = LayerValues(names, some, np.ones(shape), np.ones(shape, dtype=np.bool_))
    of = np.full(layers, 4_096)
    made = tuple(Histograms(kind, names, np.ones((layers, BINS)), np.ones(layers), of, of) for kind in KINDS[:kinds])
    return Frame("main", 0, 0, (), 1, values, made)


def keep_sampling(live: Journal, run: str, sample: Frame, count: int) -> None:
    for step in range(1, count + 1):
        live.record(Frame(run, step, 0, (), 1, sample.layers, sample.histograms))


@pytest.mark.parametrize(("layers", "signals"), [(200, 30), (1_000, 40)])
def test_a_run_takes_less_than_its_share(layers: int, signals: int) -> None:
    live = started()
    keep_sampling(live, "main", large_sample(layers, signals), 300)
    kept = live.read("main", lambda run: run.layers)
    assert kept.table.size_bytes <= 32 << 20
    tracks = sum(track.size_bytes - track.latest[0].counts.nbytes for track in kept.tracks.values())
    assert tracks <= 24 << 20
    assert kept.size_bytes <= 64 << 20
    assert all(len(track.records) > 8 for track in kept.tracks.values())


def test_all_runs_take_less_than_theirs_and_the_present_one_is_thinned_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_LAYER_BYTES", 2 << 20)
    live = started()
    sample = large_sample(20, 10, 2)
    for number in range(12):
        name = f"run {number}"
        live.begin_run(Run(name))
        keep_sampling(live, name, sample, 150)
        sizes = {run: live.read(run, lambda kept: kept.layers.size_bytes) for run in live.runs}
        assert sum(sizes.values()) <= 2 << 20
        assert live.read(name, lambda kept: len(kept.layers.table)) > 100
    assert all(live.layers_view(f"run {number}").latest is not None for number in range(12))


def test_runs_that_only_measure_noise_keep_no_layers() -> None:
    live = started(Run("main"), Run("noise", "main", 0, kind=RunKind.NOISE))
    keep_sampling(live, "noise", large_sample(200), 3)
    assert not live.read("noise", lambda kept: bool(kept.layers))


def test_an_empty_table_has_nothing_to_show() -> None:
    empty = LayerTable()
    assert empty.points(A, "x") is None and empty.tracks(A, 10) is None and empty.buckets() == []
