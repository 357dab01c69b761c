"""Talks to a running IPython kernel over its sockets, also while a cell blocks it.

Without an event loop, so that it works beside Playwright, whose loop occupies the tests' thread. ``evaluate`` runs on a
subshell (ipykernel 7 and later): it answers while the main shell is busy, and reaches the same namespace.
"""

from __future__ import annotations

import ast
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq
from jupyter_client.session import Session

CHANNELS = {"shell": zmq.DEALER, "control": zmq.DEALER, "iopub": zmq.SUB}
WAKE_EVERY_S = 3


@dataclass(slots=True)
class Execution:
    """What came of a cell: its streams as text, its last value's text, its displays, and its error if it raised."""

    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    displays: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    traceback: str = ""

    def check(self) -> Execution:
        """Itself, or an AssertionError with the traceback that the kernel sent."""
        assert self.error is None, f"{self.error}\n{self.traceback}"
        return self


class KernelClient:
    """One connection to the kernel that ``connection_file`` names. Close it, or use it in a ``with``."""

    def __init__(self, connection_file: Path, *, timeout_s: float = 120) -> None:
        facts = json.loads(connection_file.read_text())
        self._session = Session(key=facts["key"].encode(), signature_scheme=facts["signature_scheme"])
        self._addresses = {name: f"{facts['transport']}://{facts['ip']}:{facts[name + '_port']}" for name in CHANNELS}
        self._context = zmq.Context()
        self._sockets = {name: self._context.socket(kind) for name, kind in CHANNELS.items()}
        for name, socket in self._sockets.items():
            socket.linger = 0
            socket.connect(self._addresses[name])
        self._sockets["iopub"].subscribe(b"")
        self._replies: dict[str, dict[str, Any]] = {}
        self._executions: dict[str, Execution] = {}
        self._idle: set[str] = set()
        self._subshell: str | None = None
        try:
            self._wait_until_ready(timeout_s)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> KernelClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, code: str) -> str:
        """Start ``code`` as a cell of the main shell and return at once; the ticket for :meth:`finish`."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
        ticket = self._send("shell", "execute_request", content)
        self._executions[ticket] = Execution()
        return ticket

    def finish(self, ticket: str, *, timeout_s: float = 120) -> Execution:
        """Wait for a submitted cell to end; what came of it, an exception that it raised included."""
        self._wait(lambda: ticket in self._replies and ticket in self._idle, timeout_s, "the cell did not end")
        return self._executions.pop(ticket)

    def output(self, ticket: str) -> Execution:
        """What a submitted cell, which may still run, has put out so far."""
        self._receive(0)
        return self._executions[ticket]

    def run(self, code: str, *, timeout_s: float = 120) -> Execution:
        """Run ``code`` as a cell of the main shell; raises AssertionError if the code raised."""
        return self.finish(self.submit(code), timeout_s=timeout_s).check()

    def evaluate(self, expression: str, *, timeout_s: float = 60) -> Any:
        """The value of ``expression`` in the kernel's namespace, through JSON, also while a cell runs."""
        self._subshell = self._subshell or self._create_subshell(timeout_s)
        asked = {"value": f"__import__('json').dumps({expression})"}
        content = {"code": "", "silent": True, "user_expressions": asked, "allow_stdin": False, "stop_on_error": False}
        ticket = self._send("shell", "execute_request", content, subshell=self._subshell)
        value = self._reply(ticket, timeout_s)["user_expressions"]["value"]
        assert value["status"] == "ok", f"{expression} raised {value.get('ename')}: {value.get('evalue')}"
        return json.loads(ast.literal_eval(value["data"]["text/plain"]))

    def wait_for(self, expression: str, *, timeout_s: float = 120, every_s: float = 0.1) -> Any:
        """Evaluate ``expression`` until it is true; its value. Not for tests with a page: they poll through it."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"{expression} was still {value!r} after {timeout_s:g} s"
            self._receive(every_s)
        return value

    def shut_down(self, *, timeout_s: float = 60) -> None:
        """Ask the kernel to end, as JupyterLab does."""
        self._reply(self._send("control", "shutdown_request", {"restart": False}), timeout_s)

    def close(self) -> None:
        """Close the connection; the kernel goes on."""
        if self._subshell:
            self._send("control", "delete_subshell_request", {"subshell_id": self._subshell})
        for socket in self._sockets.values():
            socket.close()
        self._context.term()

    def _create_subshell(self, timeout_s: float) -> str:
        reply = self._reply(self._send("control", "create_subshell_request", {}), timeout_s)
        assert reply["status"] == "ok", f"this kernel has no subshells (ipykernel 7 and later do): {reply}"
        return str(reply["subshell_id"])

    def _send(self, channel: str, kind: str, content: dict[str, Any], *, subshell: str | None = None) -> str:
        message = self._session.msg(kind, content)
        message["header"]["subshell_id"] = subshell
        self._session.send(self._sockets[channel], message)
        return str(message["header"]["msg_id"])

    def _reply(self, ticket: str, timeout_s: float) -> dict[str, Any]:
        self._wait(lambda: ticket in self._replies, timeout_s, "the kernel did not answer")
        return self._replies.pop(ticket)

    def _wait(self, done: Any, timeout_s: float, complaint: str) -> None:
        started = woken = time.monotonic()
        while not done():
            now = time.monotonic()
            assert now < started + timeout_s, f"{complaint} within {timeout_s:g} s"
            if now > woken + WAKE_EVERY_S:
                self._wake()
                woken = now
            self._receive(0.2)

    def _wake(self) -> None:
        """Make ipykernel before 7.4 read a request that it left lying: any new connection does (ipykernel #1554)."""
        with self._context.socket(zmq.DEALER) as shell, self._context.socket(zmq.DEALER) as control:
            for socket, channel in ((shell, "shell"), (control, "control")):
                socket.linger = 0
                socket.connect(self._addresses[channel])
            time.sleep(0.1)

    def _wait_until_ready(self, timeout_s: float) -> None:
        """Ask until an answer comes on iopub too: what is published before the subscription arrives is lost.

        On the control channel, which answers while a cell blocks the shell. A kernel that is only starting may lose a
        request, too (ipykernel 7.1 does), so none is waited for long.
        """
        deadline = time.monotonic() + timeout_s
        while not self._idle:
            assert time.monotonic() < deadline, f"the kernel did not answer within {timeout_s:g} s"
            self._send("control", "kernel_info_request", {})
            self._receive(1)

    def _receive(self, wait_s: float) -> None:
        """Take in what has arrived, waiting at most ``wait_s`` for the first of it."""
        poller = zmq.Poller()
        for socket in self._sockets.values():
            poller.register(socket, zmq.POLLIN)
        while arrived := dict(poller.poll(round(wait_s * 1000))):
            wait_s = 0
            for socket in arrived:
                _, message = self._session.recv(socket, zmq.NOBLOCK)
                if message:
                    self._take(message, published=socket is self._sockets["iopub"])

    def _take(self, message: dict[str, Any], *, published: bool) -> None:
        ticket = message["parent_header"].get("msg_id", "")
        kind, content = message["header"]["msg_type"], message["content"]
        if not published:
            self._replies[ticket] = content
        elif kind == "status" and content["execution_state"] == "idle":
            self._idle.add(ticket)
        elif ticket in self._executions:
            _record(self._executions[ticket], kind, content)


def _record(execution: Execution, kind: str, content: dict[str, Any]) -> None:
    if kind == "stream" and content["name"] == "stdout":
        execution.stdout += content["text"]
    elif kind == "stream":
        execution.stderr += content["text"]
    elif kind == "execute_result":
        execution.result = content["data"].get("text/plain")
    elif kind == "display_data":
        execution.displays.append(content["data"])
    elif kind == "error":
        execution.error = f"{content['ename']}: {content['evalue']}"
        execution.traceback = "\n".join(content["traceback"])
