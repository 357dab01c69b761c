"""The dashboard on a notebook page, as a person sees and uses it."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator

from tests.harness.notebook_page import PANEL, NotebookPage

DISPLAYS = (
    "cell.model.type === 'code' && cell.model.outputs.toJSON()"
    ".some(output => output.data?.['application/vnd.jupyter.widget-view+json'])"
)

SETUP = """
import torch
from torch import nn
from nbdebug import Debugger, Trainer

def make(seed=0, width=32, delay_s=0.002):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 5))
    x = torch.randn(320, 10)
    y = (x @ torch.randn(10, 5)).argmax(1)
    class Slow(torch.utils.data.TensorDataset):
        def __getitems__(self, indices):
            time.sleep(delay_s)
            return [self[i] for i in indices]
    import time
    loader = torch.utils.data.DataLoader(Slow(x, y), batch_size=32, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    accuracy = lambda output, target: (output.argmax(1) == target).float().mean()
    trainer = Trainer(optimizer, nn.functional.cross_entropy, loader, loader, metrics={"accuracy": accuracy})
    return Debugger(model, trainer)
"""


class DashboardPage:
    """The ``index``-th dashboard of a page."""

    def __init__(self, notebook: NotebookPage, index: int = 0) -> None:
        self.notebook = notebook
        self.root: Locator = notebook.page.locator(".nbd").nth(index)

    def show(self) -> None:
        """Scroll to the dashboard; JupyterLab takes cells far out of view off the page."""
        index = self.notebook.page.evaluate(f"{PANEL}.content.widgets.findIndex(cell => {DISPLAYS})")
        self.notebook.page.evaluate(f"index => {PANEL}.content.scrollToItem(index, 'smart')", index)
        self.root.scroll_into_view_if_needed()

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def control(self, label: str) -> Locator:
        return self.root.get_by_label(label, exact=True)

    def press(self, name: str) -> None:
        """Press a button once it can be pressed."""
        self.button(name).click(timeout=30_000)

    def drag(self, label: str, share: float) -> None:
        """Drag a slider with the mouse to a share of its width."""
        self.control(label).scroll_into_view_if_needed()
        box = self.control(label).bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        mouse = self.notebook.page.mouse
        mouse.move(box["x"] + box["width"] * 0.4, middle)
        mouse.down()
        mouse.move(box["x"] + box["width"] * share, middle, steps=5)
        mouse.up()

    def hold(self, label: str, share: float) -> None:
        """Press the mouse on a slider and drag it to a share of its width; it stays pressed."""
        self.control(label).scroll_into_view_if_needed()
        box = self.control(label).bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        mouse = self.notebook.page.mouse
        mouse.move(box["x"] + box["width"] * 0.9, middle)
        mouse.down()
        mouse.move(box["x"] + box["width"] * share, middle, steps=5)

    def release(self) -> None:
        self.notebook.page.mouse.up()

    def row(self, title: str) -> Locator:
        """A run's row in the table of runs, whose tab is opened."""
        self.open_tab("Runs")
        name = self.notebook.page.locator(".nbd-text", has_text=re.compile(f"^{re.escape(title)}$"))
        return self.root.locator(".nbd-tree tbody tr").filter(has=name).first

    def open_tab(self, name: str) -> None:
        """Open one of the tabs at the bottom."""
        self.root.get_by_role("tab", name=name, exact=True).click()

    def shapes(self, panel: str) -> list[dict[str, Any]]:
        """The lines and boxes that plotly has drawn over a chart."""
        plot = self.root.locator(f"[data-panel={panel}] .nbd-plot")
        found: list[dict[str, Any]] = plot.evaluate("plot => JSON.parse(JSON.stringify(plot.layout?.shapes ?? []))")
        return found

    def traces(self, panel: str) -> dict[str, dict[str, Any]]:
        """What plotly has drawn in a chart, by trace name: plain lists."""
        return self.root.locator(f"[data-panel={panel}] .nbd-plot").evaluate(
            """plot => {
                const plain = (value) => {
                    if (ArrayBuffer.isView(value) || Array.isArray(value)) return Array.from(value, plain);
                    return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
                };
                return Object.fromEntries((plot.data ?? []).map((trace) => [trace.name, {
                    x: plain(trace.x ?? []), y: plain(trace.y ?? []), z: plain(trace.z ?? []),
                    customdata: plain(trace.customdata ?? []), visible: trace.visible ?? true,
                }]));
            }"""
        )

    def wait_for_curve(self, name: str = "main train", *, points: int = 2) -> None:
        """Wait until a curve is really drawn."""
        self.notebook.poll(
            lambda: len(self.traces("loss").get(name, {}).get("x", [])) >= points,
            waiting_for=f"the curve {name!r} to be drawn",
        )
