"""Exchanging activation functions: each module for one of another kind, in all places where it hangs. Pure planning.

Only modules can be exchanged, and the ``activation`` of transformer layers, be it a function or a module; a function
that a forward calls can't. The in-place flag is kept where the new kind has one; other options are PyTorch's defaults.
No random number is drawn: PReLU begins at its 0.25.

Noisy ReLU is ``nn.RReLU`` (Xu et al. 2015): in training each negative input is multiplied by a slope drawn from
U(1/8, 1/3), in evaluation by their mean. It draws from the run's own generator, as dropout does, has an in-place
form, and a saved model needs nothing but torch. (Nair & Hinton's max(0, x + noise), 2010, is not in torch.)
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.training.modules import Model
from nbdebug.training.surgery_edits import Change, Plan, Setting
from nbdebug.training.surgery_slots import ABSENT, Held, Store
from nbdebug.training.surgery_tree import QUANTIZED, Tree, dotted


class Activation(StrEnum):
    """The kinds that an activation can be exchanged for."""

    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    PRELU = "prelu"
    NOISY_RELU = "noisy_relu"
    ELU = "elu"
    SELU = "selu"
    GELU = "gelu"
    SILU = "silu"
    SOFTPLUS = "softplus"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    IDENTITY = "identity"


KINDS: dict[Activation, Callable[..., nn.Module]] = {
    Activation.RELU: nn.ReLU,
    Activation.LEAKY_RELU: nn.LeakyReLU,
    Activation.PRELU: nn.PReLU,
    Activation.NOISY_RELU: nn.RReLU,
    Activation.ELU: nn.ELU,
    Activation.SELU: nn.SELU,
    Activation.GELU: nn.GELU,
    Activation.SILU: nn.SiLU,
    Activation.SOFTPLUS: nn.Softplus,
    Activation.TANH: nn.Tanh,
    Activation.SIGMOID: nn.Sigmoid,
    Activation.IDENTITY: nn.Identity,
}
WITH_INPLACE = (nn.ReLU, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.SiLU)
BOUNDED = (nn.Sigmoid, nn.Tanh, nn.Softplus, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardtanh, nn.Softsign)
ELEMENTWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.CELU, nn.Hardswish),
    *(nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold, *BOUNDED),
)
ACROSS = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d, nn.GLU)
LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
KEEPING = (nn.TransformerDecoderLayer,)  # a copy of one is given relu, unless it has the attribute itself
FAST_CODE = {Activation.RELU: 1, Activation.GELU: 2}
SCRIPTED_NAMES = frozenset(kind.__name__ for kind in (*ELEMENTWISE, *ACROSS))
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class Target:
    """An activation: a module, or the function that a transformer layer holds, and where it hangs."""

    name: str
    value: Any
    places: tuple[tuple[nn.Module, str], ...]


def activation_layers(model: Model) -> dict[str, nn.Module]:
    """The activation modules by their first dotted name, element by element ones only; ``nn.Identity`` is none."""
    modules = Tree.of(model).modules
    return {name: module for name, module in modules.items() if isinstance(module, ELEMENTWISE)}


def option_mistakes(kind: Activation, options: Mapping[str, Any]) -> list[str]:
    """Why an activation of this kind can't be made with these options, a line for each reason."""
    known = [name for name in inspect.signature(KINDS[kind]).parameters if name not in ("device", "dtype", "args")]
    known = [name for name in known if name != "kwargs"]
    there = f"there are {', '.join(known)}" if known else "it has none"
    found = [f"{kind} has no option {name!r} ({there})" for name in options if name not in known]
    try:
        KINDS[kind](**({} if found else options))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        found.append(f"torch refuses these options of {kind}: {error}")
    return found


def plan_swap(
    model: Model,
    kind: Activation,
    layers: Sequence[str] | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Plan:
    """Exchange the named activations for this kind; all but what makes the output, and ``nn.Identity``, without names.

    ``options`` are without :func:`option_mistakes`. A module that hangs in several places is exchanged in all of them,
    whichever name is given.
    """
    tree = Tree.of(model)
    targets = _targets(tree)
    changes, refused = [], {}
    if layers is None:
        chosen = [t for t in targets if not isinstance(t.value, nn.Identity)]
        refused = {t.name: "it makes the output: name it to exchange it" for t in chosen if _makes_output(tree, t)}
    else:
        chosen = [t for t in targets if any(_called(tree, t, name) for name in layers)]
        unknown = [name for name in layers if not any(_called(tree, t, name) for t in targets)]
        refused = {name: _no_target(tree, name) for name in unknown}
    for target in chosen:
        if target.name in refused:
            continue
        new = _make(tree, target, kind, options)
        reason = _refusal(tree, target, {type(target.value).__name__, type(new).__name__}) or _already(
            target, new, options
        )
        if reason is None:
            changes.append(_change(tree, target, kind, new))
        else:
            refused[target.name] = reason
    return Plan(tuple(changes), refused)


def why_not(model: Model) -> dict[str, str]:
    """Layer by layer, the activations that can't be exchanged, with the reason: functions, gates, fixed code."""
    tree = Tree.of(model)
    found: dict[str, list[str]] = {}
    for name, module in tree.modules.items():
        found.setdefault(name, []).extend(_hard_coded(tree, module))
    for target in _targets(tree):
        reason = _refusal(tree, target, {type(target.value).__name__})
        if reason is not None and not isinstance(target.value, nn.Identity):
            found.setdefault(target.name, []).append(reason)
    return {name: "; ".join(reasons) for name, reasons in found.items() if reasons}


def _hard_coded(tree: Tree, module: nn.Module) -> Iterator[str]:
    if isinstance(module, torch.jit.ScriptModule):
        return
    if isinstance(module, RECURRENT):
        yield "the activations of its gates are part of its kernel"
    elif isinstance(module, ACROSS):
        yield f"{type(module).__name__} works across a dimension, and is no activation of single elements"
    else:
        functions = tree.sources.of(module).functions
        if functions:
            yield f"its forward calls {', '.join(functions)}: only modules can be exchanged, not functions"
        held = [key for key, value in vars(module).items() if _is_function(value) and not isinstance(module, LAYERS)]
        if held:
            yield f"it holds a function as {', '.join(held)}: only modules can be exchanged, not functions"


def _is_function(value: Any) -> bool:
    home = getattr(value, "__module__", None) or ""
    own = callable(value) and not isinstance(value, (nn.Module, type))
    return own and getattr(value, "__name__", "") in KINDS and (home.startswith("torch") or not home)


def _targets(tree: Tree) -> list[Target]:
    """In the model's order."""
    found = []
    for name, module in tree.modules.items():
        scripted = isinstance(module, torch.jit.ScriptModule) and module.original_name in SCRIPTED_NAMES
        hidden = [key for parent, key in tree.holders[module] if vars(parent).get(key, module) is not module]
        if scripted or (isinstance(module, (*ELEMENTWISE, nn.Identity)) and not hidden):
            found.append(Target(name, module, tuple(tree.holders[module])))
        elif isinstance(module, LAYERS) and not isinstance(vars(module).get("activation", module), nn.Module):
            found.append(Target(dotted(name, "activation"), module.activation, ((module, "activation"),)))
    return found


def _called(tree: Tree, target: Target, name: str) -> bool:
    return name in (target.name, *(dotted(tree.names[parent], key) for parent, key in target.places))


def _no_target(tree: Tree, name: str) -> str:
    module = tree.modules.get(name)
    if module is None:
        return "there is no layer of this name"
    return next(_hard_coded(tree, module), f"{type(module).__name__} is no activation that can be exchanged")


def _makes_output(tree: Tree, target: Target) -> bool:
    """Whether it comes last and bounds its output, as what a loss expects often is."""
    return isinstance(target.value, BOUNDED) and next(reversed(tree.modules)) == target.name and bool(target.places)


def _refusal(tree: Tree, target: Target, types: set[str]) -> str | None:
    if not isinstance(target.value, nn.Module):
        layer = target.places[0][0]
        reason = tree.closed(layer)
    else:
        layer = target.value
        reason = tree.closed(layer) or tree.fixed_in_place(layer)
    if reason is None and any(_is_static_quantized(module) for module in tree.modules.values()):
        reason = "the model is quantised: other activations may not take quantised tensors"
    parents = [*tree.ancestors(layer), *({layer} if not isinstance(target.value, nn.Module) else ())]
    return reason or tree.sources.objection(parents, {key for _, key in target.places}, types)


def _is_static_quantized(module: nn.Module) -> bool:
    home = type(module).__module__
    return home.startswith(QUANTIZED) and ".quantized." in home and ".dynamic" not in home


def _already(target: Target, new: nn.Module, chosen: Mapping[str, Any]) -> str | None:
    name = type(new).__name__
    names = getattr(new, "__constants__", ())
    alike = all(getattr(target.value, key, None) == getattr(new, key) for key in names)
    same = type(target.value) is type(new) and (alike or not chosen)
    same |= getattr(target.value, "__name__", "") == name.lower()
    return f"it is {name} already" if same else None


def _make(tree: Tree, target: Target, kind: Activation, chosen: Mapping[str, Any]) -> nn.Module:
    """A new module, in the mode of the one before it."""
    options: dict[str, Any] = dict(chosen)
    if kind is Activation.PRELU:
        nearest = _nearest_parameter(tree, target)
        options |= {} if nearest is None else {"device": nearest.device, "dtype": nearest.dtype}
    new = KINDS[kind](**options)
    if "inplace" not in chosen and getattr(target.value, "inplace", False) is True and isinstance(new, WITH_INPLACE):
        new.inplace = True
    owner = target.value if isinstance(target.value, nn.Module) else target.places[0][0]
    new.train(owner.training)
    return new


def _nearest_parameter(tree: Tree, target: Target) -> nn.Parameter | None:
    """The last floating one before this layer, or else the first: of the device and type of its input."""
    if not isinstance(target.value, nn.Module):
        return next(_floating(target.places[0][0].parameters()), None)
    every = list(tree.modules.values())
    here = every.index(target.value)
    before = (p for module in reversed(every[:here]) for p in _floating(reversed(module._parameters.values())))
    after = (p for module in every[here:] for p in _floating(module._parameters.values()))
    return next(itertools.chain(before, after), None)


def _floating(parameters: Iterable[nn.Parameter | None]) -> Iterator[nn.Parameter]:
    return (
        p for p in parameters if p is not None and (isinstance(p, UninitializedTensorMixin) or p.is_floating_point())
    )


def _change(tree: Tree, target: Target, kind: Activation, new: nn.Module) -> Change:
    names = tuple(dotted(tree.names[parent], key) for parent, key in target.places)
    settings = []
    for place, name in zip(target.places, names, strict=True):
        child, attribute = Held(*place, Store.CHILDREN), Held(*place, Store.ATTRIBUTES)
        settings.append(Setting(child, name, child.get(), new))
        after = new if isinstance(place[0], KEEPING) else ABSENT
        if attribute.get() is not after:
            settings.append(Setting(attribute, name, attribute.get(), after))
    settings += [setting for parent, key in target.places for setting in _told(tree, parent, key, kind)]
    old = target.value if isinstance(target.value, nn.Module) else None
    gone = [] if old is None else [(dotted(target.name, key), p) for key, p in old.named_parameters()]
    removed = tuple((n, p) for n, p in gone if len(tree.owners(p)) == 1)
    return Change(
        target.name,
        names,
        f"{_title(target.value)} → {type(new).__name__}",
        tuple(settings),
        notes=_notes(tree, target, new),
        added=tuple((dotted(target.name, key), p) for key, p in new.named_parameters()),
        removed=removed,
        stopped=tuple(p for _, p in removed),
    )


def _told(tree: Tree, layer: nn.Module, key: str, kind: Activation) -> Iterator[Setting]:
    """What transformers keep beside the activation: which fast path to take in evaluation."""
    if not isinstance(layer, nn.TransformerEncoderLayer) or key != "activation":
        return
    wanted: list[tuple[nn.Module, str, int]] = [(layer, "activation_relu_or_gelu", FAST_CODE.get(kind, 0))]
    if kind not in FAST_CODE:
        above = [each for each in tree.ancestors(layer) if isinstance(each, nn.TransformerEncoder)]
        wanted += [(each, "use_nested_tensor", False) for each in above]
    for module, name, value in wanted:
        slot = Held(module, name, Store.ATTRIBUTES)
        present = slot.get()
        if present != value:
            yield Setting(slot, dotted(tree.names[module], name), present, value)


def _notes(tree: Tree, target: Target, new: nn.Module) -> tuple[str, ...]:
    found = list(tree.notes(target.value if isinstance(target.value, nn.Module) else target.places[0][0]))
    if getattr(target.value, "inplace", False) is True and not getattr(new, "inplace", False):
        found.append(f"it worked in place, {type(new).__name__} does not: code that drops the result sees the input")
    if isinstance(new, nn.PReLU):
        found.append("its slope is a new parameter, which no optimizer has yet; weight decay would pull it to 0")
    if isinstance(new, nn.RReLU):
        found.append("it draws random numbers in training, as dropout does")
    return tuple(found)


def _title(value: Any) -> str:
    return type(value).__name__ if isinstance(value, nn.Module) else str(getattr(value, "__name__", "a function"))
