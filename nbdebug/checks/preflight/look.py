"""All that checks may ask about a training program. What is dear is done when first asked for, and kept.

Battery: with a ``bench``, on batches drawn on the side. Passive: without one, on what the user's first steps showed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.checks.check import Skip
from nbdebug.checks.preflight.bench import Bench
from nbdebug.checks.preflight.data import Data
from nbdebug.checks.preflight.task import Task, task_of
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.training.modules import Model, named_modules, named_parameters
from nbdebug.training.trainer import Trainer


class Look:
    """A look at one training program.

    ``batches`` are training batches as the step gets them, in order, never written to; ``validation`` a few of the
    validation loader. ``traces`` are of consecutive steps, the first from the very beginning. ``epoch_length`` is the
    number of batches in an epoch, if the loader tells or its end was seen; the first ``of_one_epoch`` batches certainly
    are of the same. ``steps`` counts the steps taken since the first trace began.
    """

    def __init__(
        self,
        model: Model,
        trainer: Trainer,
        batches: Sequence[Any],
        validation: Sequence[Any],
        traces: Sequence[StepTrace],
        *,
        bench: Bench | None = None,
        epoch_length: int | None = None,
        whole_epoch: bool = False,
        of_one_epoch: int | None = None,
        steps: int | None = None,
    ) -> None:
        self.model = model
        self.trainer = trainer
        self.batches = batches
        self.validation = validation
        self.traces = traces
        self.bench = bench
        self.epoch_length = epoch_length
        self.whole_epoch = whole_epoch
        self.of_one_epoch = min(len(batches), epoch_length or 0) if of_one_epoch is None else of_one_epoch
        self.steps = len(traces) if steps is None else steps

    @property
    def trace(self) -> StepTrace:
        """The first step.

        Raises:
            Skip: there is none.
        """
        if not self.traces:
            raise Skip("no step was seen")
        return self.traces[0]

    @property
    def called(self) -> StepTrace:
        """The first step, if its calls could be seen.

        Raises:
            Skip: they could not, as in a compiled model.
        """
        if not self.trace.has_calls:
            raise Skip("the step's calls can't be seen here, as in a compiled or scripted model")
        return self.trace

    @property
    def experiments(self) -> Bench:
        """Where the user's step can be run on the side.

        Raises:
            Skip: only the user's own steps are looked at.
        """
        if self.bench is None:
            raise Skip("needs steps on the side: debugger.preflight() makes them")
        return self.bench

    @cached_property
    def data(self) -> Data:
        """The batches' inputs and targets, put together over batches."""
        return Data.of(self.batches, self.validation, self.traces[0] if self.traces else None)

    @cached_property
    def task(self) -> Task:
        """What is to be learnt, by the loss."""
        return task_of(self.traces[0] if self.traces else None, self.data)

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """Every module, by dotted name."""
        return named_modules(self.model)

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter, by dotted name."""
        return named_parameters(self.model)

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizers by name."""
        return self.trainer.optimizers

    @cached_property
    def optimized(self) -> frozenset[str]:
        """The names of the parameters that some optimizer holds."""
        held = {
            id(each)
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for each in group["params"]
        }
        return frozenset(name for name, parameter in self.parameters.items() if id(parameter) in held)

    @cached_property
    def used(self) -> frozenset[str]:
        """The parameters that took part in the first step's calls, or that its loss reaches."""
        trace = self.trace
        met = {number for call in trace.calls for number in call.inputs}
        sources = {value.source for number, value in trace.values.items() if number in met}
        named = {source.removeprefix("weight ") for source in sources if source.startswith("weight ")}
        return frozenset(named.union(*(backward.reached for backward in trace.backwards)))

    def layer_of(self, parameter: str) -> str:
        """The module that holds a parameter."""
        return parameter.rpartition(".")[0]

    def code_name(self, layer: str) -> str:
        """A layer as it is written in the user's code: ``model.blocks[0].fc``."""
        root = "model"
        for part in layer.split(".") if layer else ():
            root += f"[{part}]" if part.isdigit() else f".{part}"
        return root

    def device(self) -> torch.device:
        """Where the model is."""
        return next((parameter.device for parameter in self.parameters.values()), torch.device("cpu"))
