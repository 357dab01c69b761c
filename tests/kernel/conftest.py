"""Fixtures for tests in a real IPython kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.jupyter_home import JupyterHome, fetch_ipykernel
from tests.harness.kernel_process import KernelProcess


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[Callable[..., KernelProcess]]:
    """``start_kernel()`` or ``start_kernel(ipykernel="7.1.0")``: a new kernel, killed after the test if still there."""
    environment = JupyterHome(tmp_path / "home").environment()
    with ExitStack() as stack:

        def start(ipykernel: str | None = None) -> KernelProcess:
            folder = tmp_path / f"kernel-{len(list(tmp_path.glob('kernel-*')))}"
            folder.mkdir()
            path = {"PYTHONPATH": str(fetch_ipykernel(ipykernel))} if ipykernel else {}
            return stack.enter_context(KernelProcess(folder, environment=environment | path))

        yield start


@pytest.fixture
def kernel(start_kernel: Callable[..., KernelProcess]) -> KernelProcess:
    """One kernel with the installed ipykernel."""
    return start_kernel()
