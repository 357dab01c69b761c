"""Everything that can't work gets an error that says what was given, why it can't work, and what to write instead."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import ConfigurationError, Debugger, State, Trainer

MODEL = nn.Linear(3, 1)
SGD = torch.optim.SGD(MODEL.parameters(), 0.1)
PAIRS = [(torch.randn(4, 3), torch.randn(4, 1))]

TRAINERS = {
    "optimizer must be a torch.optim.Optimizer or a mapping of them, not a str": lambda: Trainer(
        "adam", F.mse_loss, PAIRS
    ),
    "the class Adam (a class: call it": lambda: Trainer(torch.optim.Adam, F.mse_loss, PAIRS),
    "optimizer is an empty mapping": lambda: Trainer({}, F.mse_loss, PAIRS),
    "loss_fn is the class MSELoss: call it, as in MSELoss()": lambda: Trainer(SGD, nn.MSELoss, PAIRS),
    "loss_fn must be callable": lambda: Trainer(SGD, "mse", PAIRS),
    "train_loader is one-shot (a generator)": lambda: Trainer(SGD, F.mse_loss, (pair for pair in PAIRS)),
    "train_loader is one-shot (a _SingleProcessDataLoaderIter)": lambda: Trainer(
        SGD, F.mse_loss, iter(DataLoader(TensorDataset(*PAIRS[0])))
    ),
    "train_loader is empty": lambda: Trainer(SGD, F.mse_loss, []),
    "val_loader is empty": lambda: Trainer(SGD, F.mse_loss, PAIRS, []),
    "with drop_last?": lambda: Trainer(
        SGD, F.mse_loss, DataLoader(TensorDataset(*PAIRS[0]), batch_size=64, drop_last=True)
    ),
    "train_loader must be a re-iterable of batches": lambda: Trainer(SGD, F.mse_loss, 7),
    "scheduler must be a torch.optim.lr_scheduler scheduler": lambda: Trainer(
        SGD, F.mse_loss, PAIRS, scheduler="cosine"
    ),
    "scheduler_interval must be one of 'epoch', 'batch', 'manual'; got 'step'": lambda: Trainer(
        SGD, F.mse_loss, PAIRS, scheduler_interval="step"
    ),
    "metric 'accuracy' must be callable": lambda: Trainer(SGD, F.mse_loss, PAIRS, metrics={"accuracy": 0.5}),
    "metrics must be a mapping": lambda: Trainer(SGD, F.mse_loss, PAIRS, metrics=[len]),
    "step must be a function": lambda: Trainer(SGD, F.mse_loss, PAIRS, step=3),
    "state['ema'] needs state_dict and load_state_dict": lambda: Trainer(SGD, F.mse_loss, PAIRS, state={"ema": {}}),
    "is no torch device": lambda: Trainer(SGD, F.mse_loss, PAIRS, device="gpu"),
}


@pytest.mark.parametrize("message", TRAINERS)
def test_trainer_arguments(message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        TRAINERS[message]()


def test_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Trainer("adam", None, iter(PAIRS), [], scheduler_interval="never")
    assert str(caught.value).count("\n- ") == 4


DEBUGGERS = {
    "model must be a torch.nn.Module or a mapping of them, not a function": lambda t: Debugger(lambda x: x, t),
    "model is the class Linear: call it": lambda t: Debugger(nn.Linear, t),
    "the second argument must be an nbdebug.Trainer, not a SGD": lambda t: Debugger(MODEL, SGD),
    "the model has no parameters": lambda t: Debugger(nn.ReLU(), t),
    "optimizer (SGD) holds none of the model's parameters: make it after the model": lambda t: Debugger(
        nn.Linear(3, 1), t
    ),
    "several models or optimizers need step=...": lambda t: Debugger({"a": MODEL}, t),
    "budget=0": lambda t: Debugger(MODEL, t, budget=0),
}


@pytest.mark.parametrize("message", DEBUGGERS)
def test_debugger_arguments(message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        DEBUGGERS[message](Trainer(SGD, F.mse_loss, PAIRS))


class Empty:
    def __iter__(self):
        return iter([])


X, Y = PAIRS[0]
RUNS = {
    "train_loader is empty: it yielded no batch": dict(train_loader=Empty()),
    "val_loader is empty: it yielded no batch": dict(val_loader=Empty()),
    "the loader yielded a single tensor of shape (4, 3), which is not (input, target): give Trainer step=": dict(
        train_loader=[X]
    ),
    "the loader yielded a tuple of 3": dict(train_loader=[(X, Y, Y)]),
    "a dict with keys 'a', 'b'": dict(train_loader=[{"a": X, "b": Y}]),
    "the loss must be one number, but has shape (4, 1): reduce it": dict(loss_fn=nn.MSELoss(reduction="none")),
    "the loss has no graph": dict(loss_fn=lambda o, t: (o - t).detach().mean()),
    "the loss must be a tensor, not float": dict(loss_fn=lambda o, t: (o - t).mean().item()),
    "step returned nothing": dict(step=lambda *a: None),
    "step returned a mapping without 'loss'": dict(step=lambda *a: {"los": 1}),
    "step must return the loss as a scalar tensor or a number, not str": dict(step=lambda *a: "low"),
    "the loss must be one number, but has shape (2,)": dict(step=lambda *a: torch.ones(2)),
}


@pytest.mark.parametrize("message", RUNS)
def test_what_only_running_can_show(message: str) -> None:
    options = {"train_loader": PAIRS, "loss_fn": F.mse_loss, **RUNS[message]}
    debugger = Debugger(MODEL, Trainer(SGD, **options))
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        debugger.run(epochs=1)
    assert debugger.state is State.FAILED
    assert any(message in each.title + each.detail for each in debugger.findings)
    debugger.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.run(), "say how long: run(epochs=3) or run(steps=200)"),
        (lambda d: d.run(epochs=0), "epochs=0: give a whole number of at least 1"),
        (lambda d: d.run(steps=2.5), "steps=2.5: give a whole number"),
        (lambda d: d.step(-1), "steps=-1"),
        (lambda d: d.rerun(epochs=1, start="begin", learning_rate=3), "a rerun starts at one of 'start', 'last_epoch'"),
        (lambda d: d.rerun(epochs=1, start="begin", learning_rate=3), "unknown knob 'learning_rate'"),
        (lambda d: d.reinitialize("kaiming_normal", seed="x"), "seed='x'"),
    ],
)
def test_calls(call, message: str) -> None:
    debugger = Debugger(MODEL, Trainer(SGD, F.mse_loss, PAIRS))
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        call(debugger)
    assert debugger.state is State.IDLE
    debugger.close()
