"""The part of a snapshot that modules hold: parameters, gradients, buffers, tensor attributes, modes. Training thread.

Values are written into the tensors that the modules already have, so that optimizers and the user's own references
stay good. A buffer that was replaced since (``self.mean = batch``) gets a tensor of its own instead: the one in its
place may be the user's data.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.records.errors import CommandError
from nbdebug.training.modules import named_modules, named_parameters

Key = tuple[str, str]
PLAIN = (bool, int, float, complex, str, type(None))
EVERY_MODULES = frozenset(vars(nn.Module()))
Buffer = tuple["weakref.ref[torch.Tensor] | None", "torch.Tensor | None"]


@dataclass(frozen=True, slots=True)
class ModuleState:
    """Copies only. ``others`` are parameters that an optimizer holds and no module does, in the optimizers' order.

    ``plain`` are the numbers, texts and Nones that modules carry, such as a counter or a batch norm's momentum.

    ``lazy`` says that some parameter had no shape yet, so that this state can't be come back to.
    """

    parameters: dict[str, torch.Tensor]
    others: tuple[torch.Tensor, ...]
    gradients: dict[str, torch.Tensor]
    learning: dict[str, bool]
    buffers: dict[Key, Buffer]
    attributes: dict[Key, torch.Tensor]
    modes: dict[str, bool]
    extra: dict[str, Any]
    lazy: bool
    plain: dict[Key, Any] = field(default_factory=dict)
    other_gradients: tuple[torch.Tensor | None, ...] = ()

    def tensors(self) -> Iterator[torch.Tensor]:
        """All copies, to count their bytes."""
        yield from (*self.parameters.values(), *self.others, *self.gradients.values(), *self.attributes.values())
        yield from (gradient for gradient in self.other_gradients if gradient is not None)
        yield from (copied for _, copied in self.buffers.values() if copied is not None)


def capture(roots: Mapping[str, nn.Module], others: Iterable[torch.Tensor]) -> ModuleState:
    """Copy what these modules and other parameters hold."""
    others = list(others)
    parameters = named_parameters(roots)
    modules = named_modules(roots)
    known = {name: p for name, p in parameters.items() if not isinstance(p, UninitializedTensorMixin)}
    return ModuleState(
        parameters={name: _copy(p) for name, p in known.items()},
        others=tuple(_copy(p) for p in others),
        gradients={name: _copy(p.grad) for name, p in known.items() if p.grad is not None},
        learning={name: p.requires_grad for name, p in parameters.items()},
        buffers={
            (name, key): (None, None) if tensor is None else (weakref.ref(tensor), _copy(tensor))
            for name, module in modules.items()
            for key, tensor in dict(module._buffers.items()).items()
        },
        attributes={(name, key): _copy(tensor) for name, key, tensor in _attributes(modules)},
        modes={name: module.training for name, module in modules.items()},
        extra={name: copy.deepcopy(m.get_extra_state()) for name, m in _with_extra_state(modules).items()},
        lazy=len(known) < len(parameters),
        plain=dict(plain_attributes(modules)),
        other_gradients=tuple(None if p.grad is None else _copy(p.grad) for p in others),
    )


def refuse_if_changed(state: ModuleState, roots: Mapping[str, nn.Module]) -> None:
    """Refuse to restore where modules or parameters of that time are gone."""
    gone = [name for name in state.parameters if name not in named_parameters(roots)]
    gone += [name for name in state.modes if name not in named_modules(roots)]
    if gone:
        raise CommandError(f"can't go back: the model no longer has {', '.join(map(repr, gone[:5]))}")


def differences(state: ModuleState, roots: Mapping[str, nn.Module]) -> list[str]:
    """Which parameters and buffers are missing on one side, or have another shape, a line each."""
    parameters, modules = named_parameters(roots), named_modules(roots)
    here = {name: p for name, p in parameters.items() if not isinstance(p, UninitializedTensorMixin)}
    lines = _unlike(state.parameters, here)
    buffers = {_dotted(n, k): b for n, m in modules.items() for k, b in m._buffers.items() if b is not None}
    kept = {_dotted(*key): copied for key, (_, copied) in state.buffers.items() if copied is not None}
    return lines + _unlike(kept, buffers)


def _unlike(kept: Mapping[str, torch.Tensor], here: Mapping[str, torch.Tensor]) -> list[str]:
    lines = [f"{name} {tuple(kept[name].shape)} is only in the snapshot" for name in kept if name not in here]
    lines += [f"{name} {tuple(here[name].shape)} is not in the snapshot" for name in here if name not in kept]
    return lines + [
        f"{name} is {tuple(kept[name].shape)} in the snapshot and {tuple(here[name].shape)} here"
        for name in kept
        if name in here and kept[name].shape != here[name].shape
    ]


def _dotted(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def restore(state: ModuleState, roots: Mapping[str, nn.Module], others: Iterable[torch.Tensor]) -> None:
    """Put it back."""
    parameters, modules = named_parameters(roots), named_modules(roots)
    others = list(others)
    with torch.no_grad():
        for name, copied in state.parameters.items():
            _write(parameters[name], copied)
        for parameter, copied in zip(others, state.others, strict=False):
            _write(parameter, copied)
        for (name, key), buffer in state.buffers.items():
            _restore_buffer(modules[name], key, *buffer)
    for name, parameter in parameters.items():
        parameter.requires_grad_(state.learning.get(name, parameter.requires_grad))
        gradient = state.gradients.get(name)
        parameter.grad = None if gradient is None else gradient.clone()
    for parameter, gradient in zip(others, state.other_gradients, strict=False):
        parameter.grad = None if gradient is None else gradient.clone()
    for (name, key), value in state.plain.items():
        _restore_plain(modules[name], key, value)
    for (name, key), tensor in state.attributes.items():
        setattr(modules[name], key, tensor.clone())
    for name, flag in state.modes.items():
        modules[name].training = flag
    for name, module in _with_extra_state(modules).items():
        module.set_extra_state(copy.deepcopy(state.extra[name]))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _write(tensor: torch.Tensor, copied: torch.Tensor) -> None:
    if tensor.shape == copied.shape:
        tensor.copy_(copied)
    else:
        tensor.data = copied.clone()


def _restore_buffer(
    module: nn.Module, key: str, original: weakref.ref[torch.Tensor] | None, copied: torch.Tensor | None
) -> None:
    present = module._buffers[key]
    if copied is None:
        module._buffers[key] = None
    elif present is not None and present.shape == copied.shape and _is_still(present, original):
        present.copy_(copied)
    else:
        module._buffers[key] = copied.clone()


def _is_still(present: torch.Tensor, original: weakref.ref[torch.Tensor] | None) -> bool:
    """Whether a buffer is the tensor that was copied; what comes from a file, of another process, has none to be."""
    return original is None or present is original()


def _attributes(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Plain tensors that modules carry from step to step, such as the state of a recurrent net."""
    for name, module in modules.items():
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                yield name, key, value


def plain_attributes(modules: Mapping[str, nn.Module]) -> Iterator[tuple[Key, Any]]:
    """Numbers, texts and Nones that modules carry, but for what every module has."""
    for name, module in modules.items():
        for key, value in vars(module).items():
            if isinstance(value, PLAIN) and key not in EVERY_MODULES:
                yield (name, key), value


def _restore_plain(module: nn.Module, key: str, value: Any) -> None:
    """Put a number or text back where there still is one, or a tensor; what became an object meanwhile stays."""
    present = vars(module).get(key)
    if isinstance(present, (*PLAIN, torch.Tensor)) and (type(present) is not type(value) or present != value):
        setattr(module, key, value)


def _with_extra_state(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    plain = nn.Module.get_extra_state
    return {name: module for name, module in modules.items() if type(module).get_extra_state is not plain}
