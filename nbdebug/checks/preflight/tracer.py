"""Watches one step and writes its trace, changing nothing: no random number, no gradient, no mode. Training thread.

A function mode sees what the user's code and torch's modules call; hooks on modules read outputs; hooks on optimizers
read gradients. What goes wrong in here is kept in ``Tracer.trouble`` and never reaches the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from nbdebug.checks.preflight.freshness import tensor_state
from nbdebug.checks.preflight.hidden import hidden_tensors
from nbdebug.checks.preflight.trace import (
    Arrival,
    Backward,
    Call,
    LayerCall,
    LossCall,
    ModelCall,
    StepTrace,
    Update,
    Value,
)
from nbdebug.probes.hooks import HookSet
from nbdebug.tools.origin_frames import code_line, look_around
from nbdebug.training.aside import copied
from nbdebug.training.modules import Model, named_modules, named_parameters, roots
from nbdebug.training.reach import calls_compiled_code, compares_compiled, has_compiled_code
from nbdebug.training.trainer import Trainer
from nbdebug.training.update import out_of_modes

LOSSES = frozenset(
    {
        *("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"),
        *("l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss", "gaussian_nll_loss", "ctc_loss"),
        *("soft_margin_loss", "multilabel_soft_margin_loss", "multi_margin_loss", "multilabel_margin_loss"),
        *("hinge_embedding_loss",),
    }
)  # fmt: skip
WEIGHTED = frozenset({"cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"})
MEETINGS = frozenset(
    {
        *("sub", "__rsub__", "subtract", "rsub", "mul", "multiply", "gather", "take_along_dim", "__getitem__", "where"),
        *("dist", "pairwise_distance", "cosine_similarity", "dot", "__rmul__", "xlogy"),
        *("masked_select", "masked_fill", "index_select"),
    }
)  # where hand-written losses compare
EXITS = frozenset({"item", "tolist", "numpy", "__array__", "__float__"})
MOST_MEETINGS = 24
MOST_ARRIVALS = 6
MOST_CALLS = 4_000
MOST_MODELS = 16
MOST_KEPT = 4_000_000  # elements of a loss's input or of a network's
MOST_GRADIENTS = 20_000_000
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
    trace = StepTrace(_kept(batch), has_calls=calls)
    tracer = Tracer(trace, model, batch)
    with ExitStack() as stack:
        stack.callback(tracer.end)
        tracer.meet_held(optimizers)
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
        self._numbers: Any = WeakTensorKeyDictionary()
        self._names = {id(module): name for name, module in named_modules(model).items()}
        self._parameters = named_parameters(model)
        self._by_id = {id(parameter): name for name, parameter in self._parameters.items()}
        self._of_batch: set[int] = set()
        self._updating = 0
        self._hooks = HookSet()
        self._before: dict[str, torch.Tensor] = {}
        self._guarded(lambda: self._meet_sources(batch))
        self._guarded(self._note_weights)

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
            self._guarded(lambda: self._note_backward(args[0]))
            return func(*args, **kwargs)
        inputs = self._guarded(lambda: self._numbered((args, kwargs))) or ()
        seen = self._guarded(lambda: self._loss_inputs(name, args, kwargs)) if name in LOSSES else None
        met = self._guarded(lambda: self._meeting(args, kwargs)) if name in MEETINGS else None
        try:
            result = func(*args, **kwargs)
        except Exception:
            if seen is not None:
                self._guarded(lambda: self._note_failed(name, inputs, args, kwargs, seen))
            raise
        self._guarded(lambda: self._note(name, inputs, args, kwargs, result, seen or met, is_loss=seen is not None))
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
        outputs = self._numbered(result)
        if not outputs:
            if name in EXITS and len(self._trace.exits) < MOST_CALLS:
                self._trace.exits.append(self._call(name, inputs, (), args, kwargs))
            return
        call = self._call(name, inputs, outputs, args, kwargs)
        self._trace.calls.append(call)
        for number in outputs:
            self._trace.values[number].calls.append(call.index)
        if not self._of_batch.isdisjoint(inputs):
            self._of_batch.update(number for number in outputs if not self._trace.values[number].learns)
        if is_loss:
            self._trace.losses += self._loss_call(call, seen, result)
        elif seen is not None and not call.layer and len(self._trace.meetings) < MOST_MEETINGS:
            self._trace.meetings += self._loss_call(call, seen, result)

    def _call(self, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...], args: Any, kwargs: Any) -> Call:
        site = look_around(inside_autograd=False)
        layer = next((self._names[id(each)] for each in site.modules if id(each) in self._names), None)
        rest = tuple(_plain(arg) for arg in args if not isinstance(arg, torch.Tensor))
        options = {key: _plain(value) for key, value in kwargs.items() if not isinstance(value, torch.Tensor)}
        return Call(len(self._trace.calls), name, inputs, outputs, rest, options, layer, code_line(site.spot))

    def _note_failed(self, name: str, inputs: tuple[int, ...], args: Any, kwargs: Any, seen: Any) -> None:
        made = self._loss_call(self._call(name, inputs, (), args, kwargs), seen, None)
        self._trace.failed_loss = made[0] if made else None

    def _meeting(self, args: Any, kwargs: Any) -> tuple[Any, Any, Any] | None:
        """What learns, and what comes from the batch without learning, if a call gets one of each."""
        if len(self._trace.meetings) >= MOST_MEETINGS:
            return None
        given = [tensor for _, tensor in leaves([args, kwargs])]
        learning = [tensor for tensor in given if tensor.requires_grad]
        data = [tensor for tensor in given if not tensor.requires_grad and self._number(tensor) in self._of_batch]
        return (learning[0], data[0], None) if learning and data else None

    def _loss_inputs(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        given = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        third = args[2] if len(args) > 2 and name in WEIGHTED else None
        given_weights = (third, kwargs.get("weight"), kwargs.get("pos_weight"))
        weight = next((each for each in given_weights if isinstance(each, torch.Tensor)), None)
        return given, target, weight

    def _loss_call(self, call: Call, seen: tuple[Any, Any, Any], result: Any) -> list[LossCall]:
        given, target, weight = seen
        if not isinstance(given, torch.Tensor):
            return []
        value = float(result.detach()) if isinstance(result, torch.Tensor) and result.numel() == 1 else None
        return [
            LossCall(
                call.name,
                _part(given),
                _part(target) if isinstance(target, torch.Tensor) else None,
                call,
                _part(weight) if isinstance(weight, torch.Tensor) else None,
                value,
                self._number(given),
                self._number(target) if isinstance(target, torch.Tensor) else None,
            )
        ]

    def _note_backward(self, loss: torch.Tensor) -> None:
        stale = self._stale()
        value = float(loss.detach().sum()) if loss.numel() else math.nan
        reached, functions, strangers = self._graph(loss)
        number, place = self._number(loss), len(self._trace.calls)
        self._trace.backwards.append(
            Backward(number, value, reached, stale, place, functions, strangers, self._order())
        )

    def _order(self) -> int:
        return len(self._trace.backwards) + len(self._trace.updates)

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
            if variable is not None and id(variable) in self._by_id:
                found.add(self._by_id[id(variable)])
            elif variable is not None and self._is_stranger(variable):
                strangers[self._number(variable)] = None
            if (custom := getattr(node, "_forward_cls", None)) is not None:
                functions[custom] = None
            queue += [each for each, _ in node.next_functions]
        return frozenset(found), tuple(functions), tuple(strangers)

    def _is_stranger(self, variable: torch.Tensor) -> bool:
        """Whether a leaf that learns was there before the step, and neither model nor optimizers know it."""
        source = self._trace.values[self._number(variable)].source
        if source.startswith("hidden") or (isinstance(variable, nn.Parameter) and not source):
            self._trace.strangers.setdefault(self._number(variable), str(tensor_state(variable)))
            return True
        return False

    # -- tensors ------------------------------------------------------------------------------------------------

    def _note_weights(self) -> None:
        plain = {name: parameter for name, parameter in self._parameters.items() if _is_plain(parameter)}
        small = sum(parameter.numel() for parameter in plain.values()) <= MOST_GRADIENTS
        for name, parameter in plain.items():
            self._trace.norms[name] = float(parameter.detach().abs().float().norm())
            if small:
                self._before[name] = parameter.detach().clone()
        self._trace.stale.update(self._stale())

    def _stale(self) -> dict[str, float]:
        """The norms of gradients that are there."""
        return {
            name: float(parameter.grad.detach().abs().float().norm())
            for name, parameter in self._parameters.items()
            if parameter.grad is not None and parameter.grad.layout is torch.strided
        }

    def meet_held(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Number what optimizers hold and the model does not know."""
        self._guarded(lambda: self._meet_held(optimizers))

    def _meet_held(self, optimizers: Mapping[str, Optimizer]) -> None:
        for name, optimizer in optimizers.items():
            for held in (each for group in optimizer.param_groups for each in group["params"]):
                value = self._trace.values[self._number(held)]
                if not value.source or value.source.startswith("hidden"):
                    value.source = f"held {name}".rstrip()

    def _meet_sources(self, batch: Any) -> None:
        for name, parameter in self._parameters.items():
            self._number(parameter, f"weight {name}")
        for module, prefix in ((module, name) for name, module in named_modules(self._model).items()):
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    self._number(buffer, f"buffer {prefix}.{key}".replace(" .", " "))
        for name, hidden in hidden_tensors(self._model).items():
            self._number(hidden, f"hidden {name}")
        for name, tensor in leaves(batch):
            self._of_batch.add(self._number(tensor, name))

    def _number(self, tensor: torch.Tensor, source: str = "") -> int:
        number = self._numbers.get(tensor)
        if number is None:
            number = len(self._trace.values) + 1
            self._numbers[tensor] = number
            shape = tuple(tensor.shape) if not is_lazy(tensor) and tensor.layout is torch.strided else ()
            learns, leaf = tensor.requires_grad, tensor.is_leaf
            self._trace.values[number] = Value(number, shape, tensor.dtype, learns, source, leaf=leaf)
        return int(number)

    def _numbered(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, torch.Tensor):
            return (self._number(value),)
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
        return tuple(number for part in parts for number in self._numbered(part))

    # -- hooks --------------------------------------------------------------------------------------------------

    def hooks(self, optimizers: Mapping[str, Optimizer], *, modules: bool) -> Iterator[Callable[[], None]]:
        """Hooks on modules and optimizers; what takes each off again."""
        tops = {id(root): name for name, root in roots(self._model).items()}
        self._hooks.begin()
        yield self._hooks.remove
        for name, module in named_modules(self._model).items() if modules else ():
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
            inputs, outputs = self._numbered((args, kwargs)), self._numbered(output)
            made = ModelCall(root, _kept(args), _kept(kwargs), _kept(output), module.training, inputs, outputs)
            self._trace.models.append(made)

    @torch.no_grad()
    def _note_layer(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if len(self._trace.layers) < MOST_CALLS:
            self._trace.layers.append(layer_call(name, module, args, output))
        if len(self._trace.arrivals) < MOST_ARRIVALS:
            self._note_arrival(name, module, args)

    def _note_arrival(self, name: str, module: nn.Module, args: Any) -> None:
        given = next((tensor for _, tensor in leaves(args)), None)
        if given is None or given.layout is not torch.strided or not any(True for _ in module.parameters()):
            return
        if not given.requires_grad and (number := self._number(given)) in self._of_batch:
            kind, place = type(module).__name__, len(self._trace.calls)
            self._trace.arrivals.append(Arrival(name, kind, _part(given), number, place))

    def _before_update(self, name: str) -> Callable[..., None]:
        def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            with_closure = any(callable(arg) for arg in (*args[1:], *kwargs.values()))
            self._updating += not with_closure  # a closure's forward is the user's, and is looked at
            self._guarded(lambda: self._note_update(name, optimizer))

        return hook

    def _note_update(self, name: str, optimizer: Optimizer) -> None:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = {
            self._by_id[id(each)]: each.grad.detach()
            for each in held
            if each.grad is not None and id(each) in self._by_id
        }
        dense = {key: grad for key, grad in gradients.items() if grad.layout is torch.strided}
        small = sum(grad.numel() for grad in dense.values()) <= MOST_GRADIENTS
        norms = {
            key: float((grad.coalesce().values() if grad.is_sparse else grad).abs().float().norm())
            for key, grad in gradients.items()
        }
        kept = {key: grad.clone() for key, grad in dense.items()} if small else {}
        self._trace.updates.append(Update(name, len(self._trace.calls), kept, norms, order=self._order()))

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._updating = max(0, self._updating - 1)

    def end(self) -> None:
        """The step is over: how far parameters moved in it."""
        self._guarded(self._note_moves)
        self._before.clear()

    def _note_moves(self) -> None:
        for name, before in self._before.items():
            now = self._parameters[name].detach()
            if now.shape == before.shape:
                self._trace.moved[name] = float((now - before.to(now.device)).float().norm())


def layer_call(name: str, module: nn.Module, args: Any, output: Any) -> LayerCall:
    """The numbers of one call of a module."""
    first = next((tensor for _, tensor in leaves(output) if tensor.is_floating_point()), None)
    given = next((tensor for _, tensor in leaves(args)), None)
    if first is None or not first.numel():
        shape = () if first is None else tuple(first.shape)
        return LayerCall(name, type(module).__name__, module.training, shape, *(math.nan,) * 5, True, math.nan)
    values = first.detach().float()
    samples = values.reshape(values.shape[0], -1) if values.dim() > 1 and values.shape[0] > 1 else None
    floats = given is not None and given.is_floating_point() and given.numel()
    inputs = given.detach().float() if given is not None and floats and given.dim() > 1 and len(given) > 1 else None
    return LayerCall(
        name,
        type(module).__name__,
        module.training,
        tuple(values.shape),
        float(values.mean()),
        float(values.std(correction=0)),
        float(values.abs().max()),
        float((values == 0).float().mean()),
        float(samples.std(0, correction=0).mean()) if samples is not None else math.nan,
        bool(torch.isfinite(values).all()),
        float(given.detach().float().square().mean().sqrt()) if given is not None and floats else math.nan,
        tuple(given.shape) if given is not None else (),
        float(inputs.std(0, correction=0).mean()) if inputs is not None else math.nan,
    )


def leaves(value: Any, name: str = "batch") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a batch (or whatever holds tensors), each with the way to it, such as ``batch['x']``."""
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    if isinstance(value, Mapping):
        parts = [(f"[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, (tuple, list)):
        parts = [(f"[{index}]", part) for index, part in enumerate(value)]
    elif hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)):
        parts = [(f".{key}", part) for key, part in vars(value).items() if not key.startswith("_")]
    else:
        return
    for way, part in parts[:200]:
        yield from leaves(part, name + way)


def _kept(value: Any) -> Any:
    """A copy, unless it is too large: then of its first samples."""
    size = sum(tensor.numel() for _, tensor in leaves(value))
    return copied(value) if size <= MOST_KEPT else None


def _part(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor; of a large one, of as many of the first samples as may be kept."""
    tensor = tensor.detach()
    if tensor.numel() > MOST_KEPT and tensor.dim():
        tensor = tensor[: max(1, MOST_KEPT * tensor.shape[0] // tensor.numel())]
    return tensor.clone()


def _plain(value: Any) -> Any:
    """An argument that is no tensor, if it is plain; else its type's name."""
    if isinstance(value, (int, float, bool, str, type(None), slice, torch.dtype)):
        return value
    if isinstance(value, (tuple, list)) and len(value) < 20:
        return tuple(_plain(part) for part in value)
    return type(value).__name__


def _is_plain(parameter: nn.Parameter) -> bool:
    return not is_lazy(parameter) and parameter.layout is torch.strided
