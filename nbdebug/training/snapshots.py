"""Snapshots: all that training depends on, copied at a safe point, and put back in place. Training thread only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.optim import Optimizer

from nbdebug.training import module_state, optimizer_state
from nbdebug.training.data import DataCursor, DataPosition
from nbdebug.training.knobs import Knobs, KnobSettings
from nbdebug.training.loss_parts import modules_of
from nbdebug.training.module_state import ModuleState
from nbdebug.training.modules import Model, named_modules, named_parameters, roots
from nbdebug.training.optimizer_options import OPTION_KEYS
from nbdebug.training.rng import RandomState
from nbdebug.training.trainer import Trainer

RANDOM_STATE_BYTES = 20_000
DROPPING = (_DropoutNd, nn.MultiheadAttention, nn.RNNBase)
NORMED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after ``step`` steps of ``run``, ``epoch`` epochs being finished. Holds copies only.

    ``equipment`` is the session's: which optimizer, schedule and modules it is the state of. It goes into no file.
    """

    run: str
    step: int
    epoch: int
    modules: ModuleState
    optimizers: dict[str, Any]
    schedulers: dict[str, Any]
    state: dict[str, Any]
    random: RandomState
    data: DataPosition
    knobs: KnobSettings
    epoch_losses: tuple[tuple[float, int], ...]
    size_bytes: int
    equipment: Any = None


def capture(
    model: Model,
    trainer: Trainer,
    knobs: Knobs,
    cursor: DataCursor,
    *,
    run: str,
    step: int,
    epoch: int,
    epoch_losses: tuple[tuple[float, int], ...] = (),
    equipment: Any = None,
) -> Snapshot:
    """Copy everything. Within the session's turn, so that the global random state is the run's own."""
    modules = module_state.capture(_everything(model, trainer), _others(model, trainer))
    optimizers = {name: optimizer_state.capture(o) for name, o in trainer.optimizers.items()}
    state = {name: copy.deepcopy(entry.state_dict()) for name, entry in trainer.state.items()}
    tensors = [*modules.tensors(), *_tensors_in([optimizers, state])]
    return Snapshot(
        run=run,
        step=step,
        epoch=epoch,
        modules=modules,
        optimizers=optimizers,
        schedulers={name: copy.deepcopy(s.state_dict()) for name, s in trainer.schedulers.items()},
        state=state,
        random=RandomState.capture(),
        data=cursor.position(),
        knobs=knobs.settings(),
        epoch_losses=epoch_losses,
        size_bytes=sum(_bytes(tensor) for tensor in tensors) + RANDOM_STATE_BYTES,
        equipment=equipment,
    )


def restore(snapshot: Snapshot, model: Model, trainer: Trainer, knobs: Knobs, cursor: DataCursor | None) -> None:
    """Put everything back, the global random state included. Within the session's turn.

    Without a ``cursor`` the place in the data is left alone.

    Raises:
        CommandError: before anything is written, where model or optimizer have changed too much since.
    """
    module_state.refuse_if_changed(snapshot.modules, _everything(model, trainer))
    for name, optimizer in trainer.optimizers.items():
        optimizer_state.refuse_if_changed(optimizer, snapshot.optimizers[name])
    for name, optimizer in trainer.optimizers.items():
        optimizer_state.restore(optimizer, snapshot.optimizers[name])
    module_state.restore(snapshot.modules, _everything(model, trainer), _others(model, trainer))
    for name, entry in trainer.state.items():
        entry.load_state_dict(copy.deepcopy(snapshot.state[name]))
    for name, scheduler in trainer.schedulers.items():
        _restore_scheduler(scheduler, snapshot.schedulers[name], trainer)
    knobs.refresh()
    knobs.restore(snapshot.knobs)
    if cursor is not None:
        cursor.restore(snapshot.data)
    snapshot.random.restore()


def unlike(snapshot: Snapshot, model: Model, trainer: Trainer) -> list[str]:
    """How a snapshot differs from what would take it in: tensors, optimizers, schedulers, entries of ``state``."""
    lines = module_state.differences(snapshot.modules, _everything(model, trainer))
    for what, kept, present in (
        ("optimizer", snapshot.optimizers, trainer.optimizers),
        ("scheduler", snapshot.schedulers, trainer.schedulers),
        ("state", snapshot.state, trainer.state),
    ):
        lines += [f"{what} {name!r} is only in the snapshot" for name in kept if name not in present]
        lines += [f"{what} {name!r} is not in the snapshot" for name in present if name not in kept]
    for name, optimizer in trainer.optimizers.items():
        if name in snapshot.optimizers:
            lines += optimizer_state.differences(optimizer, snapshot.optimizers[name])
    return lines


def has_lazy_parts(model: Model) -> bool:
    """Whether some parameter has no shape yet, so that this state could not be come back to."""
    return any(isinstance(p, UninitializedTensorMixin) for p in named_parameters(model).values())


def expected_bytes(model: Model, trainer: Trainer) -> int:
    """About how large a snapshot will be: weights, gradients, and what the optimizers will hold for each parameter."""
    weights = [*named_parameters(_everything(model, trainer)).values(), *_others(model, trainer)]
    buffers = [b for root in _everything(model, trainer).values() for b in root.buffers()]
    learning = [p for p in weights if p.requires_grad and not isinstance(p, UninitializedTensorMixin)]
    known = [p for p in (*weights, *buffers) if not isinstance(p, UninitializedTensorMixin)]
    copies = 1 + max((_states_per_parameter(o) for o in trainer.optimizers.values()), default=0)
    return sum(_bytes(p) for p in known) + copies * sum(_bytes(p) for p in learning) + RANDOM_STATE_BYTES


def _states_per_parameter(optimizer: Optimizer) -> int:
    """How many tensors of a parameter's size an optimizer keeps for it: what it holds, or two before its first step."""
    for parameter, state in optimizer.state.items():
        if isinstance(parameter, torch.Tensor):
            return sum(isinstance(v, torch.Tensor) and v.shape == parameter.shape for v in state.values())
    plain = isinstance(optimizer, torch.optim.SGD) and not any(g["momentum"] for g in optimizer.param_groups)
    return 0 if plain else 1 if isinstance(optimizer, torch.optim.SGD) else 2


Fingerprint = tuple[Any, ...]


def fingerprint(model: Model, trainer: Trainer) -> Fingerprint:
    """By which a change from outside is known. Reads tensors by identity, version, norm and some elements.

    Learning rates, dropout and label smoothing are left out: they are knobs, known by their values.
    """
    everything = _everything(model, trainer)
    modules = named_modules(everything)
    tensors = [*named_parameters(everything).values(), *_others(model, trainer)]
    tensors += [b for root in everything.values() for b in root.buffers()]
    known = [t for t in tensors if not isinstance(t, UninitializedTensorMixin)]
    with torch.no_grad():
        dense = [t for t in known if t.dtype in NORMED and t.layout is torch.strided]
        norms = [float(norm) for norm in torch._foreach_norm(dense)] if dense else []
    return (
        [(id(t), *_identity(t), t.requires_grad) for t in known],
        repr(norms),
        repr([_some_elements(t) for t in dense]),
        [module.training for module in modules.values()],
        repr([pair for pair in module_state.plain_attributes(modules) if not _is_knob(modules, trainer, *pair[0])]),
        [_of_optimizer(optimizer) for optimizer in trainer.optimizers.values()],
        repr([_digest(each.state_dict()) for each in (*trainer.schedulers.values(), *trainer.state.values())]),
    )


def gradient_norms(trainer: Trainer) -> str:
    """By which a change of gradients from outside is known."""
    held = [p.grad for optimizer in trainer.optimizers.values() for p in optimizer_state.parameters_of(optimizer)]
    values = [g.coalesce().values() if g.is_sparse else g for g in held if g is not None]
    norms = [float(torch.linalg.vector_norm(each)) for each in values]
    return repr((len(held), norms, [_some_elements(each) for each in values]))


def _identity(tensor: torch.Tensor) -> tuple[int, int]:
    return (tensor.data_ptr() if tensor.layout is torch.strided else 0, tensor._version)


def _some_elements(tensor: torch.Tensor) -> list[float]:
    if not tensor.is_contiguous():
        return []
    flat = tensor.detach().view(-1)
    return [float(x) for x in flat[:: max(1, flat.numel() // 16)][:16].tolist()]


def _is_knob(modules: dict[str, nn.Module], trainer: Trainer, name: str, key: str) -> bool:
    is_smoothing = key == "label_smoothing" and trainer.smoothing.of_module is modules[name]
    return is_smoothing or (key in ("p", "dropout") and isinstance(modules[name], DROPPING))


def _of_optimizer(optimizer: Optimizer) -> tuple[Any, ...]:
    others = [set(group) - OPTION_KEYS - {"params"} for group in optimizer.param_groups]  # options are knobs
    options = [
        {key: repr(group[key]) for key in sorted(own)}
        for group, own in zip(optimizer.param_groups, others, strict=True)
    ]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    state = [
        [_identity(value) if isinstance(value, torch.Tensor) else _digest(value) for value in _values_of(held)]
        for held in optimizer.state.values()
    ]
    return repr(options), sizes, repr(state)


def _values_of(held: Any) -> list[Any]:
    return list(held.values()) if isinstance(held, Mapping) else [held]


def _digest(value: Any) -> Any:
    """A value so that two readings of the same state are alike; objects of other kinds count by their type alone."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), _some_elements(value) if value.layout is torch.strided else [])
    if isinstance(value, Mapping):
        return [(str(key), _digest(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [_digest(part) for part in value]
    return repr(value) if isinstance(value, (*module_state.PLAIN, bytes)) else type(value).__name__


def _everything(model: Model, trainer: Trainer) -> Mapping[str, nn.Module]:
    """All modules that training can change: the model's, and the loss where it is one."""
    return {**roots(model), **modules_of(trainer.loss_fn)}


def _others(model: Model, trainer: Trainer) -> list[torch.Tensor]:
    """What the optimizers hold besides the parameters of modules."""
    known = {id(p) for p in named_parameters(_everything(model, trainer)).values()}
    held = [p for optimizer in trainer.optimizers.values() for p in optimizer_state.parameters_of(optimizer)]
    return [parameter for parameter in held if id(parameter) not in known]


def _restore_scheduler(scheduler: Any, kept: Any, trainer: Trainer) -> None:
    """Some schedulers write learning rates when they load; those of the snapshot stay."""
    groups = [group for optimizer in trainer.optimizers.values() for group in optimizer.param_groups]
    rates = [optimizer_state.deep_copy(group["lr"]) for group in groups]
    scheduler.load_state_dict(copy.deepcopy(kept))
    for group, rate in zip(groups, rates, strict=True):
        if isinstance(rate, torch.Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate


def _bytes(tensor: torch.Tensor) -> int:
    stored = tensor._values() if tensor.is_sparse else tensor
    return stored.numel() * stored.element_size()


def _tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors_in(part)]
