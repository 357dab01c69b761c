"""A notebook in a real JupyterLab, in a real browser, as a test uses it.

JupyterLab runs with ``expose_app_in_browser``, so that commands, cells and outputs are reached through its own
application object instead of menus, whose wording and place change with every version.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import nbformat
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, TimeoutError, WebSocket

from scripts.lab import Lab
from tests.harness.jupyter_home import JupyterHome
from tests.harness.kernel_client import WAKE_EVERY_S, KernelClient

T = TypeVar("T")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LAB_OPTIONS = (
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
    "--ServerApp.terminals_enabled=False",
)
INSTALLED = "python3"  # JupyterLab's name for the kernel of its own interpreter
PANEL = "window.jupyterapp?.shell.currentWidget"


@dataclass(slots=True)
class Traffic:
    """Payload bytes over a page's websockets since it was opened, reloads included."""

    received: int = 0
    sent: int = 0


@dataclass
class Log:
    """What went wrong in a page, by the browser's word: console errors and exceptions that nobody caught."""

    errors: list[str] = field(default_factory=list)

    def take_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def take_exception(self, error: Any) -> None:
        self.errors.append(f"uncaught: {error.stack or error}")


class NotebookPage:
    """One browser tab with one notebook. Cells are counted from 0; a wait polls through the page until its deadline."""

    def __init__(
        self,
        context: BrowserContext,
        lab: Lab,
        home: JupyterHome,
        notebook: str,
        kernel_name: str,
        *,
        log: Log | None = None,
    ) -> None:
        self.context = context
        self.lab = lab
        self.home = home
        self.notebook = notebook
        self.kernel_name = kernel_name
        self.traffic = Traffic()
        self.log = Log() if log is None else log
        self.page: Page = context.new_page()
        self.page.on("console", self.log.take_console)
        self.page.on("pageerror", self.log.take_exception)
        self.page.on("websocket", self._count)

    def open(self, *, busy: bool = False, timeout_s: float = 120) -> NotebookPage:
        """Load the notebook and wait until its kernel answers, or, for a ``busy`` one, until the notebook is there."""
        self.page.goto(self.lab.url(self.notebook), timeout=timeout_s * 1000)
        return self._wait_until_ready(busy, timeout_s)

    def reload(self, *, busy: bool = False, timeout_s: float = 120) -> NotebookPage:
        """Save, then load the page anew; the kernel goes on."""
        self.save()
        self.page.reload(timeout=timeout_s * 1000)
        return self._wait_until_ready(busy, timeout_s)

    def another_tab(self, *, busy: bool = False) -> NotebookPage:
        """The same notebook, on the same kernel, in a second tab of the same browser."""
        other = NotebookPage(self.context, self.lab, self.home, self.notebook, self.kernel_name, log=self.log)
        return other.open(busy=busy)

    def close(self) -> None:
        """Close the tab as a person does; the kernel goes on."""
        self.page.close()

    def save(self) -> None:
        """Write the notebook to disk, outputs and widget state included."""
        self.command("docmanager:save")

    def saved(self) -> dict[str, Any]:
        """The notebook as it is on disk."""
        content: dict[str, Any] = json.loads((self.home.notebooks / self.notebook).read_text())
        return content

    # Cells

    def run_all(self) -> None:
        """Run all cells, without waiting for them."""
        self._start_command("notebook:run-all-cells")

    def run_cell(self, index: int, *, timeout_s: float = 120) -> str:
        """Run one cell to its end; the text of its output."""
        self.start_cell(index)
        self.wait_for_idle(timeout_s=timeout_s)
        return self.output(index)

    def start_cell(self, index: int) -> None:
        """Run one cell, without waiting for it."""
        self.page.evaluate(f"index => {{ const panel = {PANEL}; panel.content.activeCellIndex = index }}", index)
        self._start_command("notebook:run-cell")

    def wait_for_idle(self, *, timeout_s: float = 120) -> None:
        """Wait until no cell runs or is queued."""
        self.poll(lambda: not self.running(), timeout_s=timeout_s, waiting_for="the cells to end")

    def running(self) -> bool:
        """Whether any cell runs or is queued."""
        pending = "cell.model.type === 'code' && cell.model.executionState === 'running'"
        return bool(self.page.evaluate(f"() => {PANEL}.content.widgets.some(cell => {pending})"))

    def output(self, index: int) -> str:
        """A cell's output as text: streams, values, and a traceback if it raised."""
        outputs = self.page.evaluate(f"i => {PANEL}.content.widgets[i].model.outputs.toJSON()", index)
        return "".join(map(_text, outputs))

    def raised(self) -> str:
        """The tracebacks in the notebook's outputs; empty when no cell raised."""
        cells = f"{PANEL}.content.widgets.flatMap(cell => cell.model.outputs?.toJSON() ?? [])"
        outputs = self.page.evaluate(f"() => {cells}")
        return "\n".join(_text(output) for output in outputs if output["output_type"] == "error")

    def cell(self, index: int) -> Locator:
        """A cell on the page, to look into with Playwright."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    # JupyterLab

    def command(self, name: str, **arguments: Any) -> None:
        """Carry out one of JupyterLab's commands and wait for its end."""
        call = "([name, arguments]) => window.jupyterapp.commands.execute(name, arguments).then(() => null)"
        self.page.evaluate(call, [name, arguments])

    def theme(self, mode: str, *, timeout_s: float = 60) -> None:
        """Switch JupyterLab to its "light" or "dark" theme."""
        self.command("apputils:change-theme", theme=f"JupyterLab {mode.capitalize()}")
        wanted = str(mode == "light").lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light={wanted}]", state="attached", timeout=timeout_s * 1000)

    def interrupt(self) -> None:
        """Press the stop button."""
        self.command("notebook:interrupt-kernel")

    # The kernel

    def kernel(self) -> KernelClient:
        """A connection of one's own to the notebook's kernel; close it, or use it in a ``with``."""
        return KernelClient(self.home.runtime / f"kernel-{self.kernel_id()}.json")

    def kernel_id(self) -> str:
        """The id of the kernel that the notebook is connected to."""
        return str(self.page.evaluate(f"() => {PANEL}.sessionContext.session.kernel.id"))

    def shut_down_kernel(self) -> None:
        """End the notebook's kernel by the server's interface; works also when the page is closed."""
        for session in json.loads(self._ask("GET", "sessions")):
            if session["path"] == self.notebook:
                self._ask("DELETE", f"sessions/{session['id']}")

    # Waiting

    def poll(self, look: Callable[[], T], *, timeout_s: float = 60, waiting_for: str = "it", every_s: float = 0.1) -> T:
        """Call ``look`` until it gives something true; that. The page's events are delivered in between."""
        started = woken = time.monotonic()
        while not (value := look()):
            now = time.monotonic()
            assert now < started + timeout_s, f"waited {timeout_s:g} s for {waiting_for}; last seen: {value!r}"
            if now > woken + WAKE_EVERY_S:
                self._wake()
                woken = now
            self.page.wait_for_timeout(every_s * 1000)
        return value

    def screenshot(self, path: Path, *, of: str | None = None) -> None:
        """Write a PNG of the window, or of the element that the selector ``of`` names."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if of:
            self.page.locator(of).first.screenshot(path=path)
        else:
            self.page.screenshot(path=path)

    def _start_command(self, name: str) -> None:
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name) }", name)

    def _wait_until_ready(self, busy: bool, timeout_s: float) -> NotebookPage:
        kernel = f"{PANEL}?.content?.model && {PANEL}.sessionContext?.session?.kernel"
        ready = (
            f"() => {{ const kernel = {kernel}; return !!kernel && ({str(busy).lower()} || kernel.status === 'idle') }}"
        )
        started = time.monotonic()
        while True:
            try:
                self.page.wait_for_function(ready, timeout=WAKE_EVERY_S * 1000)
                return self
            except TimeoutError:
                assert time.monotonic() < started + timeout_s, f"the kernel did not answer within {timeout_s:g} s"
                self._wake()

    def _wake(self) -> None:
        """Make ipykernel before 7.4 read a request that it left lying: any new connection does (ipykernel #1554)."""
        has_kernel = f"() => !!{PANEL}?.sessionContext?.session?.kernel"
        if self.kernel_name != INSTALLED and not self.page.is_closed() and self.page.evaluate(has_kernel):
            self.kernel().close()

    def _ask(self, method: str, path: str) -> bytes:
        headers = {"Authorization": f"token {self.lab.token}"}
        request = urllib.request.Request(f"{self.lab.address}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def _count(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda payload: self._add(received=len(payload)))
        socket.on("framesent", lambda payload: self._add(sent=len(payload)))

    def _add(self, *, received: int = 0, sent: int = 0) -> None:
        self.traffic.received += received
        self.traffic.sent += sent


class Notebooks:
    """Makes notebooks in the server's folder and opens them, all in one browser context. A context manager."""

    def __init__(self, browser: Browser, lab: Lab, home: JupyterHome, *, prefix: str, scale: float = 1) -> None:
        self.lab = lab
        self.home = home
        self.prefix = prefix
        self.pages: list[NotebookPage] = []
        self.context = browser.new_context(viewport={"width": 1500, "height": 1000}, device_scale_factor=scale)

    def __enter__(self) -> Notebooks:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()
        for page in self.pages:
            page.shut_down_kernel()

    def open(self, *cells: str, kernel: str = INSTALLED) -> NotebookPage:
        """A new notebook with these code cells, open in a new tab, its kernel started."""
        content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        return self._open(content, kernel)

    def open_copy(self, path: Path, *, kernel: str = INSTALLED) -> NotebookPage:
        """A copy of the notebook at ``path``, open in a new tab, its kernel started."""
        return self._open(nbformat.read(path, as_version=4), kernel)

    def errors(self) -> list[str]:
        """What the browser complained of in any of the pages."""
        return [error for page in self.pages for error in page.log.errors]

    def screenshots(self, folder: Path) -> None:
        """A PNG of each page that is still open, to look at when a test fails."""
        for index, page in enumerate(self.pages):
            if not page.page.is_closed():
                page.screenshot(folder / f"{self.prefix}-{index}.png")

    def _open(self, content: Any, kernel: str) -> NotebookPage:
        name = f"{self.prefix}-{len(self.pages)}.ipynb"
        content.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(content, self.home.notebooks / name)
        page = NotebookPage(self.context, self.lab, self.home, name, kernel)
        self.pages.append(page)
        return page.open()


def _text(output: dict[str, Any]) -> str:
    if output["output_type"] == "error":
        return "\n".join([*output["traceback"], f"{output['ename']}: {output['evalue']}"])
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return text if isinstance(text, str) else "".join(text)
