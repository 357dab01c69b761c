"""The dashboard on a page of its own, without Jupyter: a real Dashboard in this process, a real browser, a thin wire.

For what needs views that no quick training gives: hundreds of layers, odd numbers, any width. Messages are carried by
:meth:`BarePage.pump`, which every wait calls.
"""

from __future__ import annotations

import base64
import json
import queue
import time
from collections.abc import Callable
from typing import Any, TypeVar

from playwright.sync_api import Browser, Locator

from nbdebug.dashboard import Dashboard
from nbdebug.dashboard.board import Board
from nbdebug.records.view import Focus, View

T = TypeVar("T")

PAGE = """<!doctype html><html theme="{theme}"><body data-jp-theme-light="{light}" style="margin:0;background:{ground}">
<style>{css}</style><div id="here" style="width:{width}px"></div><script type="module">{esm}
</script></body></html>"""
START = """
globalThis.hearers = [];
const model = {
  on: (name, hear) => { if (name === "msg:custom") globalThis.hearers.push(hear); }, off: () => {},
  send: (content) => globalThis.toKernel(JSON.stringify(content)),
};
globalThis.deliver = (content, buffers) => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const views = buffers.map((text) => new DataView(bytes(text).buffer));
  for (const hear of globalThis.hearers) hear(content, views);
};
globalThis.leave = exported.render({ model, el: document.getElementById("here") });
"""
PLACES = """JSON.stringify([...document.querySelectorAll('.nbd-plot, .main-svg, [data-panel]')].map((node) => {
  const { left, top, width, height } = node.getBoundingClientRect();
  return [left, top, width, height];
}))"""


class BarePage:
    """One dashboard of what ``pull`` gives, ``width`` pixels wide. A context manager."""

    def __init__(
        self, browser: Browser, pull: Callable[[Focus], View], *, width: int = 1400, theme: str = "light"
    ) -> None:
        self.pulls: list[Focus] = []
        self.commands: list[object] = []
        self.errors: list[str] = []
        self._wire: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._pull = pull
        self.dashboard = Dashboard(self._look, self.commands.append)
        self.page = browser.new_page(viewport={"width": width + 20, "height": 1300})
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error.stack or error}"))
        self.page.on(
            "console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None
        )
        self._width, self._theme = width, theme

    def __enter__(self) -> BarePage:
        self.dashboard.mimebundle()
        board = self.dashboard._board
        assert board is not None
        board.send = lambda content, buffers=None: self._wire.put((content, buffers or []))  # type: ignore[method-assign]
        self.page.expose_function("toKernel", lambda text: board._on_message(board, json.loads(text), []))
        light = self._theme == "light"
        esm = Board._esm.replace("export default {", "const exported = {") + START
        html = PAGE.format(
            theme=self._theme, light=str(light).lower(), ground="#f0f0f0" if light else "#101215", css=Board._css,
            width=self._width, esm=esm,
        )  # fmt: skip
        self.page.set_content(html)
        self.until(self.is_drawn, waiting_for="the charts")
        self.settle()
        return self

    def __exit__(self, *error: object) -> None:
        self.page.close()
        self.dashboard.close()

    def _look(self, max_points: int, focus: Focus) -> View:
        self.pulls.append(focus)
        return self._pull(focus)

    @property
    def root(self) -> Locator:
        return self.page.locator(".nbd")

    def pump(self, seconds: float = 0.0) -> None:
        """Carry what waits to the browser, and let it work."""
        end = time.monotonic() + seconds
        while True:
            while not self._wire.empty():
                content, buffers = self._wire.get()
                texts = [base64.b64encode(bytes(buffer)).decode() for buffer in buffers]
                self.page.evaluate("([content, buffers]) => deliver(content, buffers)", [content, texts])
            self.page.wait_for_timeout(20)
            if time.monotonic() >= end and (not seconds or self._is_idle()):
                return

    def settle(self) -> None:
        """Go on until nothing on the page moves any more: what is drawn late shifts what lies below it."""
        before = ""
        while (now := str(self.page.evaluate(PLACES))) != before:
            before = now
            self.pump(0.15)

    def _is_idle(self) -> bool:
        """Whether nothing waits to be carried, once the page has worked off what it was given."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        return self._wire.empty()

    def until(self, look: Callable[[], T], *, waiting_for: str = "it", wait_s: float = 30.0) -> T:
        """Call ``look`` until it gives something true; that."""
        end = time.monotonic() + wait_s
        while not (value := look()):
            assert time.monotonic() < end, f"waited {wait_s:g} s for {waiting_for}; errors: {self.errors}"
            self.pump()
        return value

    def is_drawn(self) -> bool:
        """Whether plotly has drawn the charts that are in sight."""
        return bool(self.page.evaluate("document.querySelectorAll('.nbd-plot .main-svg').length >= 6"))

    def panel(self, name: str) -> Locator:
        return self.root.locator(f"[data-panel={name}]")

    def boxes(self, selector: str) -> list[dict[str, float]]:
        """The bounding boxes of what is visible and has a text."""
        found: list[dict[str, float]] = self.page.evaluate(
            """selector => [...document.querySelectorAll(selector)].map((node) => {
                const { left, top, right, bottom } = node.getBoundingClientRect();
                return { left, top, right, bottom, text: node.textContent };
            }).filter(({ left, right, text }) => right > left && text.trim())""",
            selector,
        )
        return found
