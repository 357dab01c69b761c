"""The learning-rate finder as a person meets it: asked for, watched, ended, and a rate taken from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from nbdebug.records.commands import Changes, FindLr, Pause, PostMortem, SetKnobs, Skip
from nbdebug.records.status import GroupRate, State
from tests.browser.scenes import Scene, closing
from tests.dashboard import views

BUSY = "testing learning rates: step 37 of 100, at 2.1e-4"


@pytest.fixture
def scene(browser: Browser) -> Iterator[Callable[..., Scene]]:
    """Opens pages at the finder's tab."""
    opened: list[Scene] = []

    def scene(**options: Any) -> Scene:
        opened.append(Scene(browser, tab="LR finder", **options))
        opened[-1].open()
        return opened[-1]

    with closing(opened):
        yield scene


def test_a_test_is_asked_for_watched_and_ended(scene: Callable[..., Scene]) -> None:
    page = scene()
    root = page.page.root
    expect(page.page.panel("lr_curve")).to_contain_text("no range test was made yet", timeout=30_000)
    expect(root.locator(".nbd-find")).to_contain_text("100 steps on your data, under 1 s")
    root.get_by_label("steps", exact=True).fill("2000")
    expect(root.locator(".nbd-find")).to_contain_text("2,000 steps on your data, about 16 s")
    root.get_by_label("lowest rate", exact=True).fill("20")
    expect(root.locator(".nbd-find")).to_contain_text("the highest rate has to be above the lowest")
    expect(page.get("button", "Run the range test")).to_be_disabled()
    root.get_by_label("lowest rate", exact=True).fill("1e-6")
    page.get("button", "Run the range test").click()
    assert page.asked() == FindLr(1e-6, 10.0, 2000)
    page.show(status=replace(page.view.status, activity=BUSY))
    expect(page.get("tabpanel", "LR finder").locator(".nbd-find-doing")).to_contain_text(BUSY)
    expect(page.get("button", "Run the range test")).to_be_disabled()
    page.get("button", "End the test").click()
    assert page.asked() == Pause()


@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (600, "dark")])
def test_a_suggestion_or_a_place_on_the_curve_is_taken(scene: Callable[..., Scene], width: int, theme: str) -> None:
    page = scene(width=width, theme=theme)
    page.show(lr_curve=views.lr_curve())
    page.page.pump(0.5)
    listed = page.page.root.locator(".nbd-find-list li")
    expect(listed).to_have_count(4)
    page.get("button", "use 2.1e-3, middle of the valley").press("Enter")
    assert page.asked() == SetKnobs(Changes(lr=2.1e-3))
    page.show(knobs=replace(page.view.knobs, groups=(GroupRate("all", 2.1e-3, 2.1e-3),)))
    expect(page.get("button", "2.1e-3 is set, middle of the valley")).to_have_attribute("aria-pressed", "true")
    plot = page.page.panel("lr_curve").locator(".nsewdrag").first
    plot.scroll_into_view_if_needed()
    page.page.settle()
    box = plot.bounding_box()
    assert box is not None
    low, high = page.page.panel("lr_curve").locator(".nbd-plot").evaluate("plot => [...plot._fullLayout.xaxis.range]")
    mouse, share = page.page.page.mouse, 0.55
    mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    said = page.page.panel("lr_curve").locator(".nbd-rate-line span").inner_text()
    mouse.down()
    mouse.up()
    taken = page.asked()
    assert isinstance(taken, SetKnobs) and isinstance(taken.changes.lr, float)
    assert taken.changes.lr == pytest.approx(10 ** (low + share * (high - low)), rel=0.1)
    assert float(said.removeprefix("use ")) == taken.changes.lr
    count = len(page.page.commands)
    mouse.move(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2, steps=4)
    mouse.up()
    page.page.pump(0.3)
    assert len(page.page.commands) == count, "dragging zooms, and sets nothing"
    assert page.page.root.evaluate("node => node.scrollWidth <= node.clientWidth")


def test_labels_on_the_curve_do_not_cover_each_other(scene: Callable[..., Scene]) -> None:
    page = scene(width=480)
    page.show(lr_curve=views.lr_curve())
    page.page.pump(0.6)
    boxes = page.page.boxes("[data-panel=lr_curve] .annotation-text")
    assert len(boxes) == 5
    for index, one in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart_x = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert apart_x or one["bottom"] <= other["top"] + 3 or other["bottom"] <= one["top"] + 3


def test_after_an_error_the_bar_offers_to_look_before_the_step(scene: Callable[..., Scene]) -> None:
    page = scene()
    failed = replace(page.view.status, state=State.FAILED, message="RuntimeError: shapes differ")
    page.show(status=failed)
    expect(page.page.root.locator(".nbd-stop-text")).to_have_text("RuntimeError: shapes differ")
    expect(page.get("button", "Resume from the stop")).to_be_hidden()
    page.get("button", "Look before the step").click()
    assert page.asked() == PostMortem()
    page.get("button", "Skip the batch").click()
    assert page.asked() == Skip()
    page.show(status=replace(failed, state=State.PAUSED), stop=views.stop())
    expect(page.get("button", "Look before the step")).to_be_hidden()
    expect(page.get("button", "Resume from the stop")).to_be_visible()
