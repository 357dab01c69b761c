"""Run as a process of its own: goes on from snapshots in files, and compares with where the first process came to.

``python -m tests.training.fresh_process FOLDER...``, each folder with ``name``, ``kept.safetensors`` and ``end.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.training.test_time_travel import assert_same, everything, losses, made


def go_on(folder: Path) -> None:
    setup, debugger = made((folder / "name").read_text())
    torch.rand(3)
    debugger.checkout(folder / "kept.safetensors")
    debugger.run(steps=11)
    end = torch.load(folder / "end.pt", weights_only=False)
    assert_same({**everything(setup, debugger), "losses": losses(debugger)}, end, (folder / "name").read_text())
    debugger.close()
    print(f"{folder}: the same")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        go_on(Path(argument))
