"""Stops: breakpoints by method, and what is at hand where training stands. Any thread; not from within a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.breakpoints.condition import Condition, compile_condition
from nbdebug.records.commands import AddBreakpoint, Command, EditBreakpoint, Outcome, PostMortem, RemoveBreakpoint, Skip
from nbdebug.records.errors import CommandError, ConfigurationError, collect
from nbdebug.records.findings import Severity
from nbdebug.records.signals import Signal
from nbdebug.records.stops import BatchView, Breakpoint, Halt, Origin
from nbdebug.tools import batch_view, origin
from nbdebug.training.arguments import layer_mistakes
from nbdebug.training.aside import Reenactment
from nbdebug.training.breaks import readable_names
from nbdebug.training.modules import Model, named_modules, named_parameters
from nbdebug.training.session import Session
from nbdebug.training.trainer import Trainer

HISTOGRAMS = (Signal.ACTIVATIONS, Signal.GRADIENTS, Signal.WEIGHTS, Signal.BIASES, Signal.CHANGES, Signal.DATA)
OF_STEPS = (Signal.LOSS, Signal.METRIC, Signal.LEARNING_RATE, Signal.UPDATES)
LAYER_SIGNALS = tuple(str(signal) for signal in Signal if signal not in (*HISTOGRAMS, *OF_STEPS))


class Investigator:
    """Looks into a step on the side, for the session."""

    def origin(
        self,
        rerun: Callable[[], Any],
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        batch: Any,
    ) -> Origin | None:
        """Where the first value came from that was not finite; ``rerun`` takes the step."""
        return origin.find_origin(rerun, networks, optimizers, batch)

    def batch_view(self, batch: Any, losses: Sequence[float] | None) -> BatchView | None:
        """A batch as the model sees it, ``losses`` by sample."""
        return batch_view.batch_view(batch, losses=losses)

    def sample_losses(self, loss_fn: Any, output: Any, target: Any) -> list[float] | None:
        """The loss of each sample, where it can be taken alone."""
        return batch_view.sample_losses(loss_fn, output, target)


def reader_of_conditions(model: Model, trainer: Trainer) -> Callable[[str], Condition]:
    """What makes a condition of a text, about this model and trainer."""

    def understand(text: str) -> Condition:
        layers = [name or type(module).__name__ for name, module in named_modules(model).items()]
        return compile_condition(text, readable_names(trainer.measures), layers, LAYER_SIGNALS)

    return understand


@dataclass(frozen=True, slots=True)
class _Seen:
    """A reenactment, and the place that it is of."""

    key: tuple[Any, ...]
    layers: tuple[str, ...]
    found: Reenactment


class Current:
    """The step that training stands at: within it, before its update, at such a stop; else the latest one.

    What is not kept is found by taking the step once more on the side, after which everything is as it was; a ``step``
    of the user's that prints or counts does so once more.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: _Seen | None = None

    @property
    def step(self) -> int:
        """Its number, from 1; 0 before the first."""
        stop = self._session.halts.stop
        return stop.step if stop is not None else self._session.loop.step

    @property
    def batch(self) -> Any:
        """The batch as the model gets it; after an error, the one that raised it."""
        return self._session.loop.batch

    @property
    def stop(self) -> Halt | None:
        """Where and why training stopped, if it stands at a stop."""
        return self._session.halts.stop

    @property
    def origin(self) -> Origin | None:
        """Where a value that is not finite came from, if that is why."""
        stop = self.stop
        return stop.origin if stop is not None else None

    @property
    def loss(self) -> float:
        """The step's loss."""
        stop = self.stop
        if stop is not None and not math.isnan(stop.loss):
            return stop.loss
        if stop is None or not stop.before_update:
            losses = self._session.loop.epoch_losses
            if losses:
                return losses[-1][0]
        loss = self._reenacted().loss
        return math.nan if loss is None else loss

    @property
    def stack(self) -> tuple[str, ...]:
        """The modules at work, from the outermost: where an error was raised, or the first bad value came from."""
        if self.origin is not None:
            return self.origin.path
        return tuple(name for name in self._reenacted().stack if name)

    def module(self, layer: str) -> nn.Module:
        """A layer's module.

        Raises:
            ConfigurationError: there is none of that name.
        """
        modules = named_modules(self._session.model)
        if layer not in modules:
            raise collect(layer_mistakes([layer], modules))
        return modules[layer]

    def grad(self, name: str) -> torch.Tensor:
        """The gradient of a parameter, or of a layer's weight (its first parameter), before the debugger's clipping.

        Raises:
            ConfigurationError: there is none of that name, or it has no parameter.
            CommandError: it had no gradient, or the step can't be gone back to.
        """
        parameter = self._parameter(name)
        gradients = self._reenacted().gradients
        if parameter not in gradients:
            raise CommandError(f"{parameter} had no gradient in step {self.step:,}")
        return gradients[parameter]

    def activation(self, layer: str, call: int = 0) -> Any:
        """What a layer put out in the step; ``call`` counts where it was called several times, -1 is the last.

        Raises:
            ConfigurationError: there is no layer of that name.
            CommandError: it was not called, or the step can't be gone back to.
        """
        self.module(layer)
        found = self._reenacted(layer).activations.get(layer, [])
        if not -len(found) <= call < len(found):
            times = f"{len(found)} times" if found else "never"
            raise CommandError(f"{layer!r} was called {times} in step {self.step:,}")
        return found[call]

    def __repr__(self) -> str:
        stop = self.stop
        if stop is None:
            return f"<step {self.step:,}: batch, loss, grad(layer), activation(layer), module(layer)>"
        where = "before its update" if stop.before_update else "after it"
        return f"<stopped in step {stop.step:,}, {where}: {stop.why}>"

    # -- inside -------------------------------------------------------------------------------------------------

    def _parameter(self, name: str) -> str:
        parameters = named_parameters(self._session.model)
        if name in parameters:
            return name
        modules = named_modules(self._session.model)
        if name not in modules:
            raise collect(layer_mistakes([name], [*modules, *parameters]))
        own = [key for key, _ in modules[name].named_parameters(recurse=False)]
        if not own:
            inside = [each for each in parameters if each.startswith(f"{name}.")]
            more = f": give one of {', '.join(inside[:4])}" if inside else ""
            raise ConfigurationError(f"{name!r} has no parameter of its own{more}")
        chosen = "weight" if "weight" in own else own[0]
        return f"{name}.{chosen}" if name else chosen

    def _reenacted(self, *layers: str) -> Reenactment:
        """The step once more, remembered while training stands where it stands."""
        session = self._session

        def look() -> Reenactment:
            key = (session.timeline.here, self.step, session.knobs.all_asked(), session.stepper.guard.begun)
            seen = self._seen
            if seen is None or seen.key != key or not set(layers) <= set(seen.layers):
                wanted = (*(seen.layers if seen is not None and seen.key == key else ()), *layers)
                seen = self._seen = _Seen(key, wanted, session.halts.reenact(wanted))
            return seen.found

        if not session.at_rest:
            raise CommandError("training is running: pause it, or stop it at a breakpoint, to look into a step")
        found: Reenactment = session.call("looking into a step", look)
        return found


class Stopping:
    """Breakpoints, and what leads on from a stop."""

    _session: Session
    _ask: Callable[[Command], Outcome]

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        """All breakpoints as they stand, with their hits."""
        return self._session.breaks.told

    def break_when(self, condition: str | Callable[[Mapping[str, float]], Any]) -> Breakpoint:
        """Stop when a condition on the signals holds, such as ``"grad_norm > 5 * median(grad_norm, 100)"``.

        It may read ``step``, ``epoch``, ``lr``, ``grad_norm``, ``loss``, metrics by name, ``val_loss``, and, where a
        step was sampled, a layer's signals: ``update_ratio["blocks.2"]``, or ``max(update_ratio)`` over all layers. If
        it reads only the first four, training stops before the update, else after the step; the breakpoint says which.
        A function gets the latest values by name, on the training thread after each step, and stops where it returns
        something true.

        Raises:
            ConfigurationError: the condition can't be understood; the message points at the place.
        """
        if callable(condition):
            function = condition
            made: Breakpoint = self._session.call(
                "a breakpoint", lambda: self._session.breaks.add(AddBreakpoint(), function)
            )
            return made
        if not isinstance(condition, str):
            raise ConfigurationError(
                f"condition={condition!r:.80}: give a text such as 'grad_norm > 10', or a function of the latest values"
            )
        reader_of_conditions(self._session.model, self._session.trainer)(condition)  # raises what is wrong with it
        return self._added(AddBreakpoint(condition))

    def break_at(self, *, step: int | None = None, epoch: int | None = None) -> Breakpoint:
        """Stop in the given step, before its update, or at the end of the given epoch, counted from 1."""
        given = {name: value for name, value in (("step", step), ("epoch", epoch)) if value is not None}
        mistakes = [
            f"{name}={value!r}: give a whole number from 1"
            for name, value in given.items()
            if isinstance(value, bool) or not isinstance(value, int) or value < 1
        ]
        if len(given) != 1:
            mistakes.append("give either a step or an epoch: break_at(step=400)")
        if mistakes:
            raise collect(mistakes)
        return self._added(AddBreakpoint(step=step, epoch=epoch))

    def break_on(self, severity: str | Severity = Severity.WARNING) -> Breakpoint:
        """Stop on a finding at least as severe: ``"info"``, ``"warning"`` or ``"critical"``."""
        if severity not in list(Severity):
            raise ConfigurationError(f"severity={severity!r}: give one of {', '.join(map(repr, map(str, Severity)))}")
        return self._added(AddBreakpoint(severity=str(severity)))

    def enable_breakpoint(self, breakpoint: int | Breakpoint, enabled: bool = True) -> None:
        """Switch a breakpoint on, or off."""
        self._ask(EditBreakpoint(_number(breakpoint), enabled))

    def remove_breakpoint(self, breakpoint: int | Breakpoint) -> None:
        """Take a breakpoint away."""
        self._ask(RemoveBreakpoint(_number(breakpoint)))

    def skip(self) -> Outcome:
        """At a stop, leave the batch at hand out, as if the loader had never given it; ``resume()`` goes on.

        Where the step is over, or raised an error, the model goes back to before it first.

        Raises:
            CommandError: training does not stand at a stop.
        """
        return self._ask(Skip())

    def post_mortem(self) -> Current:
        """After an error in a step: the model as it was before it, its batch at hand; returns ``current``.

        What layers put out until then can be looked at, and ``skip()`` leaves the batch out.

        Raises:
            CommandError: no step has raised an error, or it can't be gone back to.
        """
        self._ask(PostMortem())
        current: Current = self.current  # type: ignore[attr-defined]  # the debugger's
        return current

    def _added(self, command: AddBreakpoint) -> Breakpoint:
        number = int(self._ask(command).made)
        return next(each for each in self.breakpoints if each.number == number)


def _number(breakpoint: int | Breakpoint) -> int:
    if isinstance(breakpoint, Breakpoint):
        return breakpoint.number
    if isinstance(breakpoint, bool) or not isinstance(breakpoint, int):
        raise ConfigurationError(f"breakpoint={breakpoint!r:.80}: give a breakpoint, or its number")
    return breakpoint
