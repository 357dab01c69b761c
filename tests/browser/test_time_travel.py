"""Going back in a real JupyterLab: the slider, branches, snapshots and verdicts, as a person meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.dashboard_page import SETUP, DashboardPage
from tests.harness.kernel_client import KernelClient
from tests.harness.notebook_page import Notebooks

SLIDER = "Rewind to step"


# --- with the real engine


def test_back_by_the_slider_another_rate_and_a_branch_with_its_verdict(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SETUP + "debugger = make()\ndisplay(debugger)\ndebugger.start(epochs=400)")
    notebook.run_cell(0)
    board = DashboardPage(notebook)
    board.wait_for_curve(points=45)
    with notebook.kernel() as kernel:
        board.press("Pause")
        notebook.poll(lambda: kernel.evaluate("debugger.state") == "paused", waiting_for="the pause")
        step = drag_back(board, kernel)
        branch = rerun_from_here(board, kernel, step)
        it_is_drawn_as_leaving_there(board, branch, step)
        the_verdict_is_shown(board, kernel, branch)


def drag_back(board: DashboardPage, kernel: KernelClient) -> int:
    last = kernel.evaluate("debugger.status.step")
    board.hold(SLIDER, 0.42)
    step = int(board.control(SLIDER).input_value())
    assert 0 < step < 0.6 * last
    assert board.root.locator(".nbd-bubble").inner_text().startswith(f"step {step:,} · ")
    assert board.root.locator("[data-panel=loss] .nbd-cursor").is_visible()
    assert kernel.evaluate("debugger.status.step") == last, "dragging alone asks for nothing"
    board.release()
    board.notebook.poll(lambda: kernel.evaluate("debugger.status.step") == step, waiting_for="the rewind")
    assert kernel.evaluate("debugger.state") == "paused"
    expect(board.root.locator(".nbd-notice")).to_contain_text(f"rewound to step {step:,} of {last:,}")
    expect(board.control("Rerun from")).to_have_value("here")
    board.notebook.poll(lambda: step in at(board), waiting_for="the line where the model is")
    return step


def at(board: DashboardPage) -> list[float]:
    """The steps with a vertical line over the loss chart."""
    return [shape["x0"] for shape in board.shapes("loss") if shape["x0"] == shape["x1"]]


def rerun_from_here(board: DashboardPage, kernel: KernelClient, step: int) -> str:
    board.drag("Learning rate", 0.9)
    asked = float(f"{10 ** (float(board.control('Learning rate').input_value()) / 100 - 7):.3g}")
    board.notebook.poll(
        lambda: abs(kernel.evaluate("debugger._view(100).knobs.groups[0].asked") / asked - 1) < 0.02,
        waiting_for="the rate",
    )
    board.notebook.page.wait_for_timeout(500)
    expect(board.control("Rerun from")).to_have_value("here")
    board.control("Rerun epochs").fill("2")
    board.press("Rerun")
    board.notebook.poll(lambda: kernel.evaluate("debugger.state") == "idle", waiting_for="the rerun")
    run = kernel.evaluate("debugger.status.run")
    assert kernel.evaluate(f"[debugger.runs[{run!r}].parent, debugger.runs[{run!r}].step]") == ["main", step]
    return str(run)


def it_is_drawn_as_leaving_there(board: DashboardPage, branch: str, step: int) -> None:
    board.wait_for_curve(f"{branch} smooth", points=12)
    drawn = board.traces("loss")
    parent = dict(zip(drawn["main smooth"]["x"], drawn["main smooth"]["y"], strict=True))
    smooth = drawn[f"{branch} smooth"]
    assert [smooth["x"][0], smooth["y"][0]] == [step, parent[step]]
    assert drawn[f"{branch} train"]["x"][0] == step + 1
    assert drawn["forks"]["x"] == [step]
    assert step in at(board), "the change of the rate is marked"
    expect(board.row(branch)).to_contain_text(f"main @ {step:,}")


def the_verdict_is_shown(board: DashboardPage, kernel: KernelClient, branch: str) -> None:
    board.open_tab("Runs")
    assert not board.root.locator(".nbd-judge").is_visible()
    board.control("Other seeds for a comparison").fill("3")
    board.row(branch).get_by_role("button", name="Compare").click()
    made = "[c.sentence for c in debugger._journal.comparisons]"
    [sentence] = board.notebook.poll(lambda: kernel.evaluate(made), timeout_s=120, waiting_for="the comparison")
    expect(board.root.locator(".nbd-sentence")).to_have_text(sentence, timeout=20_000)
    board.notebook.poll(lambda: len(board.traces("verdict").get("difference", {}).get("x", [])) > 1)
    names = {name.rsplit(" ", 1)[0] for name in board.traces("loss") if name.endswith(" smooth")}
    assert names == {"main", branch}, "reruns under other seeds are not drawn"
    expect(board.root.locator(".nbd-tree")).to_contain_text("under other seeds")


def test_the_journal_in_a_second_kernel_without_torch_shows_the_same(notebooks: Notebooks, tmp_path: Path) -> None:
    written = (
        f"import os\nos.environ['NBDEBUG_JOURNAL'] = {str(tmp_path)!r}\ndebugger = make()\ndebugger.run(steps=30)\n"
    )
    first = notebooks.open(SETUP + written + "debugger.rewind(12, lr=0.2)\ndebugger.run(steps=9)")
    first.run_cell(0)
    first.wait_for_idle()
    curve = "[a.tolist() for a in {}.of({!r})['loss/train']]"
    with first.kernel() as kernel:
        recorded = {name: kernel.evaluate(curve.format("debugger.history", name)) for name in ("main", "lr 0.2")}
    without = "import sys\nsys.modules['torch'] = None\nfrom nbdebug import Journal\n"
    second = notebooks.open(without + f"journal = Journal.open({str(tmp_path)!r})\ndisplay(journal)")
    second.run_cell(0)
    board = DashboardPage(second)
    board.wait_for_curve("lr 0.2 train", points=9)
    with second.kernel() as kernel:
        for name, (steps, values) in recorded.items():
            assert [board.traces("loss")[f"{name} train"][axis] for axis in "xy"] == [steps, values]
            assert kernel.evaluate(curve.format("journal.history", name)) == [steps, values]
            expect(board.row(name)).to_be_visible()
        assert kernel.evaluate("sys.modules['torch']") is None
    expect(board.row("lr 0.2")).to_contain_text("main @ 12")


def test_a_slider_dragged_while_training_runs_pauses_and_goes_back(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SETUP + "debugger = make()\ndisplay(debugger)\ndebugger.start(epochs=4000)")
    notebook.run_cell(0)
    board = DashboardPage(notebook)
    board.wait_for_curve(points=60)
    with notebook.kernel() as kernel:
        board.hold(SLIDER, 0.3)
        step = int(board.control(SLIDER).input_value())
        before = kernel.evaluate("debugger.status.step")
        notebook.poll(lambda: kernel.evaluate("debugger.status.step") > before + 20, waiting_for="training to go on")
        assert int(board.control(SLIDER).input_value()) == step, "the kernel moved a slider in use"
        board.release()
        notebook.poll(lambda: kernel.evaluate("debugger.state") == "paused", waiting_for="the rewind")
        assert kernel.evaluate("debugger.status.step") == step
        board.press("Stop")


def test_a_rewind_and_a_comparison_are_cancelled_from_the_bar(notebooks: Notebooks) -> None:
    # One snapshot at the start and steps of 0.1 s: a rewind to step 55 of 60 takes seconds.
    notebook = notebooks.open(
        SETUP + "debugger = make(delay_s=0.001)\ndisplay(debugger)\ndebugger.run(steps=60)\n"
        "branch = debugger.rerun(steps=40, start='start', lr=0.01)\ndebugger.checkout('main')\n"
        "for snapshot in debugger.snapshots:\n    if snapshot.run == 'main' and 0 < snapshot.step < 60:\n"
        "        debugger.drop_snapshot(snapshot)\n"
        "forward = debugger._model.forward\n"
        "debugger._model.forward = lambda x: (time.sleep(0.1), forward(x))[1]\nimport time"
    )
    notebook.run_cell(0)
    board = DashboardPage(notebook)
    board.wait_for_curve(points=40)
    strip = board.root.locator(".nbd-activity")
    with notebook.kernel() as kernel:
        board.drag(SLIDER, 0.9)
        expect(strip).to_contain_text("rewinding to step 5")
        expect(board.button("Step")).to_be_disabled()
        strip.get_by_role("button", name="Cancel").click()
        notebook.poll(lambda: kernel.evaluate("debugger.state") in ("idle", "paused"), waiting_for="the end of it")
        assert kernel.evaluate("debugger.status.step") == 60, "called off, the model is where it was"
        expect(strip).to_be_hidden()
        board.row("lr 0.01").get_by_role("button", name="Compare").click()
        expect(strip).to_contain_text("comparing")
        strip.get_by_role("button", name="Cancel").click()
        expect(strip).to_be_hidden(timeout=20_000)
        assert kernel.evaluate("debugger._journal.comparisons") == []
        expect(board.button("Step")).to_be_enabled()


# --- with a hand-made view, to see what each control asks for

FAKE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from dataclasses import replace
from nbdebug.dashboard import Dashboard
from nbdebug.records.status import KnobStates, Replay, State
from tests.dashboard import views

class Session:
    def __init__(self):
        self.view, self.commands = views.forest(), []
        self.dashboard = Dashboard(lambda most, focus: self.view, self.commands.append)
    def show(self, **changes):
        status = {{name: changes.pop(name) for name in list(changes) if hasattr(self.view.status, name)}}
        base = views.forest()
        self.view = replace(base, status=replace(base.status, **status), **changes)
    def asked(self):
        told = [repr(command) for command in self.commands]
        self.commands.clear()
        return told
    def _repr_mimebundle_(self, **options):
        return self.dashboard.mimebundle(**options)

session = Session()
session
"""


class Desk:
    """A dashboard over a hand-made view."""

    def __init__(self, board: DashboardPage, kernel: KernelClient) -> None:
        self.board = board
        self.kernel = kernel

    def show(self, changes: str = "") -> None:
        """Another view; what differs from the usual one, as keyword arguments."""
        self.kernel.evaluate(f"session.show({changes})")

    def asked(self, begins: str) -> str:
        """Wait for the one command that begins so; nothing else must have been asked for."""
        told: list[str] = self.board.notebook.poll(lambda: self.kernel.evaluate("session.asked()"), timeout_s=10)
        assert len(told) == 1 and told[0].startswith(begins), told
        return told[0]

    def nothing_asked(self) -> None:
        self.board.notebook.page.wait_for_timeout(400)
        assert self.kernel.evaluate("session.asked()") == []


@pytest.fixture
def desk(notebooks: Notebooks) -> Iterator[Desk]:
    notebook = notebooks.open(FAKE)
    notebook.run_cell(0)
    board = DashboardPage(notebook)
    board.wait_for_curve()
    board.open_tab("Runs")
    with notebook.kernel() as kernel:
        yield Desk(board, kernel)


def test_the_slider_by_keyboard(desk: Desk) -> None:
    slider, bubble = desk.board.control(SLIDER), desk.board.root.locator(".nbd-bubble")
    slider.focus()
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    assert bubble.inner_text() == "step 398 · 48 steps to replay · about 0.4 s · Enter goes there"
    assert slider.get_attribute("aria-valuetext") == "step 398 · 48 steps to replay · about 0.4 s"
    desk.nothing_asked()
    slider.press("Escape")
    expect(slider).to_have_value("400")
    expect(bubble).to_be_hidden()
    slider.press("Shift+ArrowLeft")
    assert bubble.inner_text() == "step 350 · a snapshot · about 0.1 s · Enter goes there"
    slider.press("Enter")
    assert "Rewind(step=350" in desk.asked("Rewind(")
    desk.show("step=350, last_step=400")
    expect(desk.board.root.locator(".nbd-notice")).to_contain_text("rewound to step 350 of 400")


def test_a_drag_is_called_off_by_escape(desk: Desk) -> None:
    desk.board.hold(SLIDER, 0.3)
    expect(desk.board.root.locator(".nbd-bubble")).to_contain_text("to replay")
    desk.board.notebook.page.keyboard.press("Escape")
    desk.board.notebook.page.mouse.move(400, 300)
    desk.board.release()
    desk.nothing_asked()
    expect(desk.board.control(SLIDER)).to_have_value("400")
    expect(desk.board.root.locator(".nbd-bubble")).to_be_hidden()


def test_a_rewind_under_way_shows_its_progress_and_can_be_cancelled(desk: Desk) -> None:
    desk.show("state=State.REWINDING, step=100, last_step=400, replay=Replay('main', 160, 18, 60, 3.0)")
    strip = desk.board.root.locator(".nbd-activity")
    expect(strip).to_contain_text("rewinding to step 160 of main · 18 of 60 steps replayed · 0:03 left")
    expect(desk.board.control(SLIDER)).to_have_value("160")
    for control in (desk.board.button("Resume"), desk.board.control(SLIDER), desk.board.control("Learning rate")):
        expect(control).to_be_disabled()
    strip.get_by_role("button", name="Cancel").click()
    desk.asked("Pause(")
    desk.show("state=State.RUNNING, activity='comparing lr 0.1 with main: rerun 3 of 12, 21 s left'")
    expect(strip).to_contain_text("rerun 3 of 12")
    expect(desk.board.row("calmer").get_by_role("button", name="Compare")).to_be_disabled()
    strip.get_by_role("button", name="Cancel").click()
    desk.asked("Stop(")
    desk.show("rewindable=replace(session.view.rewindable, blocked='not exact: the model was changed by hand')")
    expect(strip).to_be_hidden()
    expect(desk.board.control(SLIDER)).to_be_disabled()
    assert desk.board.root.locator(".nbd-slider").get_attribute("title") == "not exact: the model was changed by hand"


def test_what_can_be_done_with_a_run(desk: Desk) -> None:
    board, row = desk.board, desk.board.row("calmer")
    row.get_by_role("button", name="Rename calmer").click()
    box = row.get_by_role("textbox", name="Rename calmer")
    box.fill("<b>slow</b>")
    box.press("Escape")
    desk.nothing_asked()
    row.get_by_role("button", name="Rename calmer").click()
    box.fill("<b>slow</b>")
    box.press("Enter")
    assert desk.asked("EditRun(") == "EditRun(run='lr 0.02', title='<b>slow</b>', note=None, pinned=None)"
    expect(box).to_be_hidden()
    row.get_by_role("button", name="Note on calmer").click()
    row.get_by_role("textbox", name="Note on calmer").fill("try 0.01")
    row.get_by_role("textbox", name="Note on calmer").press("Enter")
    assert "note='try 0.01'" in desk.asked("EditRun(")
    row.get_by_role("button", name="Unpin calmer").click()
    assert "pinned=False" in desk.asked("EditRun(")
    row.get_by_role("button", name="Check out").click()
    assert "run='lr 0.02'" in desk.asked("Checkout(")
    expect(row.get_by_role("button", name="Delete calmer")).to_be_disabled()
    board.control("Other seeds for a comparison").fill("3")
    expect(row.get_by_role("button", name="Compare")).to_have_text("Compare about 10 s")
    row.get_by_role("button", name="Compare").click()
    assert desk.asked("Compare(") == "Compare(run='lr 0.02', seeds=3)"


def test_a_run_is_deleted_only_after_a_yes(desk: Desk) -> None:
    row = desk.board.row("lr 0.5")
    row.get_by_role("button", name="Delete lr 0.5").click()
    row.get_by_role("button", name="no", exact=True).click()
    desk.nothing_asked()
    row.get_by_role("button", name="Delete lr 0.5").click()
    row.get_by_role("button", name="yes", exact=True).click()
    assert desk.asked("DeleteRun(") == "DeleteRun(run='lr 0.5')"


def test_runs_are_switched_off_and_on_in_the_chart(desk: Desk) -> None:
    board = desk.board
    board.row("lr 0.5").get_by_label("Draw lr 0.5").uncheck()
    board.notebook.poll(lambda: "lr 0.5 train" not in board.traces("loss"), waiting_for="the curve to go")
    assert "main train" in board.traces("loss")
    board.row("lr 0.5").get_by_label("Draw lr 0.5").check()
    board.notebook.poll(lambda: "lr 0.5 train" in board.traces("loss"), waiting_for="the curve to come back")


def test_snapshots_are_taken_checked_out_and_dropped(desk: Desk) -> None:
    root = desk.board.root
    expect(root.locator(".nbd-snapshots .nbd-read")).to_have_text("12 snapshots · 13 MB in memory · 1.2 MB in files")
    root.get_by_label("Snapshot name").fill("before lunch")
    desk.board.press("Take snapshot")
    assert "name='before lunch'" in desk.asked("TakeSnapshot(")
    root.get_by_role("button", name="Snapshots").click()
    root.get_by_role("button", name="Check out epoch 3").click()
    assert "snapshot='epoch 3'" in desk.asked("Checkout(")
    root.get_by_role("button", name="Drop epoch 3").click()
    root.locator(".nbd-shots").get_by_role("button", name="yes", exact=True).locator("visible=true").click()
    assert desk.asked("DropSnapshot(") == "DropSnapshot(name='epoch 3')"


def test_input_that_can_not_be_used_is_marked_and_asks_for_nothing(desk: Desk) -> None:
    rate, epochs, rerun = (desk.board.control(label) for label in ("Type a rate", "Rerun epochs", "Rerun"))
    for wrong in ("1.5", "0", ""):
        epochs.fill(wrong)
        expect(epochs).to_have_attribute("aria-invalid", "true")
        expect(rerun).to_be_disabled()
    epochs.fill("2")
    expect(epochs).to_have_attribute("aria-invalid", "false")
    expect(rerun).to_be_enabled()
    for wrong in ("1e7", "-1", "fast"):
        rate.fill(wrong)
        rate.press("Enter")
        expect(rate).to_have_attribute("aria-invalid", "true")
        expect(desk.board.root.get_by_text("a number from 0 to 1e6")).to_be_visible()
        epochs.focus()
        expect(rate).to_have_value("3.0e-3")
        expect(rate).not_to_have_attribute("aria-invalid", "true")
    desk.nothing_asked()


def test_the_bar_is_as_high_while_it_says_something(desk: Desk) -> None:
    bar = desk.board.root.get_by_label("Run", exact=True)
    quiet = bar.bounding_box()
    for changes in ("activity='comparing calmer with main: rerun 3 of 12'", "step=120, last_step=400"):
        desk.show(changes)
        expect(bar.locator(".nbd-quiet")).to_be_hidden()
        assert bar.bounding_box() == quiet


@pytest.mark.parametrize("width", [1400, 900, 520])
def test_nothing_sticks_out_and_a_runs_name_stays_in_view(desk: Desk, width: int) -> None:
    root, row = desk.board.root, desk.board.row("clip norm 1")
    root.evaluate("(node, width) => { node.style.width = `${width}px`; }", width)
    table = root.locator(".nbd-runs .nbd-scroll").first
    table.evaluate("node => { node.scrollLeft = node.scrollWidth; }")
    name = row.locator("th").bounding_box()
    place = table.bounding_box()
    assert name is not None and place is not None
    assert abs(name["x"] - place["x"]) < 2, "the name scrolled away from its buttons"
    assert row.get_by_role("button", name="Check out").evaluate(REACHABLE)
    assert root.evaluate("node => node.scrollWidth <= node.clientWidth")
    snapshots = root.locator(".nbd-snapshots .nbd-read").bounding_box()
    assert snapshots is not None and snapshots["width"] > 150


REACHABLE = """node => {
    node.scrollIntoView({ block: "center" });
    const { left, top, width, height } = node.getBoundingClientRect();
    return node.contains(document.elementFromPoint(left + width / 2, top + height / 2));
}"""

STORED = """
stored=True, comparison=None, snapshots=(), layers=views.NO_LAYERS, state=State.IDLE,
knobs=KnobStates((), '', session.view.knobs.clip, ())
"""


def test_a_journal_from_disk_shows_everything_and_does_nothing(desk: Desk) -> None:
    desk.show(STORED.replace("\n", " "))
    root = desk.board.root
    expect(root.locator(".nbd-state")).to_have_text("from disk")
    for name in ("Run", "Resume", "Step", "Stop", "Compare", "Check out", "Take snapshot"):
        buttons = root.get_by_role("button", name=re.compile(rf"^(\W )?{name}\b"))
        expect(buttons.locator("visible=true")).to_have_count(0)
    for label in ("Learning rate", "Dropout", "Rerun epochs"):
        expect(desk.board.control(label)).to_be_disabled()
    expect(desk.board.control(SLIDER)).to_be_hidden()
    expect(root.get_by_text("in the model").locator("visible=true")).to_have_count(0)
    assert root.locator(".nbd-judge").is_hidden()
    assert desk.board.traces("loss")["main train"]["x"][-1] == 400


def test_the_verdict_draws_what_was_compared(desk: Desk) -> None:
    desk.board.notebook.poll(lambda: "difference" in desk.board.traces("verdict"), waiting_for="the verdict's chart")
    drawn: dict[str, Any] = desk.board.traces("verdict")
    row = "session.view.comparison.rows[0]"
    for name in ("parent", "run", "difference"):
        assert drawn[name]["y"] == desk.kernel.evaluate(f"{row}.{name}_curve.values.tolist()")
    assert [(box["y0"], box["y1"]) for box in desk.board.shapes("verdict") if box["type"] == "rect"] == [
        (-0.009, 0.009), (-0.052, -0.038),
    ]  # fmt: skip


NEVER_DRAWN = """
from nbdebug.dashboard import Dashboard

class Silent:
    def __init__(self):
        self.dashboard = Dashboard(lambda most, focus: 1 / 0, print)
        self.dashboard.close()
    def _repr_mimebundle_(self, **options):
        return self.dashboard.mimebundle(**options)

Silent()
"""


def test_a_debugger_closed_before_its_first_picture_says_so(notebooks: Notebooks) -> None:
    notebook = notebooks.open(NEVER_DRAWN)
    notebook.run_cell(0)
    expect(DashboardPage(notebook).root.get_by_text("debugger closed").first).to_be_visible()
