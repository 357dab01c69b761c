"""A step on the side: taken again with somebody looking on, after which everything is as it was. Training thread only.

The user's step runs as it is, update included; what it does outside of torch, such as printing, it does once more.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nbdebug.training import batches, snapshots
from nbdebug.training.data import Held
from nbdebug.training.modules import named_modules, named_parameters
from nbdebug.training.steps import StepResult

if TYPE_CHECKING:
    from nbdebug.training.session import Session


@contextmanager
def aside(session: Session, held: Held) -> Iterator[None]:
    """Within, the step on the held batch can be taken; all that training depends on is put back afterwards."""
    loop, guard, scalers = session.loop, session.stepper.guard, session.stepper.scalers
    with session.turns:
        kept = snapshots.capture(
            session.model,
            session.trainer,
            session.knobs,
            loop.cursor,
            run=session.timeline.current,
            step=loop.step,
            epoch=loop.epoch,
        )
        generators = loop.cursor.generator_states()
        scales = [copy.deepcopy(scaler.state_dict()) for scaler in scalers.all]
        armed, guard.armed = guard.armed, False
        batch, doing = loop.batch, loop.doing
        try:
            loop.cursor.put_random_states_of(held)
            yield
        finally:
            guard.armed, guard.capture = armed, None
            loop.batch, loop.doing = batch, doing
            scalers.forget_the_step()
            for scaler, scale in zip(scalers.all, scales, strict=True):
                scaler.load_state_dict(scale)
            snapshots.restore(kept, session.model, session.trainer, session.knobs, None)
            loop.cursor.set_generators(generators)


def batch_of_its_own(session: Session, held: Held) -> Any:
    """The batch as the model gets it, to be used up: a step may work on it in place."""
    return copied(batches.move(held.batch, session.loop.device))


def take_step(session: Session, batch: Any) -> StepResult:
    """The user's step on this batch, clipping and learning rates as in force. Only within :func:`aside`."""
    hooks = session.stepper.hooks
    hooks.measure_norm = False
    with hooks:
        return session.loop.step_on(batch)


@dataclass
class Reenactment:
    """What a step gave when it was taken again.

    ``gradients`` are by parameter, complete and before the debugger's clipping; ``activations`` those that were asked
    for, one for each call. ``stack`` are the modules at work when ``error`` was raised, from the outermost.
    """

    result: StepResult = field(default_factory=lambda: StepResult(None))
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    activations: dict[str, list[Any]] = field(default_factory=dict)
    error: BaseException | None = None
    stack: tuple[str, ...] = ()

    @property
    def loss(self) -> float | None:
        """The step's loss, if it came to that."""
        loss = self.result.loss
        return None if loss is None else float(loss)


def reenact(session: Session, held: Held, layers: tuple[str, ...] = ()) -> Reenactment:
    """Take the step on the side, keep the gradients and what these layers put out."""
    found = Reenactment()
    modules = named_modules(session.model)
    with aside(session, held), _listening(modules, layers, found):
        session.stepper.guard.capture = lambda optimizer: _keep_gradients(session, optimizer, found)
        try:
            found.result = _detached(take_step(session, batch_of_its_own(session, held)))
        except Exception as error:  # what the user's code raises is part of what one wants to see
            found.error = error
        for name, parameter in named_parameters(session.model).items():
            if name not in found.gradients and parameter.grad is not None:
                found.gradients[name] = parameter.grad.detach().clone()
    return found


def _keep_gradients(session: Session, optimizer: Optimizer, found: Reenactment) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in named_parameters(session.model).items():
        if id(parameter) in held and parameter.grad is not None and name not in found.gradients:
            found.gradients[name] = parameter.grad.detach().clone()


@contextmanager
def _listening(modules: Mapping[str, nn.Module], layers: tuple[str, ...], found: Reenactment) -> Iterator[None]:
    """Hooks that keep outputs, and the stack of modules as it is when something is raised."""
    handles: list[RemovableHandle] = []
    stack: list[str] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            stack.append(name)
            found.stack = tuple(stack)

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if stack and stack[-1] == name:
                stack.pop()
                found.stack = tuple(stack)
            if name in layers:
                found.activations.setdefault(name, []).append(copied(output))

        return hook

    try:
        for name, module in modules.items():
            if not isinstance(module, torch.jit.ScriptModule):
                handles += [
                    module.register_forward_pre_hook(enter(name)),
                    module.register_forward_hook(leave(name)),
                ]
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _detached(result: StepResult) -> StepResult:
    parts = (result.loss, result.output, result.target)
    loss, output, target = (copied(part) for part in parts)
    return StepResult(loss, output, target, result.has_output)


def copied(value: Any) -> Any:
    """The same with tensors of its own, without a graph; what can't be copied is taken as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.is_leaf and value.requires_grad)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(copied(part) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(copied(part) for part in value)
    if isinstance(value, dict):
        made = copy.copy(value)
        made.update({key: copied(part) for key, part in value.items()})
        return made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _copied_object(value)
    return value


def _copied_object(value: Any) -> Any:
    made = copy.copy(value)
    for each in dataclasses.fields(value):
        object.__setattr__(made, each.name, copied(getattr(value, each.name)))
    return made
