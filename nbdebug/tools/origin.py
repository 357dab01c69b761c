"""Finds where in a step a value that is not finite came from, by running the step once, watched. Training thread only.

Every operation is seen (:mod:`nbdebug.tools.origin_watch`). Afterwards the way leads back from what came of the step:
a loss that is not finite, else a gradient, else a weight or a state. What did not get there does not matter.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.records.stops import Origin, Phase
from nbdebug.tools.origin_advice import advise
from nbdebug.tools.origin_frames import code_line, fenced
from nbdebug.tools.origin_marks import Cause, bad_part, earliest, unexplained
from nbdebug.tools.origin_sources import Sources
from nbdebug.tools.origin_values import count_bad
from nbdebug.tools.origin_watch import Watch
from nbdebug.training import batches
from nbdebug.training.update import out_of_modes


def find_origin(
    rerun: Callable[[], Any], roots: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer], batch: Any
) -> Origin | None:
    """Run one whole training step once, watched; say where the first non-finite value came from that mattered.

    Weights, generators and whatever else the step changes are the caller's to restore. Compiled modules run eagerly.

    Args:
        rerun: Does the whole step: zero_grad, forward, backward, update. It returns the loss, a mapping with ``"loss"``
            or something with ``.loss``. If it raises, what was seen until then is used.
        roots: The networks by name; a single one has the empty name.
        optimizers: Those that the step may use.
        batch: What the step works on.

    Returns:
        ``None`` where the loss, the gradients, the weights, the buffers and the optimizers' state are all finite
        after the step, or not finite only where they were not before it.
    """
    with out_of_modes(), torch.no_grad():
        sources = Sources(roots, optimizers, batch)
    watch = Watch(sources, _batch_size(batch))
    gradients = _Gradients(watch)
    returned, raised = None, False
    with _watching(watch, gradients, optimizers):
        try:
            returned = fenced(rerun)
        except Exception:  # the user's step may fail of what is looked for; what was seen before that is used
            raised = True
    with out_of_modes(), torch.no_grad():
        cause, in_gradient = _Outcome(watch, sources, gradients).cause(returned, raised=raised)
    return None if cause is None else _origin(cause, sources, watch.steppers, in_gradient=in_gradient)


@contextmanager
def _watching(watch: Watch, gradients: _Gradients, optimizers: Mapping[str, Optimizer]) -> Iterator[None]:
    with ExitStack() as stack:
        for optimizer in optimizers.values():
            stack.callback(optimizer.register_step_pre_hook(gradients.before_step).remove)
            stack.callback(optimizer.register_step_post_hook(gradients.after_step).remove)
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and to import it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(watch)
        yield


class _Gradients:
    """Why gradients were not finite when an optimizer was about to use them. Hooks for its step."""

    def __init__(self, watch: Watch) -> None:
        self.causes: list[Cause] = []
        self._watch = watch

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> Any:
        """With a closure the gradients are looked at whenever it was called."""
        self._watch.began_updating()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self.look(_parameters(optimizer))
            return None
        wrapped = self._wrapped(closure, optimizer)
        return ((args[0], wrapped, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": wrapped})

    def after_step(self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> None:
        """The optimizer's step is over."""
        self._watch.ended_updating()

    def look(self, parameters: list[torch.Tensor]) -> None:
        """Note the causes of the gradients that are not finite now."""
        with out_of_modes(), torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None and bad_part(parameter.grad):
                    cause = self._watch.marks.cause_of(parameter.grad)
                    self.causes.append(cause or unexplained(Phase.BACKWARD, bad_part(parameter.grad)))

    def _wrapped(self, closure: Callable[[], Any], optimizer: Optimizer) -> Callable[[], Any]:
        def evaluate() -> Any:
            with self._watch.updating(on=False):
                loss = closure()
            self.look(_parameters(optimizer))
            return loss

        return evaluate


class _Outcome:
    """What came of the step, and why."""

    def __init__(self, watch: Watch, sources: Sources, gradients: _Gradients) -> None:
        self._watch = watch
        self._sources = sources
        self._gradients = gradients

    def cause(self, returned: Any, *, raised: bool) -> tuple[Cause | None, bool]:
        """The cause, and whether it showed first in the gradients."""
        cause = self._of_loss(_loss(returned))
        if cause is not None:
            return cause, False
        cause = self._of_gradients()
        if cause is not None:
            return cause, True
        cause = self._of_state()
        if cause is None and raised:
            cause = self._watch.read_out or self._watch.last
        return cause, False

    def _of_loss(self, loss: Any) -> Cause | None:
        if isinstance(loss, torch.Tensor):
            kind = bad_part(loss)
            known = self._watch.marks.cause_of(loss) if kind else None
        else:
            is_bad = isinstance(loss, float) and not math.isfinite(loss)
            kind, known = ("nan" if loss != loss else "inf") if is_bad else "", None
        seen = known or self._watch.read_out or self._watch.last_forward
        return (seen or unexplained(Phase.FORWARD, kind)) if kind else None

    def _of_gradients(self) -> Cause | None:
        """As the optimizers got them, and those of parameters that none has used."""
        self._gradients.look([parameter for parameter, _ in self._sources.parameters.values()])
        return earliest(self._gradients.causes)

    def _of_state(self) -> Cause | None:
        """Of weights, buffers and the optimizers' state that are worse than before."""
        weights = [parameter for parameter, _ in self._sources.parameters.values()]
        for parameter, module in self._sources.parameters.values():
            if self._is_worse(parameter):
                self._settle(self._of_tensor(parameter), module)
        buffers = [buffer for buffer, _ in self._sources.buffers.values()]
        states = [tensor for _, _, tensor in self._sources.states()]
        for tensors in (weights, states, buffers):
            worse = [tensor for tensor in tensors if self._is_worse(tensor)]
            found = earliest([self._of_tensor(tensor) for tensor in worse])
            if found is not None:
                return found
        return None

    def _settle(self, cause: Cause, module: str) -> None:
        """An update of which only the result tells whose weights it was for."""
        if cause.phase is Phase.OPTIMIZER and not cause.module_type and module in self._sources.modules:
            cause.module, cause.module_type = module, type(self._sources.modules[module]).__name__

    def _of_tensor(self, tensor: torch.Tensor) -> Cause:
        return self._watch.marks.cause_of(tensor) or unexplained(Phase.OPTIMIZER, bad_part(tensor))

    def _is_worse(self, tensor: torch.Tensor) -> bool:
        return bool(bad_part(tensor)) and count_bad(tensor) > self._sources.bad_before(tensor)


def _loss(returned: Any) -> Any:
    if isinstance(returned, Mapping):
        return returned.get("loss")
    return getattr(returned, "loss", returned)


def _batch_size(batch: Any) -> int:
    try:
        return batches.samples(batch, None)
    except (TypeError, ValueError, IndexError):
        return 0


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _origin(cause: Cause, sources: Sources, steppers: set[CodeType], *, in_gradient: bool) -> Origin:
    line = code_line(cause.spot)
    return Origin(
        phase=cause.phase,
        kind=cause.kind,
        operation=cause.operation,
        module=cause.module,
        module_type=cause.module_type or _loss_function(cause, steppers),
        path=_path(cause.module, sources),
        source=cause.source,
        line=line,
        inner_line=code_line(cause.inner),
        inputs=cause.inputs,
        parameters=cause.parameters,
        samples=cause.samples,
        advice=advise(cause, line.code if line else "", in_gradient=in_gradient),
    )


def _path(module: str, sources: Sources) -> tuple[str, ...]:
    """The modules from the outermost down to this one, without the model itself."""
    parts = module.split(".") if module else []
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return tuple(name for name in names if name in sources.modules)


def _loss_function(cause: Cause, steppers: set[CodeType]) -> str:
    """Outside of all modules: the function at work, unless it is the one that does the whole step."""
    if cause.phase not in (Phase.FORWARD, Phase.BACKWARD):
        return ""
    if cause.spot is not None and cause.spot[0] not in steppers and not cause.spot[0].co_name.startswith("<"):
        return cause.spot[0].co_name
    return cause.functional
