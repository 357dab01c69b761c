"""A JupyterLab server as a child process: started, known to answer, and stopped. Needs only the standard library."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote


class LabError(RuntimeError):
    """JupyterLab ended, or did not answer in time; the message holds the end of its log."""


def free_port() -> int:
    """A port on this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lab:
    """One JupyterLab server on this machine, serving the notebooks below ``root``; a context manager.

    ``environment`` replaces the process's own, ``options`` go to ``jupyter lab`` as they are. What the server prints is
    written to ``log``.
    """

    def __init__(
        self,
        root: Path,
        *,
        log: Path,
        token: str | None = None,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.token = secrets.token_hex(16) if token is None else token
        self.address = f"http://127.0.0.1:{free_port()}"
        self._log_path = log
        self._environment = environment
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def url(self, notebook: str, *, reset: bool = True) -> str:
        """Where a browser finds ``notebook``, a path below ``root``; ``reset`` forgets which tabs were open."""
        query = [*(["reset"] if reset else []), *([f"token={self.token}"] if self.token else [])]
        return f"{self.address}/lab/tree/{quote(notebook)}" + ("?" + "&".join(query) if query else "")

    def start(self, timeout_s: float = 120) -> None:
        """Start the server and return when it answers."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self._log_path.open("wb")
        self._process = subprocess.Popen(
            self._command(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=self._environment
        )
        try:
            self._wait_until_it_answers(time.monotonic() + timeout_s)
        except BaseException:
            self.stop()
            raise

    def wait(self) -> int:
        """Block until the server ends; its exit code."""
        assert self._process is not None
        return self._process.wait()

    def stop(self, timeout_s: float = 20) -> None:
        """End the server and the kernels it started."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.close()

    def _command(self) -> list[str]:
        port = self.address.rpartition(":")[2]
        return [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"),
            *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}", "--ServerApp.answer_yes=True"),
            f"--IdentityProvider.token={self.token}",
            *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            *self._options,
        ]

    def _wait_until_it_answers(self, deadline: float) -> None:
        assert self._process is not None
        while True:
            if self._process.poll() is not None:
                raise LabError(
                    f"JupyterLab ended with code {self._process.returncode} while starting.\n{self._log_end()}"
                )
            try:
                urllib.request.urlopen(f"{self.address}/api", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise LabError(f"JupyterLab did not answer at {self.address} in time.\n{self._log_end()}") from None
            time.sleep(0.1)

    def _log_end(self, lines: int = 20) -> str:
        text = self._log_path.read_text(errors="replace")
        return "\n".join(["Its last lines were:", *text.splitlines()[-lines:]])
