"""A model's parameters in one step: the gradients that backward finds and updates use, and how far each goes.

Reads alone; training thread.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from nbdebug.checks.preflight.freshness import tensor_state
from nbdebug.checks.preflight.numbering import Numbering
from nbdebug.checks.preflight.trace import Backward, StepTrace, Update
from nbdebug.records.stops import CodeLine
from nbdebug.training.modules import Model, named_parameters

MOST_GRADIENTS = 20_000_000


class WeightsInStep:
    """Writes backward passes, updates and moves into a step's trace."""

    def __init__(self, trace: StepTrace, model: Model, numbering: Numbering) -> None:
        self._trace = trace
        self._numbering = numbering
        self._parameters = named_parameters(model)
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._before: dict[str, torch.Tensor] = {}

    def begin(self) -> None:
        """The step begins: what weights and gradients are like."""
        plain = {name: parameter for name, parameter in self._parameters.items() if _is_plain(parameter)}
        small = sum(parameter.numel() for parameter in plain.values()) <= MOST_GRADIENTS
        for name, parameter in plain.items():
            self._trace.norms[name] = float(parameter.detach().abs().float().norm())
            if small:
                self._before[name] = parameter.detach().clone()
        self._trace.stale.update(self._stale())

    def note_backward(self, loss: torch.Tensor, line: CodeLine | None = None) -> None:
        """``backward`` is about to be called on this tensor, at this line."""
        stale = self._stale()
        value = float(loss.detach().sum()) if loss.numel() else math.nan
        reached, functions, strangers = self._graph(loss)
        number, place = self._numbering.number(loss), len(self._trace.calls)
        self._trace.backwards.append(
            Backward(number, value, reached, stale, place, functions, strangers, self._order(), line)
        )

    def note_update(self, name: str, optimizer: Optimizer) -> None:
        """An optimizer is about to take its step."""
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = {
            self._names[id(each)]: each.grad.detach()
            for each in held
            if each.grad is not None and id(each) in self._names
        }
        dense = {key: grad for key, grad in gradients.items() if grad.layout is torch.strided}
        small = sum(grad.numel() for grad in dense.values()) <= MOST_GRADIENTS
        norms = {
            key: float((grad.coalesce().values() if grad.is_sparse else grad).abs().float().norm())
            for key, grad in gradients.items()
        }
        copies = {key: grad.clone() for key, grad in dense.items()} if small else {}
        self._trace.updates.append(Update(name, len(self._trace.calls), copies, norms, order=self._order()))

    def end(self) -> None:
        """The step is over: how far parameters moved in it."""
        for name, before in self._before.items():
            now = self._parameters[name].detach()
            if now.shape == before.shape:
                self._trace.moved[name] = float((now - before.to(now.device)).float().norm())

    def let_go(self) -> None:
        """Hold no copies any more."""
        self._before.clear()

    def _order(self) -> int:
        return len(self._trace.backwards) + len(self._trace.updates)

    def _stale(self) -> dict[str, float]:
        """The norms of gradients that are there."""
        return {
            name: float(parameter.grad.detach().abs().float().norm())
            for name, parameter in self._parameters.items()
            if parameter.grad is not None and parameter.grad.layout is torch.strided
        }

    def _graph(self, loss: torch.Tensor) -> tuple[frozenset[str], tuple[type, ...], tuple[int, ...]]:
        """The parameters that a graph ends in, the custom functions that are in it, and what else it ends in."""
        found, queue, seen = set[str](), [loss.grad_fn], set[Any]()
        functions: dict[type, None] = {}
        strangers: dict[int, None] = {}
        while queue:
            node = queue.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)
            if variable is not None and id(variable) in self._names:
                found.add(self._names[id(variable)])
            elif variable is not None and self._is_stranger(variable):
                strangers[self._numbering.number(variable)] = None
            if (custom := getattr(node, "_forward_cls", None)) is not None:
                functions[custom] = None
            queue += [each for each, _ in node.next_functions]
        return frozenset(found), tuple(functions), tuple(strangers)

    def _is_stranger(self, variable: torch.Tensor) -> bool:
        """Whether a leaf that learns was there before the step, and neither model nor optimizers know it."""
        number = self._numbering.number(variable)
        source = self._trace.values[number].source
        if source.startswith("hidden") or (isinstance(variable, nn.Parameter) and not source):
            self._trace.strangers.setdefault(number, str(tensor_state(variable)))
            return True
        return False


def _is_plain(parameter: nn.Parameter) -> bool:
    return not is_lazy(parameter) and parameter.layout is torch.strided
