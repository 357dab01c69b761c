"""Watched samples as a person meets them: cards in several orders, the slider over passes, what was foretold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from nbdebug.records.samples import Samples
from tests.browser import watched
from tests.browser.scenes import Scene, closing

EVIL = "<img src=x onerror=alert(1)>"


class SampleScene(Scene):
    """The tab "Samples"."""

    def __init__(
        self, browser: Browser, samples: Samples | None = None, *, tab: str = "Samples", **options: Any
    ) -> None:
        super().__init__(browser, tab=tab, **options)
        self.view = replace(self.view, samples=watched.classes() if samples is None else samples)

    @property
    def cards(self) -> Locator:
        return self.page.root.locator(".nbd-samples > li")

    @property
    def slider(self) -> Locator:
        return self.page.root.get_by_label("Pass", exact=True)

    def order(self, name: str) -> Locator:
        return self.page.root.get_by_role("radio", name=name)

    def pixels(self, at: int) -> list[int]:
        """The red of what is painted on a card."""
        found: list[int] = (
            self.cards.nth(at)
            .locator("canvas")
            .evaluate(
                "node => [...node.getContext('2d').getImageData(0, 0, node.width, node.height).data]"
                ".filter((_, at) => at % 4 === 0)"
            )
        )
        return found


@pytest.fixture
def scene(browser: Browser) -> Iterator[Callable[..., SampleScene]]:
    """Opens pages."""
    opened: list[SampleScene] = []

    def scene(*samples: Samples, **options: Any) -> SampleScene:
        opened.append(SampleScene(browser, *samples, **options))
        opened[-1].open()
        return opened[-1]

    with closing(opened):
        yield scene


def test_the_worst_are_shown_first_as_they_look_with_what_was_foretold(scene: Callable[..., SampleScene]) -> None:
    found = watched.classes()
    page = scene(found)
    expect(page.cards).to_have_count(24)
    worst = found.worst()
    assert found.set is not None and found.set.view is not None and found.set.view.pictures is not None
    for at in (0, 1, 5):
        expect(page.cards.nth(at)).to_contain_text(f"#{worst[at].index} loss {worst[at].loss:.3g}")
        expect(page.cards.nth(at)).to_contain_text(f"{worst[at].target} → {worst[at].predicted}")
        assert page.pixels(at) == found.set.view.pictures[worst[at].place, :, :, 0].reshape(-1).tolist()
    lit = page.page.root.locator(".nbd-samples b.nbd-lit")
    expect(lit).to_have_count(4)
    expect(page.page.root.locator(".nbd-samples-tab")).to_contain_text("60 of 420 training samples, 12 passes")


def test_orders_are_chosen_by_click_and_by_key(scene: Callable[..., SampleScene]) -> None:
    found = watched.classes()
    page = scene(found)
    page.order("probably mislabelled").click()
    expect(page.cards).to_have_count(len(found.mislabelled))
    expect(page.cards.first).to_contain_text(f"#{found.mislabelled[0].index}")
    expect(page.cards.first).to_contain_text("margin -0.9")
    page.order("probably mislabelled").press("ArrowLeft")
    expect(page.order("forgotten")).to_be_focused()
    expect(page.order("forgotten")).to_have_attribute("aria-checked", "true")
    expect(page.cards).to_have_count(1)
    expect(page.cards.first).to_contain_text("forgotten 1×")
    page.order("forgotten").press("ArrowLeft")
    expect(page.cards).to_have_count(len(found.hard))


def test_the_slider_goes_back_over_the_passes_and_follows_the_latest(scene: Callable[..., SampleScene]) -> None:
    found = watched.classes(passes=6)
    page = scene(found)
    table = page.page.root.locator(".nbd-confusion tbody td")

    def shown() -> list[int]:
        return [int(text or 0) for text in table.all_text_contents()]

    assert shown() == found.confusion().reshape(-1).tolist()
    page.slider.focus()
    page.slider.press("Home")
    expect(page.slider).to_have_attribute("aria-valuetext", "after step 40, epoch 1 · 3.33 % right")
    assert shown() == found.confusion(0).reshape(-1).tolist() != found.confusion().reshape(-1).tolist()
    first = found.worst()[0].place
    expect(page.cards.first).to_contain_text(f"loss {found.losses[0][first]:.3g}")
    more = watched.classes(passes=7)
    page.show(samples=more)
    expect(page.slider).to_have_attribute("aria-valuetext", "after step 40, epoch 1 · 3.33 % right")
    page.slider.press("End")
    page.show(samples=watched.classes(passes=8))
    expect(page.slider).to_have_js_property("value", "7")
    assert shown() == watched.classes(passes=8).confusion().reshape(-1).tolist()


def test_numbers_are_drawn_against_what_is_true(scene: Callable[..., SampleScene]) -> None:
    found = watched.values()
    page = scene(found)
    dots = page.page.root.locator(".nbd-scatter circle")
    expect(dots).to_have_count(80)
    assert found.set is not None

    def off_the_line() -> float:
        places: list[list[float]] = dots.evaluate_all(
            "nodes => nodes.map((node) => [node.cx.baseVal.value, node.cy.baseVal.value])"
        )
        return sum(abs(x - (300 - y)) for x, y in places) / len(places)

    late = off_the_line()
    page.slider.focus()
    page.slider.press("Home")
    assert off_the_line() > 3 * late, "the first pass is farther from what is true"
    expect(page.cards.first.locator("dt")).to_have_text(["0", "1", "2", "3"])
    page.order("probably mislabelled").click()
    expect(page.cards.first).to_be_hidden()
    expect(page.page.root.locator(".nbd-samples-tab")).to_contain_text("None: a suspect is one")


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("pictures", 520), ("pictures", 1180), ("table", 520), ("table", 1600)),
        *(("sequence", 860), ("ids", 520), ("many classes", 860)),
    ],
)
def test_all_kinds_fit_at_any_width(scene: Callable[..., SampleScene], name: str, width: int) -> None:
    page = scene(watched.MADE[name](), width=width, theme="dark" if width % 3 else "light")
    expect(page.cards.first).to_be_visible()
    assert page.page.root.evaluate("node => node.scrollWidth <= node.clientWidth")
    boxes = page.page.boxes(".nbd-samples > li")
    apart = [one["right"] <= other["left"] + 1 or one["bottom"] <= other["top"] + 1 for one, other in pairwise(boxes)]
    assert apart and all(apart)


def test_what_samples_look_like_is_sent_once_and_nothing_while_the_tab_is_hidden(
    scene: Callable[..., SampleScene],
) -> None:
    page = scene(tab="Runs")

    def sent() -> int:
        return page.page.dashboard.sent.bytes

    before = sent()
    page.show(samples=watched.classes(passes=7))
    assert sent() == before, "hidden"
    page.get("tab", "Samples").click()
    page.page.pump(0.7)
    expect(page.cards).to_have_count(24)
    whole = sent() - before
    page.get("tab", "Runs").click()
    page.page.pump(0.5)
    before = sent()
    page.show(samples=watched.classes(passes=8))
    assert sent() == before, "hidden again"
    kept = watched.classes(passes=9)
    page.get("tab", "Samples").click()
    page.show(samples=replace(kept, passes=kept.passes[:8]))
    before = sent()
    page.show(samples=kept)
    looks = 60 * 8 * 8 * 3
    assert sent() - before < whole - looks, "the pictures were sent again"


def test_nothing_watched_yet_odd_numbers_and_odd_words(scene: Callable[..., SampleScene]) -> None:
    page = scene(Samples(note=f"it was switched off {EVIL}"))
    expect(page.page.root.locator(".nbd-samples-tab")).to_contain_text(f"it was switched off {EVIL}")
    expect(page.cards).to_have_count(0)
    page.show(samples=Samples())
    expect(page.page.root.locator(".nbd-samples-tab")).to_contain_text("debugger.watch_samples() watches others")
    found = watched.classes(12)
    assert found.set is not None
    odd = found.passes[-1]
    odd.losses[:2] = (float("nan"), float("inf"))
    odd.predicted[0] = float("nan")
    page.show(samples=Samples(replace(found.set, words=(EVIL, *found.set.words[1:])), found.passes))
    expect(page.cards.first).to_contain_text(f"#0 loss NaN{EVIL} → NaN")
    expect(page.cards.nth(1)).to_contain_text("loss inf")
