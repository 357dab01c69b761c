"""Breakpoints typed and clicked, stops, origins of bad values and the batch at hand, as a person meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from nbdebug.records.commands import AddBreakpoint, EditBreakpoint, RemoveBreakpoint, Resume, Skip, Step
from nbdebug.records.findings import Cause, Finding, Severity
from tests.browser.dashboard_page import SETUP, DashboardPage
from tests.browser.scenes import Scene, closing
from tests.dashboard import views
from tests.harness.notebook_page import Notebooks

REFUSAL = "there is no signal los\n    los > 3\n    ^\nDid you mean loss?"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def scene(browser: Browser) -> Iterator[Callable[..., Scene]]:
    """Opens pages."""
    opened: list[Scene] = []

    def scene(**options: Any) -> Scene:
        opened.append(Scene(browser, **options))
        opened[-1].open()
        return opened[-1]

    with closing(opened):
        yield scene


def test_a_condition_is_typed_refused_mended_and_taken(scene: Callable[..., Scene]) -> None:
    page = scene()
    field = page.page.root.get_by_label("Break when", exact=True)
    expect(field).to_be_hidden()
    page.get("button", "Breakpoints").press("Enter")
    field.fill(" los > 3")
    field.press("Enter")
    assert page.asked() == AddBreakpoint("los > 3")
    page.answer(AddBreakpoint("los > 3"), REFUSAL, ok=False)
    refusal = page.page.root.locator(".nbd-refusal")
    assert refusal.inner_text() == REFUSAL
    assert "mono" in refusal.evaluate("node => getComputedStyle(node).fontFamily")
    expect(field).to_have_value(" los > 3")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("loss > 3")
    field.press("Enter")
    assert page.asked() == AddBreakpoint("loss > 3")
    page.show(breakpoints=(views.breakpoint_on("loss > 3"),))
    page.answer(AddBreakpoint("loss > 3"), "breakpoint 1 added", ok=True)
    expect(field).to_have_value("")
    expect(refusal).to_be_hidden()


def test_the_list_is_used_by_keyboard_and_the_one_that_was_hit_is_lit(scene: Callable[..., Scene]) -> None:
    page = scene()
    both = (views.breakpoint_on(hits=3), views.breakpoint_on(EVIL, 7, note="always true", before_update=False))
    page.show(breakpoints=both, stop=views.stop(breakpoint=1))
    rows = page.page.root.locator(".nbd-break-list li")
    assert [row.inner_text().split("\n") for row in rows.all()] == [
        ["loss > 2.5", "before the update · ×3"], [EVIL, "after the step", "always true"],
    ]  # fmt: skip
    expect(rows.first).to_have_attribute("aria-current", "true")
    box = page.get("checkbox", "loss > 2.5, before the update")
    box.press("Space")
    assert page.asked() == EditBreakpoint(1, False)
    expect(box).not_to_be_checked()
    page.get("button", f"Remove {EVIL}").press("Enter")
    assert page.asked() == RemoveBreakpoint(7)
    page.show(breakpoints=both[:1])
    expect(rows).to_have_count(1)


def test_a_stop_is_said_in_the_bar_and_can_be_left(scene: Callable[..., Scene]) -> None:
    page = scene(width=700)
    page.show(stop=views.stop(why="grad_norm > 5 * median(grad_norm, 100) " * 4, step=401))
    said = page.page.root.locator(".nbd-stop-text")
    expect(said).to_contain_text("stopped at step 401, before the update: grad_norm")
    box = said.bounding_box()
    assert box is not None and box["height"] < 24
    assert page.page.root.evaluate("node => node.scrollWidth <= node.clientWidth")
    for name, command in [("Skip the batch", Skip()), ("Step on from the stop", Step()),
                          ("Resume from the stop", Resume())]:  # fmt: skip
        page.get("button", name).click()
        assert page.asked() == command
    page.show(stop=None)
    expect(said).to_be_hidden()


def test_where_a_bad_value_came_from_is_drawn_and_nothing_of_it_is_markup(scene: Callable[..., Scene]) -> None:
    page = scene()
    finding = Finding(Cause.NUMERICAL_INSTABILITY, Severity.CRITICAL, "main", 400, "NaN made by sqrt", "why")
    odd = replace(views.origin().line, code=EVIL, function=EVIL, file=f"/a/{EVIL}.py")
    hostile = views.origin(line=odd, operation=EVIL, module=EVIL, path=(EVIL,))
    page.show(findings=(replace(finding, origin=hostile), replace(finding, title="Another", origin=views.origin())))
    assert page.page.root.locator("img").count() == 0
    card = page.page.root.locator(".nbd-origin").nth(1)
    assert card.locator(".nbd-trail li").all_inner_texts() == ["model", "blocks", "blocks.3", "act"]
    expect(card.locator(".nbd-trail [aria-current]")).to_have_text("act")
    expect(card.locator(".nbd-operation")).to_have_text("sqrt")
    assert card.locator(".nbd-code pre").all_inner_texts()[1] == "return grad / (2 * root)"
    expect(card.locator(".nbd-code small").nth(1)).to_have_text("in your backward · notebook cell, line 12 · backward")
    expect(card.locator("tr.nbd-lit")).to_contain_text("3 NaN · 1 inf · 120,334 zeros")
    expect(card.locator(".nbd-advice")).to_contain_text("eps = 1e-6")
    evil = page.page.root.locator(".nbd-origin").nth(0)
    expect(evil.locator(".nbd-operation")).to_have_text(EVIL)


def test_the_batch_is_drawn_as_thumbnails(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.get("tab", "Batch").click()
    page.page.pump(0.3)
    expect(page.page.root.locator(".nbd-batch")).to_have_text(
        "Stop at a breakpoint, or check everything, to see a batch as the model sees it."
    )
    page.show(stop=views.stop())
    thumbs = page.page.root.locator(".nbd-thumbs li")
    expect(thumbs).to_have_count(6)
    assert thumbs.first.inner_text().split("\n") == ["#0 ship", "loss 6"]
    look = "node => [...node.getContext('2d').getImageData(3, 3, 1, 1).data]"
    assert thumbs.first.locator("canvas").evaluate(look) == [255, 0, 0, 255]
    assert thumbs.last.locator("canvas").evaluate(look) == [0, 0, 128, 255]


def test_other_batches_are_tables(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.get("tab", "Batch").click()
    rows = views.np.array([[1.5, float("nan")]] * 40)
    page.show(stop=views.stop(batch=views.batch(40, kind="table", pictures=None, rows=rows, columns=("age", EVIL))))
    table = page.page.root.locator(".nbd-batch-table")
    assert table.locator("thead th").all_inner_texts() == ["sample", "loss", "target", "age", EVIL]
    expect(table.locator("tbody tr").first.locator("td.nbd-lit")).to_have_text("NaN")
    scroll = page.page.root.locator(".nbd-batch .nbd-scroll")
    scroll.evaluate("node => { node.scrollTop = 200; }")
    head, frame = table.locator("thead th").first.bounding_box(), scroll.bounding_box()
    assert head is not None and frame is not None and abs(head["y"] - frame["y"]) < 2
    page.show(stop=views.stop(batch=views.batch(2, kind="sequence", pictures=None, rows=rows[:2] * 2)))
    expect(table.locator("tbody tr").first.locator(".nbd-ids")).to_have_text("3")


def aim(page: Scene, panel: str, share: float, *, shift: bool = False) -> str:
    """Turn the toggle on, go to a height of the chart and click there; what the line that follows the mouse says."""
    toggle = page.page.panel(panel).locator("button.nbd-tool")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "true")
    page.page.settle()
    box = page.page.panel(panel).locator(".nbd-aim").bounding_box()
    assert box is not None
    keyboard, mouse = page.page.page.keyboard, page.page.page.mouse
    if shift:
        keyboard.down("Shift")
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * share)
    said = page.page.panel(panel).locator(".nbd-aimed").inner_text()
    mouse.down()
    mouse.up()
    if shift:
        keyboard.up("Shift")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    assert page.asked() == AddBreakpoint(said)
    return said


def ends(page: Scene, panel: str) -> tuple[float, float]:
    look = "plot => [...plot._fullLayout.yaxis.range]"
    low, high = page.page.panel(panel).locator(".nbd-plot").evaluate(look)
    return float(low), float(high)


@pytest.mark.parametrize("log", [True, False])
def test_a_click_on_the_loss_chart_breaks_there(scene: Callable[..., Scene], log: bool) -> None:
    page = scene()
    page.page.root.get_by_label("log", exact=True).set_checked(log)
    page.page.pump(0.5)
    low, high = ends(page, "loss")
    for share, sign, shift in [(0.2, ">", False), (0.2, "<", True), (0.9 if log else 0.97, "<", False)]:
        subject, found, value = aim(page, "loss", share, shift=shift).split()
        at = high - share * (high - low)
        assert (subject, found) == ("loss", sign)
        assert float(value) == pytest.approx(10**at if log else at, rel=0.03, abs=0 if log else 0.02)
        assert float(value) == float(f"{float(value):.3g}")


def test_breakpoints_on_the_loss_are_lines_at_their_height_and_move_with_the_axis(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.show(breakpoints=(views.breakpoint_on("loss > 1.5"), views.breakpoint_on("loss < 1e9", 2)))
    lines = page.page.panel("loss").locator(".nbd-break-lines .nbd-break-line")
    expect(lines).to_have_text(["> 1.5"])
    tops = []
    for log in (True, False):
        page.page.root.get_by_label("log", exact=True).set_checked(log)
        page.page.pump(0.5)
        (low, high), line = ends(page, "loss"), lines.bounding_box()
        plot = page.page.panel("loss").locator(".nsewdrag").first.bounding_box()
        assert line is not None and plot is not None
        share = (line["y"] - plot["y"]) / plot["height"]
        value = high - share * (high - low)
        assert (10**value if log else value) == pytest.approx(1.5, rel=0.03)
        tops.append(line["y"])
    assert abs(tops[0] - tops[1]) > 5


def test_escape_puts_the_toggle_off_and_a_refusal_is_shown(scene: Callable[..., Scene]) -> None:
    page = scene()
    toggle = page.page.panel("loss").locator("button.nbd-tool")
    toggle.click()
    toggle.press("Escape")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    said = aim(page, "loss", 0.2)
    page.answer(AddBreakpoint(said), REFUSAL, ok=False)
    assert page.page.root.locator(".nbd-refusal").inner_text() == REFUSAL


def test_a_click_on_a_chart_of_layers_breaks_on_all_or_on_the_one_picked(scene: Callable[..., Scene]) -> None:
    page = scene()
    assert aim(page, "over_time", 0.02).startswith("max(update_ratio) > ")
    assert aim(page, "over_time", 0.98).startswith("min(update_ratio) < ")
    page.page.root.locator(".nbd-layer-table tbody tr").filter(has_text="layer0").first.click()
    page.page.pump(0.5)
    assert aim(page, "over_time", 0.02).startswith('update_ratio["layer0"] > ')
    assert aim(page, "over_time", 0.02, shift=True).startswith('update_ratio["layer0"] < ')


IN_A_NOTEBOOK = """
debugger = make()
before = [p.detach().clone() for p in debugger._model.parameters()]
display(debugger)
"""
LOOK = """
current = debugger.current
batch, gradient, activation = current.batch[0], current.grad("0"), current.activation("1")
print(tuple(batch.shape), tuple(gradient.shape), tuple(activation.shape), bool(activation.min() == 0), current.step)
"""


def test_a_breakpoint_from_typing_to_going_on_in_a_notebook(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SETUP + IN_A_NOTEBOOK, LOOK)
    notebook.run_cell(0)
    board = DashboardPage(notebook)
    board.show()
    with notebook.kernel() as kernel:
        field = board.control("Break when")
        if not field.is_visible():
            board.root.get_by_role("button", name="Breakpoints").click()
        field.fill("grad_nrom > 0")
        field.press("Enter")
        board.root.get_by_text("Did you mean grad_norm", exact=False).first.wait_for()
        field.fill("step > 12 and grad_norm > 0")
        field.press("Enter")
        notebook.poll(lambda: kernel.evaluate("len(debugger.breakpoints)") == 1, waiting_for="the breakpoint")
        board.press("Run")
        board.root.get_by_text("stopped at step 13, before the update", exact=False).first.wait_for()
        assert kernel.evaluate("debugger.status.step") == 12
        board.open_tab("Batch")
        board.root.get_by_text("batch[0] (32, 10) float32", exact=False).first.wait_for()
        assert notebook.run_cell(1).strip() == "(32, 10) (32, 10) (32, 32) True 13"
        board.control("Type a rate").fill("0.01")
        board.control("Type a rate").press("Enter")
        notebook.poll(
            lambda: kernel.evaluate("debugger._session.knobs.groups[0].in_force") == 0.01, waiting_for="the rate"
        )
        assert kernel.evaluate("debugger.current.stop is not None")
        board.press("Resume from the stop")
        board.root.get_by_text("stopped at step 14, before the update", exact=False).first.wait_for()
        board.root.get_by_role("checkbox", name="grad_norm", exact=False).uncheck()
        board.press("Skip the batch")
        notebook.poll(
            lambda: kernel.evaluate("debugger._session.loop.cursor.batch") == 4, waiting_for="the batch left out"
        )
        board.press("+1 epoch")
        notebook.poll(lambda: kernel.evaluate("debugger.status.epoch") >= 2, waiting_for="the epoch's end")
        steps = kernel.evaluate("debugger.history['loss/train'].steps.tolist()")
        assert steps == list(range(1, len(steps) + 1)) and len(steps) == 19
        assert kernel.evaluate("[debugger.breakpoints[0].hits, debugger.breakpoints[0].enabled]") == [2, False]
