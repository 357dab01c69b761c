"""The zoo: tiny models of every kind, and the plain loop that they are compared with. Thread of the test."""

from __future__ import annotations

from typing import Any

import torch

from tests.instruments import zoo_compiled, zoo_layers, zoo_oddities, zoo_trials, zoo_ways
from tests.instruments.specimen import Case, Kind
from tests.training import reference

HOUSES = (zoo_layers, zoo_oddities, zoo_ways, zoo_compiled, zoo_trials)
KINDS: dict[str, Kind] = {name: kind for house in HOUSES for name, kind in house.KINDS.items()}


def train_plainly(case: Case, steps: int) -> None:
    """The reference loop; with a step of the user's own, the same around that step."""
    if case.step is None:
        reference.train(case.model, case.optimizer, case.loss_fn, case.batches, steps=steps, epochs=steps)
        return
    for number in range(steps):
        returned: Any = case.step(case.model, case.batches[number % len(case.batches)], case.loss_fn, case.optimizer)
        loss = returned["loss"] if isinstance(returned, dict) else returned
        if isinstance(loss, torch.Tensor):
            loss.item()
