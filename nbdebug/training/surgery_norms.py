"""Batch norm put after a layer that lives on, under the names that its parameters have. Pure planning.

The layer stays the same object and gets a subclass of its own class, made for it, whose forward normalises what the
layer gives; the norm is its child ``inserted_norm``. So all names stay, and new ones come below the layer's; whoever
holds the layer, its hooks included, sees the normalised output; ``isinstance`` holds as before, ``type(x) is`` doesn't.
(``nn.Sequential(layer, norm)`` in its place would rename its parameters, an element more in a ``Sequential`` would
renumber the rest, and a hook would not be part of the model.) The norm has the layer's device and mode, its type too
but for half precision, where it is float32; scale 1, shift 0, so that in evaluation the output is the same but for eps.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.training.modules import Model
from nbdebug.training.surgery_edits import Change, Plan, Setting
from nbdebug.training.surgery_flow import Flow, trace
from nbdebug.training.surgery_slots import ABSENT, ClassOf, Held, Store
from nbdebug.training.surgery_tree import Tree, dotted, is_compiled

NORM = "inserted_norm"
BASE = "normed_base"
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
HALF = (torch.float16, torch.bfloat16)
BY_DIMENSIONS: dict[int, Callable[..., nn.Module]] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
ONE_SAMPLE = "a batch of one sample has no statistics"
PASSED = (nn.Dropout, nn.Identity)


def plan_insert_norms(
    model: Model, layers: Sequence[str] | None = None, *, example: Any = None, batch_size: int | None = None
) -> Plan:
    """Put batch norm after the named ``Linear`` and convolution layers; after all where it makes sense, without names.

    With an ``example`` (a model's input, or a tuple of them) one forward pass on the side tells which layers are
    called once, in what shapes, and what follows them; without, the order of the modules has to do. ``batch_size`` is
    that of the training, where known. A ``Linear`` is normed over all but its last dimension.
    """
    tree = Tree.of(model)
    flow = trace(model, example) if example is not None and isinstance(model, nn.Module) else None
    candidates: dict[str, nn.Module] = {
        name: module for name, module in tree.modules.items() if isinstance(module, (nn.Linear, _ConvNd))
    }
    last = _last(candidates, flow)
    refused = {}
    for name in layers or ():
        if name not in candidates:
            refused[name] = _no_layer(tree, name)
    changes = []
    for name, module in candidates.items():
        if layers is not None and name not in layers:
            continue
        reason = _refusal(tree, module, last=module is last, batch_size=batch_size)
        reason = reason or _followed(tree, name, module, flow) or (_misfit(module, flow) if flow else None)
        if reason is None:
            changes.append(_change(tree, name, module))
        else:
            refused[name] = reason
    return Plan(tuple(changes), refused)


def _no_layer(tree: Tree, name: str) -> str:
    module = tree.modules.get(name)
    if module is None:
        return "there is no layer of this name"
    return tree.closed(module) or f"{type(module).__name__} is neither Linear nor a convolution"


def _last(candidates: dict[str, nn.Module], flow: Flow | None) -> nn.Module | None:
    called = [] if flow is None else [module for module, _ in flow.outputs if module in set(candidates.values())]
    return next(reversed(called or list(candidates.values())), None)


def _refusal(tree: Tree, module: nn.Module, *, last: bool, batch_size: int | None) -> str | None:
    """Why nothing can be put after it, whatever the data."""
    parameters = [p for p in module._parameters.values() if p is not None]
    closed = tree.closed(module)
    if closed is not None:
        return closed
    if isinstance(module, LazyModuleMixin) or any(isinstance(p, UninitializedTensorMixin) for p in parameters):
        return "it is lazy: its shape is not known before the first step"
    if NORM in module._modules:
        return "a norm was put after it already"
    if is_compiled(module) or "forward" in vars(module):
        return "its own forward is compiled or replaced: the norm would be passed by"
    if any(isinstance(above, READERS) for above in tree.ancestors(module)):
        return "attention and transformer layers read its weight without calling it"
    if len(tree.holders[module]) > 1 or any(len(tree.owners(p)) > 1 for p in parameters):
        return "it is shared or tied: one norm would mix the statistics of several places"
    if not all(p.is_floating_point() for p in parameters):
        return "batch norm takes real numbers only"
    if batch_size == 1:
        return ONE_SAMPLE
    if last:
        return "it is the last layer, which makes the output"
    return tree.sources.objection(tree.ancestors(module), {key for _, key in tree.holders[module]}, set())


def _followed(tree: Tree, name: str, module: nn.Module, flow: Flow | None) -> str | None:
    """Whether a norm comes after it already."""
    if flow is not None:
        norm = next((taker for taker in flow.takers(module) if isinstance(taker, NORMS)), None)
    else:
        norm = next((each for each in _after(tree, module) if isinstance(each, NORMS)), None)
    return None if norm is None else f"{tree.names[norm]} norms its output already"


def _after(tree: Tree, module: nn.Module) -> Iterator[nn.Module]:
    """What may follow it: the next child of its parent, and one numbered alike there, such as bn2 for conv2."""
    (parent, key) = tree.holders[module][0]
    keys = [each for each, child in parent._modules.items() if child is not None and not isinstance(child, PASSED)]
    following = keys[keys.index(key) + 1 : keys.index(key) + 2]
    number = "".join(filter(str.isdigit, key))
    alike = [each for each in keys if "".join(filter(str.isdigit, each)) == number and each != key and number]
    for other in (*following, *(alike if not isinstance(parent, nn.Sequential) else ())):
        child = parent._modules[other]
        if child is not None:
            yield child


def _misfit(module: nn.Module, flow: Flow) -> str | None:
    """Why its output in the example can't be normed."""
    shape = flow.shape(module)
    if shape is None:
        return "it was not called with the example, or something reads its weight without calling it"
    if flow.calls[module] > 1:
        return f"it is called {flow.calls[module]} times in a pass: the norm would mix the statistics"
    if isinstance(module, _ConvNd) and len(shape) != module.weight.dim():
        return "its input has no dimension of samples"
    return ONE_SAMPLE if shape[0] == 1 or len(shape) < 2 else None


def _change(tree: Tree, name: str, module: Any) -> Change:
    width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    kind = nn.BatchNorm1d if isinstance(module, nn.Linear) else BY_DIMENSIONS[module.weight.dim()]
    dtype = torch.float32 if module.weight.dtype in HALF else module.weight.dtype
    norm = kind(width, device=module.weight.device, dtype=dtype)
    norm.train(module.training)
    base = type(module)
    biased = module.bias is not None
    return Change(
        name,
        tree.places(module),
        f"{base.__name__} → {base.__name__}, {type(norm).__name__}",
        (
            Setting(Held(module, NORM, Store.CHILDREN), dotted(name, NORM), ABSENT, norm),
            Setting(ClassOf(module), name or base.__name__, base, normed_class(base)),
        ),
        notes=(
            *tree.notes(module, leaves=False),
            *(["its own bias has no effect any more: the norm takes the mean away"] if biased else ()),
        ),
        added=tuple((f"{dotted(name, NORM)}.{key}", p) for key, p in norm.named_parameters()),
    )


def normed_class(base: Any) -> Any:
    """The subclass of a layer's class that norms what the layer gives. Copies and pickles as ``base`` and its state."""
    by_last = issubclass(base, nn.Linear)

    def forward(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        output: torch.Tensor = base.forward(self, *args, **kwargs)
        if by_last and output.dim() != 2:
            flat: torch.Tensor = self.inserted_norm(output.reshape(-1, output.shape[-1]))
            return flat.reshape(output.shape)
        normed: torch.Tensor = self.inserted_norm(output)
        return normed

    def reduced(self: Any, protocol: Any) -> Any:
        return _blank, (base,), self.__getstate__() if hasattr(self, "__getstate__") else vars(self)

    body = {"forward": forward, "__reduce_ex__": reduced, "__module__": __name__, BASE: base}
    return types.new_class(f"{base.__name__}BatchNorm", (base,), exec_body=lambda space: space.update(body))


def _blank(base: type) -> Any:
    """One without a state yet."""
    kind = normed_class(base)
    return kind.__new__(kind)


def is_transposed(module: nn.Module) -> bool:
    """Whether the output's channels are the second dimension of the weight."""
    return isinstance(module, _ConvTransposeNd)
