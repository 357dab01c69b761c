"""The dashboard in a real JupyterLab: what is drawn is what was recorded, and every control acts on training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbdebug.dashboard.figures import symlog
from tests.browser.dashboard_page import SETUP, DashboardPage
from tests.harness.jupyter_home import JupyterHome
from tests.harness.kernel_client import KernelClient
from tests.harness.notebook_page import PANEL, Notebooks

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


def history(kernel: KernelClient, key: str, run: str | None = None, debugger: str = "debugger") -> tuple[Any, Any]:
    of = f".of({run!r})" if run else ""
    steps, values = kernel.evaluate(f"[a.tolist() for a in {debugger}.history{of}[{key!r}][:2]]")
    return steps, values


def assert_drawn_is_recorded(board: DashboardPage, kernel: KernelClient) -> None:
    """All three charts, number by number, once training stands still."""
    run = kernel.evaluate("debugger.status.run")
    steps, values = history(kernel, "loss/train", run)
    board.notebook.poll(
        lambda: board.traces("loss")[f"{run} train"]["x"] == steps, waiting_for="the last step to be drawn"
    )
    loss = board.traces("loss")
    assert loss[f"{run} train"]["y"] == values
    assert [loss[f"{run} val"]["x"], loss[f"{run} val"]["y"]] == list(history(kernel, "loss/val", run))
    layers = board.traces("gradient_flow")["mean"]["x"]
    for trace, signal in (("mean", "GRADIENT_MEAN"), ("max", "GRADIENT_MAX")):
        table = "debugger._view(9).layers.latest"
        of = f"[float({table}.of(__import__('nbdebug').records.signals.Signal.{signal})[0][{table}.layers.index(n)])"
        latest = kernel.evaluate(f"{of} for n in {layers!r}]")
        board.notebook.poll(
            lambda trace=trace, latest=latest: [float(y) for y in board.traces("gradient_flow")[trace]["y"]] == latest,
            waiting_for=f"the last sample of {signal}",
        )
        recorded = [history(kernel, f"{signal.lower().replace('gradient', 'grad')}/{name}")[1][-1] for name in layers]
        np.testing.assert_allclose(latest, recorded, rtol=1e-6)  # older samples are kept as float32
    found = "next(h for h, _ in debugger._view(9).layers.histograms if h.signal == 'activations')"
    layers, counts, limits = kernel.evaluate(f"(lambda h: [h.layers, h.counts.tolist(), h.limit.tolist()])({found})")
    assert len(layers) == 7
    expected = shares(np.array(counts), np.array(limits))
    board.notebook.poll(
        lambda: np.allclose([board.traces("distributions")[layer]["customdata"] for layer in layers], expected),
        waiting_for="the last sample of activations",
    )


def shares(counts: Any, limits: Any) -> Any:
    """What a ridge shows of recorded counts: by half octaves of its unit, the finest together."""
    cells = symlog.cells(counts, limits, symlog.units(counts, limits))
    return cells / cells.sum(axis=1, keepdims=True)


def wait_for_value(board: DashboardPage, kernel: KernelClient, key: str, close_to: float) -> int:
    """Wait until a step ran with the new value; that step."""

    def look() -> int:
        steps, values = history(kernel, key)
        return next((s for s, v in zip(steps, values, strict=True) if math.isclose(v, close_to, rel_tol=0.02)), 0)

    return board.notebook.poll(look, waiting_for=f"{key} to become {close_to:g}")


def test_the_quickstart_from_run_all_to_reload(notebooks: Notebooks) -> None:
    notebook = notebooks.open_copy(QUICKSTART)
    notebook.run_all()
    notebook.wait_for_idle(timeout_s=240)
    board = DashboardPage(notebook)
    board.show()
    board.wait_for_curve(points=400)
    with notebook.kernel() as kernel:
        assert kernel.evaluate("max(debugger.history['accuracy/val'].values)") > 0.97
        board.press("Run")
        notebook.poll(lambda: kernel.evaluate("debugger.state") == "running", waiting_for="▶ to start training")
        drag_and_set_while_it_trains(board, kernel)
        board.press("Pause")
        notebook.poll(lambda: kernel.evaluate("debugger.state") == "paused", waiting_for="the pause")
        assert_drawn_is_recorded(board, kernel)
        step_once_and_resume(board, kernel)
        reinitialise(board, kernel)
        rerun_two_epochs(board, kernel)
        assert_drawn_is_recorded(board, kernel)
        the_charts_follow_the_theme(board)
        everything_is_there_after_a_reload(board, kernel)


def drag_and_set_while_it_trains(board: DashboardPage, kernel: KernelClient) -> None:
    board.drag("Learning rate", 0.55)
    asked = 10 ** (float(board.control("Learning rate").input_value()) / 100 - 7)
    assert asked < 0.04, "the drag moved the slider from 0.05"
    wait_for_value(board, kernel, "lr", asked)
    board.control("Clipping").select_option("norm")
    board.control("Clip threshold").fill("0.37")
    wait_for_value(board, kernel, "clip_norm", 0.37)
    board.drag("Dropout", 0.6)
    wait_for_value(board, kernel, "dropout", float(board.control("Dropout").input_value()))
    assert kernel.evaluate("debugger.state") == "running"


def step_once_and_resume(board: DashboardPage, kernel: KernelClient) -> None:
    at = kernel.evaluate("debugger.status.step")
    board.press("Step")
    board.notebook.poll(lambda: kernel.evaluate("debugger.status.step") == at + 1, waiting_for="one step")
    assert kernel.evaluate("debugger.state") == "paused"
    board.press("Resume")
    board.notebook.poll(lambda: kernel.evaluate("debugger.status.step") > at + 5, waiting_for="training to go on")


def reinitialise(board: DashboardPage, kernel: KernelClient) -> None:
    board.press("Pause")
    norm = "float(sum(p.norm() for p in model.parameters()))"
    before = kernel.evaluate(norm)
    board.control("Init").select_option("kaiming_normal")
    board.control("Init seed").fill("3")
    board.press("Re-initialise")
    board.notebook.poll(lambda: kernel.evaluate(norm) != before, waiting_for="other weights")
    assert "init kaiming_normal, seed 3" in kernel.evaluate("debugger.outcomes[-1].text")
    board.root.get_by_text("init kaiming_normal, seed 3").wait_for()


def rerun_two_epochs(board: DashboardPage, kernel: KernelClient) -> None:
    board.control("Rerun epochs").fill("2")
    board.control("Rerun from").select_option("start")
    board.press("Rerun")
    branch = board.notebook.poll(
        lambda: kernel.evaluate("debugger.status.run if debugger.status.run not in ('main', 'lr 0.02') else ''"),
        waiting_for="the branch",
    )
    board.notebook.poll(lambda: kernel.evaluate("debugger.state") == "idle", waiting_for="two epochs to end")
    assert kernel.evaluate("debugger.status.epoch") == 2
    board.wait_for_curve(f"{branch} train", points=90)
    board.wait_for_curve("main train", points=400)


def the_charts_follow_the_theme(board: DashboardPage) -> None:
    plot = board.root.locator("[data-panel=loss] .nbd-plot")
    width = plot.evaluate("plot => plot.clientWidth")
    colour = "plot => plot._fullData.find(trace => trace.name === 'main train').line.color"
    before = plot.evaluate(colour)
    board.notebook.theme("dark")
    board.notebook.poll(lambda: plot.evaluate(colour) != before, waiting_for="the dark colours")
    drawn = "plot => plot.querySelector('.main-svg').clientWidth"
    board.notebook.poll(lambda: plot.evaluate(drawn) == width, waiting_for="the chart to fill its panel again")
    # JupyterLab takes its splash off 200 ms after a theme is in, and fails if it was shown again meanwhile.
    board.notebook.page.wait_for_selector("#jupyterlab-splash", state="detached")
    board.notebook.theme("light")
    board.notebook.poll(lambda: plot.evaluate(colour) == before, waiting_for="the light colours")


def everything_is_there_after_a_reload(board: DashboardPage, kernel: KernelClient) -> None:
    before = {panel: board.traces(panel) for panel in ("loss", "gradient_flow", "distributions", "over_time")}
    board.notebook.reload()
    again = DashboardPage(board.notebook)
    again.show()
    again.wait_for_curve(points=400)
    board.notebook.poll(
        lambda: {panel: again.traces(panel) for panel in before} == before, waiting_for="the charts as they were"
    )
    again.open_tab("Runs")
    assert again.root.get_by_text("● in the model").locator("visible=true").count() == 1
    again.press("+1 epoch")
    board.notebook.poll(lambda: kernel.evaluate("debugger.status.epoch") == 3, waiting_for="the epoch after the reload")


BLOCKING = """
debugger = make()
display(debugger)
debugger.run(epochs=100_000)
"""


@pytest.mark.parametrize("version", ["7.1.0", "7.4.0"])
def test_a_blocking_cell_paints_and_its_controls_act(notebooks: Notebooks, home: JupyterHome, version: str) -> None:
    notebook = notebooks.open(
        SETUP + BLOCKING, "import ipykernel; ipykernel.__version__", kernel=home.add_kernel(version)
    )
    # ipykernel 7.1 may lose the first request for its abilities (its #1554); a person would not have run the cell yet
    knows = f"() => {PANEL}.sessionContext.session.kernel.supportsSubshells"
    notebook.poll(lambda: notebook.page.evaluate(knows), waiting_for="the page to know that the kernel has subshells")
    notebook.start_cell(0)
    board = DashboardPage(notebook)
    board.wait_for_curve(points=20)
    assert notebook.running()
    with notebook.kernel() as kernel:
        board.drag("Learning rate", 0.9)
        wait_for_value(board, kernel, "lr", 10 ** (float(board.control("Learning rate").input_value()) / 100 - 7))
        board.drag("Dropout", 0.8)
        wait_for_value(board, kernel, "dropout", float(board.control("Dropout").input_value()))
        board.press("Pause")
        notebook.poll(lambda: kernel.evaluate("debugger.state") == "paused", waiting_for="the pause")
        assert notebook.running(), "a pause leaves the cell waiting"
        board.press("Resume")
        notebook.poll(lambda: kernel.evaluate("debugger.state") == "running", waiting_for="the resume")
        board.press("Stop")
        notebook.wait_for_idle()
        assert kernel.evaluate("debugger.state") == "idle"
    assert notebook.run_cell(1) == repr(version)


TWO = """
alone = {}
for seed in (1, 2):
    lonely = make(seed)
    lonely.run(epochs=3)
    alone[seed] = [p.clone() for p in lonely._model.parameters()]
    lonely.close()
first, second = make(1, delay_s=0.03), make(2, delay_s=0.03)
"""


def test_two_dashboards_train_at_once_over_one_plotly_bundle(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SETUP + TWO, "display(first, second)", "first.start(epochs=3); second.start(epochs=3)")
    notebook.run_cell(0)
    before = notebook.traffic.received
    notebook.run_cell(1)
    notebook.run_cell(2)
    for index in (0, 1):
        DashboardPage(notebook, index).root.scroll_into_view_if_needed()
        DashboardPage(notebook, index).wait_for_curve()
    assert notebook.traffic.received - before < 8e6
    with notebook.kernel() as kernel:
        notebook.poll(lambda: kernel.evaluate("first.state == second.state == 'idle'"), waiting_for="both to finish")
        assert kernel.evaluate("first._dashboard.sent.plotlies + second._dashboard.sent.plotlies") == 1
        for name, seed in (("first", 1), ("second", 2)):
            same = f"all(bool((a == b).all()) for a, b in zip({name}._model.parameters(), alone[{seed}]))"
            assert kernel.evaluate(same), f"{name} did not get the weights that it gets alone"


def test_with_the_tab_closed_nothing_is_sent_and_training_goes_on(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SETUP + "debugger = make()\ndisplay(debugger)\ndebugger.start()")
    notebook.run_cell(0)
    board = DashboardPage(notebook)
    board.wait_for_curve(points=20)
    with notebook.kernel() as kernel:
        sent = "[debugger._dashboard.sent.pulls, debugger._dashboard.sent.frames]"
        notebook.poll(lambda: kernel.evaluate(sent)[1] > 3, waiting_for="some frames")
        notebook.close()
        kernel.evaluate("__import__('time').sleep(3)")
        before, step = kernel.evaluate(sent), kernel.evaluate("debugger.status.step")
        kernel.evaluate("__import__('time').sleep(3)")
        assert kernel.evaluate(sent) == before
        assert kernel.evaluate("debugger.status.step") > step + 50


def test_a_users_exception_and_a_nan_are_told_on_the_dashboard(notebooks: Notebooks) -> None:
    notebook = notebooks.open(
        SETUP
        + "debugger = make()\nloss = nn.functional.cross_entropy\ntrainer = debugger._session.trainer\n"
        + "trainer.loss_fn = lambda o, t: loss(o, t) * (float('nan') if debugger.status.step == 5 else 1)\n"
        + "display(debugger)\ndebugger.run(epochs=1)",
        "def broken(output, target):\n    raise ValueError('<b>no loss</b> today')\n"
        + "trainer.loss_fn = broken\ndebugger.run(epochs=1)",
    )
    notebook.run_cell(0)
    board = DashboardPage(notebook)
    board.root.locator(".nbd-card .nbd-operation", has_text="mul").wait_for()
    board.root.get_by_text("stopped at step 6, before the update: NaN").wait_for()
    board.button("Resume").wait_for()
    output = notebook.run_cell(1)
    assert "no loss" in output and "nbdebug/training" not in output
    board.root.get_by_text("ValueError: <b>no loss</b> today").first.wait_for()
    assert (
        board.root.locator("b", has_text="no loss")
        .locator("visible=true")
        .inner_html()
        .startswith("ValueError: &lt;b&gt;")
    )
