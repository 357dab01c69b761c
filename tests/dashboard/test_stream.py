"""No ack, no next frame; a late ack drops the view; what was skipped is not queued."""

from __future__ import annotations

import numpy as np

from nbdebug.dashboard.figures.panel import cover
from nbdebug.dashboard.picture import Painter, default_panels, difference, values
from nbdebug.dashboard.stream import Stream
from nbdebug.records.status import Status
from tests.dashboard import views

PICTURE = {("a",): 1}


def listening(*names: str) -> Stream:
    stream = Stream(period_s=0.1, patience_s=2.0)
    for name in names:
        stream.ready(name)
    return stream


def test_nobody_listens():
    stream = listening()
    assert not stream.live and stream.wait_s(0.0) is None and stream.due(0.0) == {}


def test_no_ack_no_next_frame():
    stream = listening("v")
    number = stream.sent(["v"], PICTURE, 0.0)
    assert stream.due(1.0) == {}
    stream.acknowledge("v", number - 1)
    assert stream.due(1.0) == {}
    stream.acknowledge("v", number)
    assert stream.due(1.0) == {"v": PICTURE}


def test_no_sooner_than_a_period():
    stream = listening("v")
    stream.acknowledge("v", stream.sent(["v"], PICTURE, 0.0))
    assert stream.due(0.05) == {} and stream.due(0.1) == {"v": PICTURE}
    assert stream.wait_s(0.04) == 0.1 - 0.04


def test_a_late_ack_drops_the_view_until_it_speaks_and_then_it_gets_everything():
    stream = listening("v")
    number = stream.sent(["v"], PICTURE, 0.0)
    assert stream.expire(1.9) == [] and stream.expire(2.0) == ["v"]
    assert not stream.live
    stream.acknowledge("v", number)
    assert stream.due(9.0) == {"v": {}}


def test_a_slow_view_does_not_hold_up_another():
    stream = listening("slow", "quick")
    stream.acknowledge("quick", stream.sent(["slow", "quick"], PICTURE, 0.0))
    assert list(stream.due(0.5)) == ["quick"]
    stream.bye("quick")
    assert stream.due(0.5) == {}


def test_what_was_skipped_is_not_queued():
    painter = Painter(default_panels())
    first = painter.paint(views.view())
    painter.paint(views.view(runs=(views.run(train=[1.0] * 5),)))
    last = painter.paint(views.view(runs=(views.run(train=[1.0] * 6),)))
    assert difference(first, last) == difference(dict(first), dict(last))
    assert difference(last, last) is None


def test_a_curve_that_grew_is_sent_from_where_it_differs():
    before = {("p", "array", "t", "y"): values(np.array([1.0, np.nan, 3.0]))}
    after = {("p", "array", "t", "y"): values(np.array([1.0, np.nan, 4.0, 5.0]))}
    frame = difference(before, after)
    assert frame is not None
    assert b'[[["p", "array", "t", "y"], [4], 2]]' in frame[0]
    assert np.frombuffer(frame[1]).tolist() == [4.0, 5.0]


def test_unchanged_panels_are_not_drawn_again():
    painter = Painter(default_panels())
    view = views.view()
    assert difference(painter.paint(view), painter.paint(view)) is None


class Broken:
    name = "broken"
    title = "Broken"
    tab = ""
    period_s = 0.0

    def inputs(self, view):
        return (object(),)

    def draw(self, view):
        raise ZeroDivisionError("so <b>broken</b>")

    def skeleton(self, view):
        raise AssertionError


def test_a_panel_that_raises_is_switched_off_and_told(caplog):
    painter = Painter([*default_panels(), Broken()])
    picture = painter.paint(views.view())
    card = picture[("findings",)]["cards"][0]
    assert "Broken chart is switched off" in card["title"] and "ZeroDivisionError" in card["detail"]
    assert ("loss", "figure") in picture
    assert len(caplog.records) == 1
    painter.paint(views.view())
    assert len(caplog.records) == 1


def test_a_drawing_is_kept_while_its_inputs_are_and_equal_numbers_count_as_the_same():
    drawn = []

    class Counting:
        name = title = "counting"
        tab, period_s = "", 0.0

        def inputs(self, view):
            return (view.runs, int(str(view.status.step)))  # a number made anew, as a status is

        def draw(self, view):
            drawn.append(view.status.step)
            return cover("nothing yet")

    painter = Painter([Counting()])
    runs = (views.run(train=[1.0]),)
    for step in (1000, 1000, 1001, 1001):
        painter.paint(views.view(runs=runs, status=Status(step=step)))
    assert drawn == [1000, 1001]


def test_a_curve_that_grew_is_encoded_anew():
    painter = Painter(default_panels())
    for values_of_run in ([1.0, 2.0], [1.0, 2.0, 3.0]):
        picture = painter.paint(views.view(runs=(views.run(train=values_of_run),)))
        assert picture["loss", "array", "main train", "y"] == values(np.array(values_of_run))
