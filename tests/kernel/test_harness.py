"""The kernel harness itself: cells, values read while a cell blocks, interrupts, an orderly end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.harness.kernel_process import KernelProcess

BLOCK = "import time\nn = 0\nwhile n < 10**6:\n    n += 1\n    time.sleep(0.01)"


def test_a_cell_gives_back_its_streams_and_value(kernel: KernelProcess) -> None:
    came = kernel.client.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (came.stdout, came.stderr, came.result) == ("out\n", "err\n", "42")


def test_an_exception_fails_the_test_with_its_traceback(kernel: KernelProcess) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        kernel.client.run("1 / 0")


def test_values_can_be_read_and_the_cell_interrupted_while_it_blocks(kernel: KernelProcess) -> None:
    ticket = kernel.client.submit(BLOCK)
    kernel.client.wait_for("globals().get('n', 0) > 5")
    kernel.interrupt()
    assert "KeyboardInterrupt" in (kernel.client.finish(ticket).error or "")
    assert kernel.client.evaluate("n") > 5


def test_an_orderly_end_has_exit_code_zero(kernel: KernelProcess) -> None:
    assert kernel.shut_down() == 0


@pytest.mark.parametrize("version", ["7.1.0", "7.4.0"])
def test_another_ipykernel_can_be_asked_for(start_kernel: Callable[..., KernelProcess], version: str) -> None:
    kernel = start_kernel(ipykernel=version)
    assert kernel.client.run("import ipykernel; ipykernel.__version__").result == repr(version)
