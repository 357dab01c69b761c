"""The browser harness itself, on a notebook with a slider of ipywidgets."""

from __future__ import annotations

import pytest

from tests.harness.jupyter_home import JupyterHome
from tests.harness.notebook_page import Notebooks

SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(3, description="answer")
slider
"""
BLOCK = "import time\nended = time.time() + 600\nwhile time.time() < ended: time.sleep(0.02)"


def test_a_slider_moved_in_the_page_is_moved_in_the_kernel(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SLIDER, "slider.value")
    notebook.run_cell(0)
    handle = notebook.page.get_by_role("slider")
    handle.focus()
    handle.press("ArrowRight")
    with notebook.kernel() as kernel:
        notebook.poll(lambda: kernel.evaluate("slider.value") == 4, waiting_for="the kernel to hear of the slider")
    assert notebook.run_cell(1) == "4"
    assert notebook.traffic.received > 0 and notebook.traffic.sent > 0


def test_values_can_be_read_and_the_cell_stopped_while_it_blocks(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SLIDER, BLOCK)
    notebook.run_cell(0)
    notebook.start_cell(1)
    with notebook.kernel() as kernel:
        notebook.poll(lambda: kernel.evaluate("'ended' in globals()"), waiting_for="the cell to run")
        assert notebook.running()
        assert kernel.evaluate("slider.value") == 3
    notebook.interrupt()
    notebook.wait_for_idle()
    assert "KeyboardInterrupt" in notebook.output(1)


def test_the_theme_a_reload_and_a_second_tab(notebooks: Notebooks) -> None:
    notebook = notebooks.open(SLIDER)
    notebook.run_all()
    notebook.wait_for_idle()
    notebook.theme("dark")
    notebook.reload()
    notebook.page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    notebook.page.get_by_role("slider").wait_for()
    other = notebook.another_tab()
    assert other.kernel_id() == notebook.kernel_id()
    other.close()
    notebook.theme("light")


@pytest.mark.parametrize("version", ["7.1.0", "7.4.0"])
def test_a_notebook_can_ask_for_another_ipykernel(notebooks: Notebooks, home: JupyterHome, version: str) -> None:
    notebook = notebooks.open("import ipykernel; print(ipykernel.__version__)", kernel=home.add_kernel(version))
    assert notebook.run_cell(0) == f"{version}\n"


def test_an_error_in_the_page_is_noticed(notebooks: Notebooks) -> None:
    notebook = notebooks.open("1")
    notebook.page.evaluate("() => { console.error('out of order'); setTimeout(() => { throw new Error('lost') }) }")
    notebook.poll(lambda: len(notebook.log.errors) == 2, waiting_for="both errors")
    assert "out of order" in notebook.log.errors[0] and "lost" in notebook.log.errors[1]
    notebook.log.errors.clear()
