"""Draws docs/dashboard-light.png and docs/dashboard-dark.png: the quickstart, trained a while in a real JupyterLab.

Then its branch is compared with its parent, and the model rewound by the slider. ``python -m scripts.screenshot``, with
a folder for the pictures if not docs, or ``make screenshot``. Works on a copy of the notebook, with the tests' tools.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from scripts.ensure_browser import ADVICE, find_browser
from scripts.lab import Lab
from tests.harness.jupyter_home import JupyterHome
from tests.harness.notebook_page import FLAGS, LAB_OPTIONS, NotebookPage, Notebooks

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
DASHBOARD = ".nbd"
SLIDER = "Rewind to step"
REWOUND_TO = 0.55
WIDTH = 1400
LIMIT_BYTES = 400_000


def main() -> int:
    """Write both pictures; the exit code."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    browser_path = find_browser()
    if browser_path is None:
        print(ADVICE, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = JupyterHome(Path(folder) / "home")
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(FLAGS))
        log = ROOT / "build" / "screenshot-jupyterlab.log"
        with (
            Lab(home.notebooks, log=log, environment=home.environment(), options=LAB_OPTIONS) as lab,
            Notebooks(browser, lab, home, prefix="quickstart") as notebooks,
        ):
            notebook = notebooks.open_copy(NOTEBOOK)
            _train(notebook)
            _travel(notebook)
            _set_width(notebook)
            sizes = {mode: _draw(notebook, mode, target) for mode in ("light", "dark")}
        browser.close()
    too_large = [mode for mode, size in sizes.items() if size > LIMIT_BYTES]
    if too_large:
        print(f"Too large to keep, over {LIMIT_BYTES:,} bytes: {', '.join(too_large)}.", file=sys.stderr)
    return int(bool(too_large))


def _train(notebook: NotebookPage) -> None:
    """Run the whole notebook, which trains and reruns by itself, and stay at the dashboard."""
    notebook.command("application:toggle-left-area")
    notebook.run_all()
    notebook.wait_for_idle(timeout_s=600)
    if raised := notebook.raised():
        raise SystemExit(f"A cell of {NOTEBOOK.name} raised:\n{raised}")
    dashboard = notebook.page.locator(DASHBOARD).first
    notebook.poll(dashboard.is_visible, timeout_s=120, waiting_for="the dashboard")
    dashboard.scroll_into_view_if_needed()


def _travel(notebook: NotebookPage) -> None:
    """Compare the latest branch with its parent, then drag the rewind slider back."""
    board = notebook.page.locator(DASHBOARD).first
    board.get_by_role("tab", name="Runs").click()
    board.get_by_label("Other seeds for a comparison").fill("3")
    board.get_by_role("button", name="Compare").locator("visible=true").first.click()
    board.locator(".nbd-sentence").wait_for(timeout=300_000)
    board.scroll_into_view_if_needed()
    slider = board.get_by_label(SLIDER)
    slider.scroll_into_view_if_needed()  # the tab of runs is far below
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    notebook.page.mouse.move(box["x"] + box["width"] * 0.9, middle)
    notebook.page.mouse.down()
    notebook.page.mouse.move(box["x"] + box["width"] * REWOUND_TO, middle, steps=5)
    notebook.page.mouse.up()
    board.get_by_text("rewound to step").wait_for()
    board.get_by_role("tab", name="Layers").click()
    notebook.page.mouse.move(0, 0)


def _set_width(notebook: NotebookPage) -> None:
    """Widen the window until the dashboard itself is WIDTH wide, and high enough to hold it whole."""
    dashboard = notebook.page.locator(DASHBOARD).first
    for _ in range(3):  # a scroll bar that comes or goes changes the width once more
        box = dashboard.bounding_box()
        size = notebook.page.viewport_size
        assert box is not None and size is not None
        notebook.page.set_viewport_size(
            {"width": round(size["width"] + WIDTH - box["width"]), "height": max(1000, round(box["height"]) + 300)}
        )
        notebook.page.wait_for_timeout(1000)


def _draw(notebook: NotebookPage, mode: str, target: Path) -> int:
    """Write one picture; its size in bytes."""
    notebook.theme(mode)
    notebook.page.wait_for_timeout(3000)  # the charts take their new colours with the next frames
    path = target / f"dashboard-{mode}.png"
    notebook.screenshot(path, of=DASHBOARD)
    size = path.stat().st_size
    print(f"{path}: {size:,} bytes")
    return size


if __name__ == "__main__":
    sys.exit(main())
