"""The search as a person meets it: typed, priced, watched, called off, read in picture and table, gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Locator, expect
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.commands import Checkout, Pause, Search
from nbdebug.records.search import SearchOptions, SearchResult, ranked
from tests.browser.bare_page import BarePage
from tests.browser.scenes import Scene, closing
from tests.dashboard import views

BUSY = "searching: trial 8 of 24, lr 0.0123, dropout 0.2; best so far val_loss 0.213"
EVIL = "<img src=x onerror=alert(1)>"


class SearchScene(Scene):
    """The tab "Search"."""

    def __init__(self, browser: Browser, found: SearchResult | None = None, **options: Any) -> None:
        super().__init__(browser, tab="Search", **options)
        self.view = replace(self.view, knobs=views.knobs(), search_options=views.SEARCHABLE)
        if found is not None:
            branches = tuple(views.branch(trial.run, "main", 400, [1.0]) for trial in found.trials)
            self.view = replace(self.view, search=found, runs=(*self.view.runs, *branches))

    def field(self, label: str) -> Locator:
        return self.page.root.locator(".nbd-seek").get_by_label(label, exact=True)

    @property
    def cost(self) -> Locator:
        return self.page.root.locator(".nbd-seek-form + p")

    def line(self, which: str) -> str:
        """The way of the line that lies over the picture."""
        return self.page.root.locator(f".nbd-trial-{which}").get_attribute("d") or ""


@pytest.fixture
def scene(browser: Browser) -> Iterator[Callable[..., SearchScene]]:
    """Opens pages."""
    opened: list[SearchScene] = []

    def scene(**options: Any) -> SearchScene:
        opened.append(SearchScene(browser, **options))
        opened[-1].open()
        return opened[-1]

    with closing(opened):
        yield scene


# --- asking


def test_values_are_typed_priced_and_asked_for(scene: Callable[..., SearchScene]) -> None:
    page = scene()
    expect(page.page.panel("search")).to_contain_text("no search was made yet")
    expect(page.field("Values of lr")).to_have_value("0.0003, 0.003, 0.03")
    expect(page.cost).to_have_text("3 trials of 50 steps, at most about 1 s; then everything is as it was")
    page.get("button", "+ add a knob").press("Enter")
    expect(page.field("Values of clip norm")).to_be_focused()
    page.field("Values of clip norm").fill("off, 0.5")
    page.field("train each for").fill("20")
    expect(page.cost).to_have_text("6 trials of 1,000 steps, at most about 48 s; then everything is as it was")
    page.field("Values of clip norm").press("Enter")
    page.page.until(lambda: page.page.commands, waiting_for="the search")
    assert page.asked() == Search(
        {"lr": [3e-4, 3e-3, 3e-2], "clip_norm": [None, 0.5]}, 20, measure="val_loss", lower_is_better=True
    )


def test_a_range_is_drawn_from_by_an_engine_of_choice(scene: Callable[..., SearchScene]) -> None:
    page = scene()
    page.field("Values of lr").fill("1e-4 to 1")
    expect(page.cost).to_have_text("of a range so many are drawn: say how many trials")
    expect(page.get("button", "Search")).to_be_disabled()
    page.field("trials").fill("30")
    page.field("choose settings").select_option("optuna")
    page.field("judge by").select_option("val_accuracy")
    expect(page.field("better is")).to_have_value("higher")
    page.field("counted in").select_option("steps")
    page.field("train each for").fill("40")
    page.field("seed").fill("7")
    page.field("end hopeless ones early").uncheck()
    expect(page.cost).to_contain_text("30 trials of 40 steps, at most about 11 s")
    page.get("button", "Search").click()
    page.page.until(lambda: page.page.commands, waiting_for="the search")
    assert page.asked() == Search(
        {"lr": (1e-4, 1)}, None, 40, 30, 7, "val_accuracy", lower_is_better=False, prune=False, engine="optuna"
    )


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("Values of lr", "0.1, x", "lr: x is no number"),
        ("Values of lr", "0.1, off", "lr: off is no number"),
        ("Values of lr", "", "type values, such as 0.1, 0.01, or a range"),
        ("Values of lr", "1 to 0.1", "a range begins with the lower end"),
        ("Values of lr", "1 to", "a range is two numbers"),
        ("train each for", "0", "train each for a whole number, 1 or more"),
        ("trials", "501", "trials are a whole number, from 1 to 500"),
        ("trials", "x", "trials are a whole number"),
        ("seed", "-1", "the seed is a whole number"),
        ("Values of lr", " ".join(str(i + 1) for i in range(501)), "501 combinations are too many"),
    ],
)
def test_what_can_t_be_searched_is_said_and_not_asked_for(
    scene: Callable[..., SearchScene], label: str, text: str, said: str
) -> None:
    page = scene()
    page.field(label).fill(text)
    expect(page.cost).to_contain_text(said)
    expect(page.get("button", "Search")).to_be_disabled()
    page.field(label).press("Enter")
    assert page.asked() is None


def test_switches_are_on_or_off_and_knobs_come_and_go(scene: Callable[..., SearchScene]) -> None:
    page = scene()
    page.field("Knob to try").select_option("amsgrad")
    expect(page.field("Values of amsgrad")).to_have_value("on, off")
    page.get("button", "+ add a knob").click()
    offered = page.field("Knob to try").nth(1).locator("option").all_inner_texts()
    assert "amsgrad" not in offered and offered[0] == "lr"
    page.get("button", "Don't try lr").click()
    expect(page.field("Values of amsgrad")).to_be_focused()
    page.field("Values of amsgrad").press("Enter")
    page.page.until(lambda: page.page.commands, waiting_for="the search")
    asked = page.asked()
    assert isinstance(asked, Search) and asked.space == {"amsgrad": [True, False]}


def test_an_engine_that_is_missing_says_what_to_install(scene: Callable[..., SearchScene]) -> None:
    page = scene()
    missing = SearchOptions(views.SEARCHABLE.measures, (("optuna", "pip install 'nbdebug[search]'"),))
    page.show(search_options=missing)
    option = page.field("choose settings").locator("option").nth(1)
    expect(option).to_be_disabled()
    expect(option).to_have_attribute("title", "pip install 'nbdebug[search]'")


# --- under way, and what came of it


def test_a_search_is_watched_and_called_off(scene: Callable[..., SearchScene]) -> None:
    found = views.search()
    page = scene(found=found)
    page.show(status=replace(page.view.status, activity=BUSY), search=replace(found, trials=found.trials[:6]))
    progress = page.page.root.locator(".nbd-seek-doing")
    expect(progress).to_contain_text(BUSY)
    assert progress.locator(".nbd-fill").evaluate("node => node.style.width") == "25%"
    expect(page.page.root.locator(".nbd-trials tbody tr")).to_have_count(6)
    expect(page.field("Values of lr")).to_be_disabled()
    page.get("button", "Cancel the search").click()
    page.page.until(lambda: page.page.commands, waiting_for="the pause")
    assert page.asked() == Pause()
    page.show(status=replace(page.view.status, activity=""))
    page.answer(Search({}), "the search was called off; the model is where it was", ok=False)
    expect(progress).to_be_hidden()
    expect(page.page.root.locator(".nbd-seek .nbd-refused").last).to_contain_text("the search was called off")


def test_the_best_is_gone_on_with_or_any_other(scene: Callable[..., SearchScene]) -> None:
    found = views.search()
    page = scene(found=found)
    rows = page.page.root.locator(".nbd-trials tbody tr")
    expect(rows).to_have_count(24)
    expect(rows.first.locator(".nbd-best")).to_have_text(f"{found.trials[0].score:.3g}")
    page.get("button", "Go on with the best").click()
    page.page.until(lambda: page.page.commands, waiting_for="the checkout")
    assert page.asked() == Checkout(found.trials[0].run)
    page.get("button", f"Check out trial {found.trials[3].number}").click()
    page.page.until(lambda: len(page.page.commands) == 2, waiting_for="the checkout")
    assert page.asked() == Checkout(found.trials[3].run)
    page.show(status=replace(page.view.status, run=found.trials[0].run))
    expect(page.get("button", "Go on with the best")).to_be_disabled()
    expect(rows.first).to_contain_text("in the model")
    page.show(stored=True)
    expect(page.page.root.locator(".nbd-seek-form")).to_be_hidden()
    expect(page.get("button", "Go on with the best")).to_be_hidden()
    expect(rows).to_have_count(24)


@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (700, "dark")])
def test_picture_and_table_light_up_together(scene: Callable[..., SearchScene], width: int, theme: str) -> None:
    found = views.search()
    page = scene(found=found, width=width, theme=theme)
    plot = page.page.panel("search").locator(".nbd-plot")
    page.page.until(lambda: plot.locator(".main-svg").count(), waiting_for="the picture")
    wanted = found.trials[7].number
    button = page.get("button", f"Show trial {wanted} in the picture")
    button.focus()
    page.page.until(lambda: page.line("over"), waiting_for="the line of the row")
    button.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert page.line("picked").count("L") == 3 and page.line("picked") == page.line("over")
    button.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "false")
    assert page.line("picked") == ""
    last = found.trials[-1].number
    plot.scroll_into_view_if_needed()
    page.page.settle()
    place = plot.evaluate(
        """(plot, number) => {
            const { xaxis, yaxis } = plot._fullLayout, { left, top } = plot.getBoundingClientRect();
            return [left + xaxis._offset + xaxis._length, top + yaxis._offset + yaxis.d2p(-0.13)];
        }""",
        last,
    )
    page.page.page.mouse.move(*place)
    row = page.page.root.locator(".nbd-trials tbody tr").last
    page.page.until(lambda: "nbd-over" in (row.get_attribute("class") or ""), waiting_for="the row of the line")
    page.page.page.mouse.click(*place)
    chosen = page.get("button", f"Show trial {last} in the picture")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    inside = row.evaluate(
        "row => { const box = row.closest('.nbd-scroll').getBoundingClientRect(), own = row.getBoundingClientRect();"
        " return own.top >= box.top && own.bottom <= box.bottom + 1; }"
    )
    assert inside, "the row comes into sight"


def test_labels_of_an_axis_do_not_cover_each_other(scene: Callable[..., SearchScene]) -> None:
    page = scene(found=views.search(), width=480)
    page.page.until(lambda: page.page.boxes("[data-panel=search] .annotation-text"), waiting_for="the labels")
    boxes = page.page.boxes("[data-panel=search] .annotation-text")
    for index, one in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart_x = one["right"] <= other["left"] + 1 or other["right"] <= one["left"] + 1
            assert apart_x or one["bottom"] <= other["top"] + 3 or other["bottom"] <= one["top"] + 3, (one, other)


def test_hostile_names_are_only_text(scene: Callable[..., SearchScene]) -> None:
    trials = tuple(views.trial(n, 0.1 * n, run=EVIL + str(n), setting={EVIL: EVIL}, ended=EVIL) for n in (1, 2))
    found = SearchResult(EVIL, True, ranked(trials, True), {EVIL: [EVIL]}, planned=2, note=EVIL)
    page = scene(found=found)
    page.show(knobs=replace(page.view.knobs, own=(views.OwnKnob(EVIL, 0.5, 0.0, 1.0),)))
    expect(page.page.root.locator(".nbd-seek-note").last).to_have_text(EVIL)
    expect(page.page.root.locator(".nbd-trials tbody tr")).to_have_count(2)
    assert page.page.root.locator("img").count() == 0


@pytest.mark.parametrize("width", [500, 700, 1100, 1600])
def test_nothing_is_wider_than_the_page(scene: Callable[..., SearchScene], width: int) -> None:
    page = scene(found=views.search(), width=width)
    page.page.settle()
    too_wide = page.page.root.evaluate(
        "root => [...root.querySelectorAll('.nbd-seek, .nbd-seek *:not(option)')]"
        ".filter((node) => !node.closest('.nbd-scroll table') && !node.closest('svg'))"
        ".filter((node) => node.getBoundingClientRect().right > root.getBoundingClientRect().right + 1)"
        ".map((node) => node.outerHTML.slice(0, 80))"
    )
    assert too_wide == []


# --- with a debugger behind it


def test_a_search_of_a_real_model_is_made_shown_and_gone_on_with(browser: Browser) -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    loader = [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(5)]
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, loader, loader)
    case = Debugger(model, trainer, journal=None)
    case.run(steps=3)
    page = BarePage(browser, lambda focus: case._view(1000, focus))
    page.dashboard._post = case._post
    with page:
        root = page.root
        root.get_by_role("tab", name="Search", exact=True).click()
        root.get_by_label("Values of lr", exact=True).fill("1e-6, 0.1, 0.5")
        root.get_by_label("train each for", exact=True).fill("2")
        root.get_by_role("button", name="Search", exact=True).click()
        rows = root.locator(".nbd-trials tbody tr")
        page.until(lambda: rows.count() == 3 and not case.status.activity, waiting_for="three trials")
        [found] = case.searches
        assert [trial.setting["lr"] for trial in found.trials][-1] == 1e-6
        go = root.get_by_role("button", name="Go on with the best")
        page.until(go.is_enabled, waiting_for="the button")
        go.click()
        page.until(lambda: case.status.run == found.best.run, waiting_for="the checkout")
        page.until(lambda: "in the model" in rows.first.inner_text(), waiting_for="the table to say so")
        root.get_by_role("button", name="Forecast", exact=True).click()
        page.until(lambda: root.locator(".nbd-next small").count() >= 2, waiting_for="the forecast")
    assert page.errors == []
    case.close()
