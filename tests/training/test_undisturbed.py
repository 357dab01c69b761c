"""A look on the side puts back all that a forward changes, and touches nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from nbdebug.training.rng import OwnRandomState
from nbdebug.training.turn import PROCESS_TURN, Turns
from nbdebug.training.undisturbed import undisturbed


class Restless(nn.Module):
    """Changes whatever a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.own = torch.Generator().manual_seed(3)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("grown", torch.zeros(0))
        self.state = torch.zeros(2)
        self.calls = 0
        self.word = "none"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.replaced = torch.ones(3)
        self.grown = torch.cat([self.grown, torch.ones(1)])
        self.state = self.state + 1
        self.calls += 1
        self.word = "called"
        self.added = torch.ones(1)
        self.norm.eval()
        np.random.rand()
        random.random()
        return nn.functional.dropout(self.norm(x), 0.5) + torch.rand(1, generator=self.own)


def everything(module: Restless) -> list[object]:
    tensors = [(name, id(buffer), buffer.tolist()) for name, buffer in module.named_buffers()]
    plain = [module.state.tolist(), id(module.state), module.calls, module.word, hasattr(module, "added")]
    states = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
    return [*tensors, *plain, *states, module.own.get_state().tolist(), [m.training for m in module.modules()]]


@pytest.mark.parametrize("raises", [False, True])
def test_all_is_as_before(raises: bool) -> None:
    torch.manual_seed(0)
    module = Restless()
    before = everything(module)
    try:
        with undisturbed(module):
            module(torch.randn(8, 4))
            assert module.calls == 1 and module.count == 1
            if raises:
                raise RuntimeError("in the middle")
    except RuntimeError:
        pass
    assert everything(module) == before


def test_what_was_left_alone_is_not_written() -> None:
    module = Restless()
    versions = [buffer._version for buffer in module.buffers()]
    with undisturbed(module):
        pass
    assert [buffer._version for buffer in module.buffers()] == versions


def test_no_graph_is_kept() -> None:
    module = Restless()
    with undisturbed(module):
        assert not module(torch.randn(8, 4)).requires_grad


def test_a_turn_is_held_over_several_steps_and_given_to_who_waits() -> None:
    turns = Turns(OwnRandomState())
    turns.hold()
    turns.hold()
    with turns:
        torch.rand(3)
    turns.let_go_if_due(turns._since)
    assert turns._holding, "nobody waits and it was not for long"
    turns.let_go_if_due(turns._since + 1.0)
    assert not turns._holding
    PROCESS_TURN.take()
    PROCESS_TURN.give()
    turns.let_go()


def test_what_was_drawn_elsewhere_between_turns_is_undone() -> None:
    torch.manual_seed(1)
    turns = Turns(OwnRandomState())
    turns.hold()
    first = torch.rand(1)
    turns.let_go()
    torch.rand(50)
    with turns:
        second = torch.rand(1)
    torch.manual_seed(1)
    assert [first.item(), second.item()] == torch.rand(2).tolist()
