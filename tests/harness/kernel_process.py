"""A real IPython kernel as a child process of the tests, without JupyterLab."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jupyter_client.connect import write_connection_file

from tests.harness.kernel_client import KernelClient


class KernelProcess:
    """One kernel, started at once, and ``client``, the connection to it. A context manager that kills it in the end."""

    def __init__(self, folder: Path, *, environment: Mapping[str, str]) -> None:
        connection_file, _ = write_connection_file(
            str(folder / "connection.json"), key=secrets.token_bytes(16).hex().encode()
        )
        self.log = folder / "kernel.log"
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", connection_file]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment), cwd=folder
            )
        try:
            self.client = KernelClient(Path(connection_file))
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> KernelProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.client.close()

    def interrupt(self) -> None:
        """What the stop button does: the running cell sees a KeyboardInterrupt."""
        self.process.send_signal(signal.SIGINT)

    def shut_down(self, *, timeout_s: float = 60) -> int:
        """End the kernel in good order; its exit code."""
        self.client.shut_down(timeout_s=timeout_s)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()
