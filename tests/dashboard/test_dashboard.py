"""Threads, closing, colours, and what the widget keeps to itself. No browser: messages are put in by hand."""

from __future__ import annotations

import threading
import time

import pytest

from nbdebug.dashboard import Dashboard, blocking_note, routing, theme
from nbdebug.dashboard.board import Board
from nbdebug.records.commands import Pause
from tests.dashboard import views


class Source:
    """A debugger's two functions, counted."""

    def __init__(self):
        self.pulls = 0
        self.commands = []
        self.view = views.view()

    def pull(self, max_points, focus):
        self.pulls += 1
        self.focus = focus
        return self.view

    def post(self, command):
        self.commands.append(command)


@pytest.fixture
def wire(monkeypatch):
    """What a Board would have sent, as contents."""
    contents = []
    monkeypatch.setattr(Board, "send", lambda self, content, buffers=None: contents.append(content))
    return contents


def until(condition, wait_s=5.0):
    end = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def shown(wire):
    source = Source()
    dashboard = Dashboard(source.pull, source.post)
    dashboard.mimebundle()
    yield source, dashboard, dashboard._board, wire
    dashboard.close()


def test_making_one_is_cheap_and_starts_nothing():
    before = threading.active_count()
    dashboard = Dashboard(Source().pull, Source().post)
    assert threading.active_count() == before
    dashboard.close()
    dashboard.close()


def test_nobody_looks_nothing_is_pulled(shown):
    source, _, _, wire = shown
    time.sleep(0.3)
    assert (source.pulls, wire) == (1, [])  # the one pull is for the text


def test_ready_then_one_frame_until_the_ack(shown):
    source, dashboard, board, wire = shown
    board._on_message(board, {"type": "ready", "view": "v"}, [])
    until(lambda: len(wire) == 1)
    assert wire[0]["whole"] and wire[0]["to"] == ["v"]
    source.view = views.view(runs=(views.run(train=[1.0] * 9),))
    time.sleep(0.3)
    assert len(wire) == 1
    board._on_message(board, {"type": "ack", "view": "v", "number": wire[0]["number"]}, [])
    until(lambda: len(wire) == 2)
    assert not wire[1]["whole"]
    assert dashboard.sent.frames == 2


def test_an_idle_dashboard_is_silent(shown):
    _, dashboard, board, wire = shown
    board._on_message(board, {"type": "ready", "view": "v"}, [])
    until(lambda: len(wire) == 1)
    board._on_message(board, {"type": "ack", "view": "v", "number": wire[0]["number"]}, [])
    time.sleep(0.5)
    assert len(wire) == 1 and dashboard.sent.pulls < 9


def test_a_command_is_posted_at_once(shown):
    source, _, board, _ = shown
    board._on_message(board, {"type": "command", "view": "v", "command": "pause"}, [])
    assert source.commands == [Pause()]


def test_a_run_switched_off_leaves_the_chart_and_asks_training_for_nothing(shown):
    source, _, board, wire = shown
    board._on_message(board, {"type": "ready", "view": "v"}, [])
    until(lambda: len(wire) == 1)
    board._on_message(board, {"type": "ack", "view": "v", "number": wire[0]["number"]}, [])
    board._on_message(board, {"type": "overlay", "view": "v", "run": "main", "drawn": False}, [])
    until(lambda: len(wire) == 2)
    assert dict(shown[1]._legend.choices) == {"main": False} and source.commands == []
    board._on_message(board, {"type": "overlay", "view": "v", "run": "main", "drawn": "yes"}, [])
    board._on_message(board, {"type": "ready", "view": "w"}, [])
    until(lambda: any("w" in content["to"] for content in wire))
    assert dict(shown[1]._legend.choices) == {"main": False}


@pytest.mark.parametrize(
    "garbage",
    [None, 3, "x", {}, {"view": 1}, {"view": "v"}, {"view": "v", "type": []}, {"view": "v", "type": "command"}],
)
def test_garbage_does_no_harm(shown, garbage):
    source, _, board, wire = shown
    board._on_message(board, garbage, [])
    board._on_message(board, {"type": "ready", "view": "w"}, [])
    until(lambda: any("w" in content["to"] for content in wire))
    assert source.commands == []


def test_a_post_that_raises_stays_out_of_the_kernel(shown, caplog):
    _, dashboard, board, _ = shown
    dashboard._post = lambda command: 1 / 0
    board._on_message(board, {"type": "command", "view": "v", "command": "pause"}, [])
    assert "could not be passed on" in caplog.text


def test_a_closed_one_shows_its_last_picture_and_does_nothing(shown):
    source, dashboard, board, wire = shown
    thread = dashboard._thread
    dashboard.close()
    assert not thread.is_alive()
    wire.clear()
    board._on_message(board, {"type": "ready", "view": "v"}, [])
    board._on_message(board, {"type": "command", "view": "v", "command": "pause"}, [])
    assert [content["type"] for content in wire] == ["frame", "closed"]
    assert source.commands == []


def test_a_closed_one_can_still_be_displayed(wire):
    def refuse(max_points, focus):
        raise RuntimeError("closed")

    dashboard = Dashboard(refuse, Source().post)
    dashboard.close()
    data, _ = dashboard.mimebundle()
    assert data["text/plain"] == "nbdebug: debugger closed"
    assert dashboard._thread is None


def test_two_in_one_kernel_do_not_mix(wire):
    sources = [Source(), Source()]
    dashboards = [Dashboard(source.pull, source.post) for source in sources]
    for dashboard in dashboards:
        dashboard.mimebundle()
    board = dashboards[1]._board
    board._on_message(board, {"type": "command", "view": "v", "command": "pause"}, [])
    assert [source.commands for source in sources] == [[], [Pause()]]
    for dashboard in dashboards:
        dashboard.close()


def test_the_text_is_beside_the_widget(shown):
    _, dashboard, _, _ = shown
    data, _ = dashboard.mimebundle()
    assert data["text/plain"].startswith("nbdebug: running")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_the_saved_state_stays_small(shown):
    state = shown[2].get_state()
    assert sum(len(str(value)) for value in state.values()) < 290_000  # the module and its stylesheet, no data


def test_routing_leaves_comms_without_the_feature_alone():
    class Plain:
        pass

    class Remembering:
        def _reply_subshell_for(self, data, default):
            return "where it last published"

    plain, remembering = Plain(), Remembering()
    routing.hear_while_busy(plain)
    routing.hear_while_busy(remembering)
    assert vars(plain) == {}
    assert remembering._reply_subshell_for({}, "as addressed") == "as addressed"
    assert Remembering()._reply_subshell_for({}, "x") == "where it last published"
    assert blocking_note() is None


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_stand_out(mode):
    colour = {name: getattr(tone, mode) for name, tone in theme.TONES.items()}
    for name in ("ink", "mute", "bad", "warn", "ok"):
        assert contrast(colour[name], colour["panel"]) >= 4.5, name
    for name in theme.RUNS:
        assert contrast(colour[name], colour["panel"]) >= 3, name


def test_every_authored_colour_is_known_to_the_browser():
    assert len(theme.palette()) == len(theme.TONES)
    for name in theme.TONES:
        assert f"--nbd-{name}:" in theme.stylesheet()
