"""On any model, a pass over watched samples after each step: training goes as without, and nothing is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from nbdebug import Debugger, Trainer
from nbdebug.debugger_sample_watch import Wish
from nbdebug.records.findings import Cause
from tests.instruments import zoo
from tests.instruments.test_do_no_harm import STEPS, differences, plain_states, states

UNDONE = {  # why no pass is made of these, in a few words
    "scripted part": "can't be looked into",
    "embedding bag, sparse": "can't be put back for certain",  # its gradient
    "checkpointing, reentrant": "None of the inputs have requires_grad",  # a warning, which is an error in tests
}


def evaluate(model: Any, batch: Any, loss_fn: Any) -> Any:
    """For those with a step of their own: what goes in and comes out."""
    output = model(batch[0])
    return {"loss": output.float().mean() if hasattr(output, "float") else 0.0, "output": output, "target": batch[1]}


@pytest.mark.parametrize("name", zoo.KINDS)
def test_every_bit_is_as_without_us_with_a_pass_after_each_step(name: str) -> None:
    theirs = plain_states(name)
    case = zoo.KINDS[name].make()
    eval_step = evaluate if case.step is not None else None
    trainer = Trainer(case.optimizer, case.loss_fn, case.batches, step=case.step, eval_step=eval_step, state=case.state)
    debugger = Debugger(case.model, trainer, budget=None, probes="light", journal=None, checks=False)
    debugger._sample_watch._wish = Wish(8, every=1, asked=False)
    debugger.run(steps=STEPS)
    samples = debugger.samples
    debugger.close()
    assert differences(states(case), theirs) == []
    if case.step is None:
        assert not [each for each in debugger.findings if each.cause is Cause.WATCHING_DISABLED]
        assert len(samples) == (0 if name in UNDONE else STEPS) and UNDONE.get(name, "") in samples.note
