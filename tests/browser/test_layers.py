"""Layers on the dashboard, 5, 60 and 400 of them: readable, picked in one place and lit in all, grouped, sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, expect

from nbdebug.records.cost import Cost
from nbdebug.records.layers import GradientState, Unseen
from nbdebug.records.view import Focus, LayersView, View
from tests.browser.bare_page import BarePage
from tests.dashboard import views

WHY = "was not called as a module in the forward"
COST = Cost(0.05, 0.031, 0.0117, 1e-5, 0.0042, 12, 400, (("activations", 2.1e-3), ("units", 7e-4)), 0.004, 2_400_000)
OPEN = Callable[..., BarePage]


def numbers(size: int) -> Any:
    """Some dead layers, one frozen, one that is not called, one with a NaN."""
    dead, state, bias = np.linspace(0, 0.8, size), np.zeros(size), np.full(size, 0.04)
    state[3], bias[2] = GradientState.FROZEN, np.nan
    mean = np.where(np.arange(size) == 1, views.HOLE, 0.1)
    return views.table(
        size, UNITS_DEAD=dead, UNITS_SILENT=mean, GRADIENT_STATE=state, BIAS_MAX=bias, ACTIVATION_MEAN=mean,
        ACTIVATION_STD=mean,
    )  # fmt: skip


def source(size: int) -> Callable[[Focus], View]:
    """What a debugger of so many layers tells; the same objects again while the focus is the same."""
    base = views.layers(size, step=1200, latest=numbers(size))

    @cache
    def pull(focus: Focus) -> View:
        shown = LayersView(
            base.latest, 1200, base.histograms, tuple(views.tracks(size, signal=each) for each in focus.tracks),
            views.story(focus.layer, focus.histogram) if focus.layer else None,
            (Unseen(views.names(size)[1], "activations", WHY),),
        )  # fmt: skip
        return views.forest(layers=shown, cost=COST)

    return pull


@pytest.fixture
def show(browser: Browser) -> Iterator[OPEN]:
    """Opens pages, and sees to it that none had an error."""
    pages: list[BarePage] = []

    def show(size: int, **options: Any) -> BarePage:
        page = BarePage(browser, source(size), **options).__enter__()
        pages.append(page)
        page.pump(0.6)
        return page

    yield show
    for page in pages:
        page.__exit__(None, None, None)
    assert [error for page in pages for error in page.errors] == []


def clicked(page: BarePage, node: Locator) -> None:
    node.click()
    page.pump(0.5)


def row(page: BarePage, layer: str) -> Locator:
    return page.root.locator(".nbd-layer-table tbody tr:visible").filter(
        has=page.page.locator(f'th span[title^="{layer}"]')
    )


def overlaps(boxes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other by more than a pixel."""
    return [
        (a["text"], b["text"])
        for a, b in combinations(boxes, 2)
        if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 1
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
    ]


@pytest.mark.parametrize("width", [1400, 1100, 800, 500])
@pytest.mark.parametrize("size", [5, 60, 400])
def test_labels_are_readable(show: OPEN, size: int, width: int) -> None:
    page = show(size, width=width)
    for panel in ("gradient_flow", "distributions", "over_time"):
        texts = f"[data-panel={panel}] :is(.xtick, .ytick, .annotation) text"
        boxes = page.boxes(texts)
        frame = page.panel(panel).bounding_box()
        assert frame is not None and len(boxes) > 5
        assert overlaps(boxes) == []
        assert all(frame["x"] <= box["left"] and box["right"] <= frame["x"] + frame["width"] for box in boxes)
    assert page.root.evaluate("node => node.scrollWidth <= node.clientWidth")


def lit(page: BarePage, panel: str) -> list[dict[str, Any]]:
    """The outlines in a chart."""
    look = "plot => (plot.layout.shapes ?? []).filter(({ type, line }) => type === 'rect' && line.width > 1)"
    found: list[dict[str, Any]] = page.panel(panel).locator(".nbd-plot").evaluate(look)
    return found


def widest(page: BarePage) -> str:
    """The line over time that is drawn widest."""
    look = "plot => plot.data.filter(({ line }) => line?.width > 2.3).map(({ meta }) => meta).join()"
    return str(page.panel("over_time").locator(".nbd-plot").evaluate(look))


def assert_picked(page: BarePage, layer: str, place: int, size: int) -> None:
    page.until(lambda: widest(page) == layer, waiting_for="the line to be lit")
    assert [(box["x0"], box["x1"]) for box in lit(page, "gradient_flow")] == [(place - 0.5, place + 0.5)]
    assert [round(box["y0"] + 0.08) for box in lit(page, "distributions")] == [size - 1 - place]
    expect(row(page, layer)).to_have_attribute("aria-selected", "true")
    page.until(lambda: page.panel("story").locator("h3").inner_text() == layer, waiting_for="its story")
    assert page.pulls[-1].layer == layer


def at(page: BarePage, panel: str, x: float, y: float) -> None:
    """Click at a place given as shares of the plot within its axes."""
    page.settle()
    box = page.panel(panel).locator(".nsewdrag").first.bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    page.pump(0.3)
    page.page.mouse.down()
    page.page.mouse.up()
    page.pump(0.3)


def test_a_layer_picked_in_one_place_is_lit_in_all(show: OPEN) -> None:
    page = show(5)
    clicked(page, row(page, "layer2"))
    assert_picked(page, "layer2", 2, 5)
    at(page, "gradient_flow", 0.9, 0.5)
    assert_picked(page, "layer4", 4, 5)
    at(page, "distributions", 0.5, 0.1)
    assert_picked(page, "layer0", 0, 5)
    page.page.keyboard.press("Escape")
    page.pump(0.3)
    page.until(lambda: not lit(page, "gradient_flow"), waiting_for="nothing to be picked any more")


def test_a_line_can_be_picked(show: OPEN) -> None:
    page = show(5)
    y = page.panel("over_time").locator(".nbd-plot").evaluate(
        """plot => { const line = plot._fullData.find(({ name }) => name === "layer3");
            return plot._fullLayout.yaxis.d2p(line.y.at(-40)) / plot._fullLayout.yaxis._length; }"""
    )  # fmt: skip
    x = page.panel("over_time").locator(".nbd-plot").evaluate(
        """plot => { const line = plot._fullData.find(({ name }) => name === "layer3");
            return plot._fullLayout.xaxis.d2p(line.x.at(-40)) / plot._fullLayout.xaxis._length; }"""
    )  # fmt: skip
    at(page, "over_time", x, y)
    assert_picked(page, "layer3", 3, 5)


def test_picking_shows_at_once_without_the_kernel(show: OPEN) -> None:
    page = show(5)
    page.dashboard.close()
    page.pump(0.3)
    row(page, "layer1").click()
    page.page.wait_for_timeout(300)  # nothing is carried meanwhile
    assert len(lit(page, "gradient_flow")) == 1 and widest(page) == "layer1"
    page.pump(1.6)
    assert widest(page) == "layer1", "what is picked on a closed dashboard stays so"


def test_the_table_by_keyboard(show: OPEN) -> None:
    page = show(60)
    row(page, "embed").focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.page.keyboard.press(key)
    page.pump(0.3)
    focused = "document.activeElement.querySelector('th')?.innerText"
    assert page.page.evaluate(focused) == "encoder.0.attn.qkv"
    assert page.dashboard._lens.layer == "encoder.0.attn.qkv"
    page.page.keyboard.press("End")
    assert page.page.evaluate(focused) == "head.fc"
    page.page.keyboard.press("Home")
    assert page.page.evaluate(focused) == "embed"


def names(page: BarePage) -> list[str]:
    """The layers in sight, in the order of the table."""
    found: list[str] = page.page.evaluate(
        """() => [...document.querySelectorAll(".nbd-layer-table tbody tr[data-place]:not([hidden])")]
            .sort((a, b) => a.dataset.place - b.dataset.place)
            .map((node) => node.querySelector("th span").title.split("\\n")[0])"""
    )
    return found


def test_the_table_is_filtered_and_sorted(show: OPEN) -> None:
    page = show(400)
    table, order = page.root.locator(".nbd-layer-table"), list(views.names(400))
    assert names(page)[:12] == order[:12]
    assert len(names(page)) < 45, "rows out of sight are not made"
    dead = table.get_by_role("columnheader", name="dead")
    clicked(page, dead.get_by_role("button"))
    expect(dead).to_have_attribute("aria-sort", "descending")
    assert names(page)[0] == order[-1]
    clicked(page, dead.get_by_role("button"))
    expect(dead).to_have_attribute("aria-sort", "ascending")
    assert names(page)[0] == order[0]
    clicked(page, dead.get_by_role("button"))
    assert dead.get_attribute("aria-sort") is None
    page.root.get_by_label("Filter layers").fill("encoder.7.mlp")
    page.pump(0.2)
    assert names(page) == [f"encoder.7.mlp.{part}" for part in ("fc1", "act", "fc2")]
    expect(page.root.locator(".nbd-layers [role=status]")).to_have_text("3 of 400 layers")
    assert table.get_attribute("aria-rowcount") == "5"


def test_every_row_can_be_scrolled_to(show: OPEN) -> None:
    page = show(400)
    page.root.locator(".nbd-layers .nbd-scroll").evaluate("node => { node.scrollTop = node.scrollHeight; }")
    page.pump(0.3)
    assert names(page)[-1] == "head.fc"
    place = row(page, "head.fc").bounding_box()
    frame = page.root.locator(".nbd-layers .nbd-scroll").bounding_box()
    assert place is not None and frame is not None
    assert frame["y"] < place["y"] < frame["y"] + frame["height"]


def test_what_is_off_has_a_sign_and_what_is_not_seen_a_reason(show: OPEN) -> None:
    page = show(5)
    expect(row(page, "layer4").locator(".nbd-off")).to_have_text(["▲ 80 %"])
    expect(row(page, "layer2").locator(".nbd-off")).to_have_text(["! NaN"])
    expect(row(page, "layer3").locator("td").first).to_have_text("frozen")
    expect(row(page, "layer1").locator(".nbd-why")).to_have_text(WHY)


def test_into_a_group_and_back(show: OPEN) -> None:
    page = show(60)
    place = page.root.get_by_role("navigation", name="Place in the model")
    expect(place.locator("[aria-current]")).to_have_text("all layers")
    at(page, "gradient_flow", 2.6 / 12.2, 0.5)
    expect(place.locator("[aria-current]")).to_have_text("encoder.1")
    page.pump(0.5)
    bars = page.panel("gradient_flow").locator(".nbd-plot").evaluate("plot => plot.layout.meta.keys")
    assert bars == [name for name in views.names(60) if name.startswith("encoder.1.")]
    assert names(page) == bars
    page.page.keyboard.press("Escape")
    page.pump(0.5)
    expect(place.locator("[aria-current]")).to_have_text("all layers")
    place.get_by_label("Go into").select_option("encoder.4.")
    page.pump(0.5)
    clicked(page, row(page, "encoder.4.norm2"))
    clicked(page, place.get_by_role("button", name="all layers"))
    page.until(lambda: len(lit(page, "gradient_flow")) == 1, waiting_for="the group of the picked layer to be lit")
    assert lit(page, "gradient_flow")[0]["x0"] == 4.5
    assert widest(page) == "encoder.4.norm2", "a picked layer has a line of its own"
    clicked(page, place.get_by_role("button", name="Let go of encoder.4.norm2"))
    assert page.dashboard._lens.layer == ""


def test_few_layers_have_no_place_to_go_to(show: OPEN) -> None:
    assert show(5).root.get_by_role("navigation", name="Place in the model").count() == 0


def test_kinds_and_quantities_are_chosen(show: OPEN) -> None:
    page = show(5)
    page.root.get_by_label("Distributions of").select_option("weights")
    page.until(lambda: page.pulls[-1].histogram == "weights", waiting_for="the weights")
    page.pump(0.5)
    assert "weights" in page.panel("story").locator(".nbd-read").inner_text()
    expect(page.root.get_by_label("Story of")).to_have_value("weights")
    page.root.get_by_label("Over time").select_option("units_dead")
    page.until(lambda: page.pulls[-1].tracks == ("units_dead",), waiting_for="the dead units")
    page.pump(0.5)
    assert page.panel("over_time").locator(".nbd-plot").evaluate("plot => plot.layout.yaxis.type") == "linear"


def test_the_story_is_a_heat_map_of_what_was_recorded(show: OPEN) -> None:
    page = show(5)
    clicked(page, row(page, "layer2"))
    drawn = page.panel("story").locator(".nbd-plot").evaluate(
        "plot => { const heat = plot._fullData.find(({ type }) => type === 'heatmap');"
        " return [plot.calcdata[0][0].z.length, plot.calcdata[0][0].z[0].length, Array.from(heat.x).length]; }"
    )  # fmt: skip
    assert drawn[1:] == [50, 50] and drawn[0] > 10
    assert page.panel("story").locator(".nbd-plot").evaluate("plot => plot.data.length") == 5


def test_tabs_by_keyboard_and_what_is_hidden_is_not_asked_for(show: OPEN) -> None:
    page = show(5)
    layers, runs = (page.root.get_by_role("tab", name=name) for name in ("Layers", "Runs"))
    expect(layers).to_have_attribute("aria-selected", "true")
    layers.focus()
    page.page.keyboard.press("ArrowRight")
    page.pump(0.5)
    expect(runs).to_be_focused()
    expect(page.root.get_by_role("tabpanel", name="Runs")).to_be_visible()
    expect(page.root.get_by_role("tabpanel", name="Layers")).to_be_hidden()
    assert page.pulls[-1].layer == "" and page.pulls[-1].curves == ()
    page.page.keyboard.press("ArrowLeft")
    page.pump(0.5)
    assert page.pulls[-1].layer == "layer0"


def test_what_watching_costs(show: OPEN) -> None:
    page = show(5)
    pill = page.root.get_by_role("button", name="watching")
    expect(pill).to_have_attribute("aria-expanded", "false")
    clicked(page, pill)
    box = page.root.get_by_role("dialog", name="What watching costs")
    for text in ("3.1 %, 5 % allowed", "one step in 12", "activations", "4,096 values a layer, shares ± 0.78 %"):
        expect(box).to_contain_text(text)
    place, root = box.bounding_box(), page.root.bounding_box()
    assert place is not None and root is not None
    assert place["x"] >= root["x"] and place["x"] + place["width"] <= root["x"] + root["width"]
    page.page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    expect(pill).to_be_focused()


NAMELESS = """() => [...document.querySelectorAll(".nbd :is(button, input, select, [role])")].filter((node) => {
    if (!node.checkVisibility() || ["status", "tabpanel"].includes(node.getAttribute("role"))) return false;
    const named = node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.labels?.length;
    return !(named || node.textContent.trim() || node.title);
}).map((node) => node.outerHTML.slice(0, 160))"""
BROKEN = """() => {
    const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
    const points = [...document.querySelectorAll(".nbd :is([aria-controls], [aria-labelledby])")]
        .flatMap((node) => [node.getAttribute("aria-controls"), node.getAttribute("aria-labelledby")]).filter(Boolean);
    return points.filter((id) => !ids.includes(id));
}"""


@pytest.mark.parametrize("size", [5, 400])
def test_everything_has_a_name(show: OPEN, size: int) -> None:
    page = show(size)
    assert page.page.evaluate(NAMELESS) == []
    assert page.page.evaluate(BROKEN) == []
    for panel in ("gradient_flow", "distributions", "over_time", "story"):
        label = page.panel(panel).locator(".nbd-plot").get_attribute("aria-label")
        assert label and len(label) > 12


def test_a_second_look_has_the_same(show: OPEN) -> None:
    page = show(60)
    clicked(page, row(page, "embed"))
    board = page.dashboard._board
    assert board is not None
    sent: list[Any] = []
    carry = board.send
    board.send = lambda content, buffers=None: (sent.append((content, buffers)), carry(content, buffers))  # type: ignore[method-assign, return-value]
    board._on_message(board, {"type": "ready", "view": "second", "tab": "layers"}, [])
    page.until(lambda: any("second" in content.get("to", ()) for content, _ in sent), waiting_for="the second view")
    whole = next(buffers for content, buffers in sent if "second" in content.get("to", ()))
    assert b'"layer":"embed"' in bytes(whole[0]) and b'"grouped":true' in bytes(whole[0])


def test_names_with_markup_are_shown_literally(browser: Browser) -> None:
    evil = ("<b>bold</b>", "a&amp;b", "<img src=x onerror=globalThis.hurt=1>")
    shown = LayersView(
        views.table(3, layers=evil), 5, ((views.histograms(size=3, layers=evil), 5),),
        (views.tracks(3, layers=evil),), views.story(evil[0]), (Unseen(evil[1], "activations", evil[2]),),
    )  # fmt: skip
    with BarePage(browser, lambda focus: views.view(layers=shown)) as page:
        page.pump(0.6)
        texts = [box["text"] for box in page.boxes("[data-panel=gradient_flow] .xtick text")]
        assert texts[0] == evil[0]
        assert page.page.evaluate("globalThis.hurt") is None
        assert page.root.locator("img").count() == 0
        assert page.errors == []
