"""Watches one step and writes its trace, changing nothing: no random number, no gradient, no mode. Training thread.

A function mode sees what the user's code and torch's modules call; hooks on modules read outputs; hooks on optimizers
read gradients. What goes wrong in here is kept in ``Tracer.trouble`` and never reaches the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from nbdebug.checks.preflight.arrivals import WEIGHINGS, Arrivals
from nbdebug.checks.preflight.layer_calls import layer_call
from nbdebug.checks.preflight.leaves import kept, plain
from nbdebug.checks.preflight.loss_calls import LOSSES, MEETINGS, Compared, compared, loss_call, met
from nbdebug.checks.preflight.numbering import Numbering
from nbdebug.checks.preflight.trace import Call, LossCall, ModelCall, StepTrace
from nbdebug.checks.preflight.weights_in_step import WeightsInStep
from nbdebug.probes.hooks import HookSet
from nbdebug.records.stops import CodeLine
from nbdebug.tools.origin_frames import code_line, look_around
from nbdebug.training.modules import Model, named_modules, roots
from nbdebug.training.reach import calls_compiled_code, compares_compiled, has_compiled_code
from nbdebug.training.trainer import Trainer
from nbdebug.training.update import out_of_modes

EXITS = frozenset({"item", "tolist", "numpy", "__array__", "__float__"})
MOST_MEETINGS = 24
MOST_CALLS = 4_000
MOST_MODELS = 16
FAST_IN_EVALUATION = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)


def can_trace_calls(model: Model, trainer: Trainer) -> bool:
    """Whether a function mode changes nothing here: not so for what takes another way where it is watched."""
    if calls_compiled_code(trainer) or compares_compiled(trainer.loss_fn):
        return False
    for module in named_modules(model).values():
        if isinstance(module, torch.jit.ScriptModule) or has_compiled_code(module):
            return False
        if isinstance(module, FAST_IN_EVALUATION) and not module.training:
            return False
    return True


@contextmanager
def traced(model: Model, optimizers: Mapping[str, Optimizer], batch: Any, *, calls: bool = True) -> Iterator[StepTrace]:
    """Within, one step on ``batch`` is taken and written into the trace; without ``calls`` only what hooks can see."""
    trace = StepTrace(kept(batch), has_calls=calls)
    tracer = Tracer(trace, model, batch)
    with ExitStack() as stack:
        stack.callback(tracer.end)
        for remove in tracer.hooks(optimizers, modules=calls):
            stack.callback(remove)
        if calls:
            stack.enter_context(tracer)
        yield trace


class Tracer(TorchFunctionMode):
    """Writes one step's trace."""

    def __init__(self, trace: StepTrace, model: Model, batch: Any) -> None:
        super().__init__()
        self.trouble: Exception | None = None
        self._trace = trace
        self._model = model
        self._modules = named_modules(model)
        self._names = {id(module): name for name, module in self._modules.items()}
        self._numbering = Numbering(trace.values)
        self._weights = WeightsInStep(trace, model, self._numbering)
        self._arrivals = Arrivals(trace, self._numbering, self._modules)
        self._updating = 0
        self._hooks = HookSet()
        self._guarded(lambda: self._numbering.meet(model, batch))
        self._guarded(self._weights.begin)

    # -- the function mode --------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._get_tracing_state():
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if self._updating or len(self._trace.calls) >= MOST_CALLS:
            self._trace.truncated |= not self._updating
            return func(*args, **kwargs)
        if name == "__get__":
            name = f"{getattr(getattr(func, '__self__', None), '__name__', '')}.__get__"
        if name == "backward" and args and isinstance(args[0], torch.Tensor):
            self._guarded(lambda: self._weights.note_backward(args[0], _line()))
            return func(*args, **kwargs)
        inputs = self._guarded(lambda: self._numbering.within((args, kwargs))) or ()
        seen = self._guarded(lambda: compared(args, kwargs, name)) if name in LOSSES else None
        meeting = self._guarded(lambda: self._meeting(args, kwargs)) if name in MEETINGS else None
        try:
            result = func(*args, **kwargs)
        except Exception:
            if seen is not None:
                self._guarded(lambda: self._note_failed(name, inputs, args, kwargs, seen))
            raise
        self._guarded(lambda: self._note(name, inputs, args, kwargs, result, seen or meeting, is_loss=seen is not None))
        return result

    def _guarded(self, look: Callable[[], Any]) -> Any:
        try:
            with out_of_modes(), torch.no_grad():
                return look()
        except Exception as error:  # tensors may be of any kind; the step goes on, watched less closely
            self.trouble = self.trouble or error
            return None

    def _note(
        self, name: str, inputs: tuple[int, ...], args: Any, kwargs: Any, result: Any, seen: Any, *, is_loss: bool
    ) -> None:
        outputs = self._numbering.within(result)
        if not outputs:
            if name in EXITS and len(self._trace.exits) < MOST_CALLS:
                left = self._call(name, inputs, (), args, kwargs)
                left.options["result"] = plain(result)
                self._trace.exits.append(left)
            return
        call = self._call(name, inputs, outputs, args, kwargs)
        self._trace.calls.append(call)
        for number in outputs:
            self._trace.values[number].calls.append(call.index)
        self._numbering.made(inputs, outputs)
        if is_loss:
            self._keep(self._trace.losses, call, seen, result)
        elif seen is not None and not call.layer and len(self._trace.meetings) < MOST_MEETINGS:
            self._keep(self._trace.meetings, call, seen, result)
        if name in WEIGHINGS:
            self._arrivals.at_call(call, args, kwargs, result)

    def _keep(self, where: list[LossCall], call: Call, seen: Compared, result: Any) -> None:
        made = loss_call(call, seen, result, self._numbering)
        where += [made] if made is not None else []

    def _call(self, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...], args: Any, kwargs: Any) -> Call:
        site = look_around(inside_autograd=False)
        layer = next((self._names[id(each)] for each in site.modules if id(each) in self._names), None)
        rest = tuple(plain(arg) for arg in args if not isinstance(arg, torch.Tensor))
        options = {key: plain(value) for key, value in kwargs.items() if not isinstance(value, torch.Tensor)}
        return Call(len(self._trace.calls), name, inputs, outputs, rest, options, layer, code_line(site.spot))

    def _note_failed(self, name: str, inputs: tuple[int, ...], args: Any, kwargs: Any, seen: Compared) -> None:
        self._trace.failed_loss = loss_call(self._call(name, inputs, (), args, kwargs), seen, None, self._numbering)

    def _meeting(self, args: Any, kwargs: Any) -> Compared | None:
        return met(args, kwargs, self._numbering) if len(self._trace.meetings) < MOST_MEETINGS else None

    # -- hooks --------------------------------------------------------------------------------------------------

    def hooks(self, optimizers: Mapping[str, Optimizer], *, modules: bool) -> Iterator[Callable[[], None]]:
        """Hooks on modules and optimizers; what takes each off again."""
        self._guarded(lambda: self._numbering.meet_held(optimizers))
        tops = {id(root): name for name, root in roots(self._model).items()}
        self._hooks.begin()
        yield self._hooks.remove
        for name, module in self._modules.items() if modules else ():
            if id(module) in tops:
                self._hooks.add_with_options(tops[id(module)], module, self._note_model)
            if not any(True for _ in module.children()) and not isinstance(module, torch.jit.ScriptModule):
                self._hooks.add(name, module, self._note_layer)
        for name, optimizer in optimizers.items():
            yield optimizer.register_step_pre_hook(self._before_update(name)).remove
            yield optimizer.register_step_post_hook(self._after_update).remove

    @torch.no_grad()
    def _note_model(self, root: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if len(self._trace.models) < MOST_MODELS:
            inputs, outputs = self._numbering.within((args, kwargs)), self._numbering.within(output)
            made = ModelCall(root, kept(args), kept(kwargs), kept(output), module.training, inputs, outputs)
            self._trace.models.append(made)

    @torch.no_grad()
    def _note_layer(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if len(self._trace.layers) < MOST_CALLS:
            self._trace.layers.append(layer_call(name, module, args, output))
        self._arrivals.at_module(name, module, args, output)

    def _before_update(self, name: str) -> Callable[..., None]:
        def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            with_closure = any(callable(arg) for arg in (*args[1:], *kwargs.values()))
            self._updating += not with_closure  # a closure's forward is the user's, and is looked at
            self._guarded(lambda: self._weights.note_update(name, optimizer))

        return hook

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._updating = max(0, self._updating - 1)

    def end(self) -> None:
        """The step is over."""
        self._guarded(self._weights.end)
        self._weights.let_go()


def _line() -> CodeLine | None:
    """Where the user's code is."""
    return code_line(look_around(inside_autograd=False).spot)
