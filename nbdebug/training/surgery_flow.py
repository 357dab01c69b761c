"""What follows what, from one forward pass with an example on the side. Training thread, at a safe point.

The pass is in evaluation mode and without gradients; nothing of it stays, and no random number is used up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.records.errors import CommandError
from nbdebug.training.undisturbed import undisturbed


@dataclass
class Flow:
    """The tensors that went in and out of each module; alive for as long as this is, so that their ids are theirs."""

    inputs: list[tuple[nn.Module, torch.Tensor]] = field(default_factory=list)
    outputs: list[tuple[nn.Module, torch.Tensor]] = field(default_factory=list)
    calls: Counter[nn.Module] = field(default_factory=Counter)

    def shape(self, module: nn.Module) -> tuple[int, ...] | None:
        """Of its first output; ``None`` where it was not called or gave no tensor."""
        return next((tuple(tensor.shape) for each, tensor in self.outputs if each is module), None)

    def makers(self, module: nn.Module) -> list[nn.Module]:
        """The innermost modules whose output this one took in."""
        taken = {id(tensor) for each, tensor in self.inputs if each is module}
        return [each for each, tensor in self.outputs if id(tensor) in taken and each is not module][:1]

    def takers(self, module: nn.Module) -> list[nn.Module]:
        """The modules that took in the very output of this one."""
        made = {id(tensor) for each, tensor in self.outputs if each is module}
        return [each for each, tensor in self.inputs if id(tensor) in made and each is not module]


def trace(model: nn.Module, example: Any) -> Flow:
    """Run ``model(*example)`` for a tuple, ``model(example)`` else, and note what each module gets and gives.

    Raises:
        CommandError: the model is lazy, so that the pass would give it its shapes.
    """
    if any(isinstance(p, UninitializedTensorMixin) for p in model.parameters()):
        raise CommandError("can't try the example: the model is lazy, and has no shapes before the first step")
    flow = Flow()

    def before(module: nn.Module, args: Any) -> None:
        flow.calls[module] += 1
        flow.inputs.extend((module, value) for value in args if isinstance(value, torch.Tensor))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            flow.outputs.append((module, output))

    handles = []
    try:
        with undisturbed(model), torch.compiler.set_stance("force_eager"):
            for module in model.modules():
                if not isinstance(module, torch.jit.ScriptModule):
                    handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
            model.eval()
            model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for handle in handles:
            handle.remove()
    return flow
