"""A debugger in a real kernel: interrupts, loader workers, words where there is no widget, an orderly end."""

from __future__ import annotations

from tests.harness.kernel_process import KernelProcess

SETUP = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from nbdebug import Debugger, Trainer

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
data = TensorDataset(torch.randn(4000, 4), torch.randn(4000, 1))
loader = DataLoader(data, batch_size=4, shuffle=True, num_workers={workers})
trainer = Trainer(torch.optim.SGD(model.parameters(), 0.01), nn.functional.mse_loss, loader)
debugger = Debugger(model, trainer)
"""


def test_an_interrupt_pauses_and_loader_workers_survive_it(kernel: KernelProcess) -> None:
    client = kernel.client
    client.run(SETUP.format(workers=2), timeout_s=60)
    ticket = client.submit("debugger.run(epochs=100_000)")
    client.wait_for("debugger.status.step > 20", timeout_s=60)
    kernel.interrupt()
    assert client.finish(ticket, timeout_s=60).error.startswith("KeyboardInterrupt")
    assert client.evaluate("debugger.state") == "paused"
    at = client.evaluate("debugger.status.step")
    client.run("debugger.step(5)", timeout_s=60)
    assert client.evaluate("debugger.status.step") == at + 5
    client.run("debugger.resume()")
    client.wait_for(f"debugger.status.step > {at} + 20", timeout_s=60)
    assert client.evaluate("debugger.failure") is None


def test_display_says_it_in_words_where_widgets_cannot_be_shown(kernel: KernelProcess) -> None:
    kernel.client.run(SETUP.format(workers=0), timeout_s=60)
    shown = kernel.client.run("debugger.run(steps=3)\ndebugger").result or ""
    assert "nbdebug" in shown and "step 3" in shown and "main" in shown


def test_the_kernel_ends_in_order_while_training_runs(kernel: KernelProcess) -> None:
    kernel.client.run(SETUP.format(workers=0) + "display(debugger)\ndebugger.start()", timeout_s=60)
    kernel.client.wait_for("debugger.status.step > 5", timeout_s=60)
    assert kernel.shut_down() == 0


def test_rerunning_the_cell_makes_a_new_debugger_beside_the_old_one(kernel: KernelProcess) -> None:
    cell = SETUP.format(workers=0) + "display(debugger)\ndebugger.run(steps=5)"
    for _ in range(3):
        kernel.client.run(cell, timeout_s=60)
    assert kernel.client.evaluate("debugger.status.step") == 5
