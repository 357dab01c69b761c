"""Norm layers and biases left out of the weight decay, as an exchange of parts. Training thread, at a safe point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from nbdebug.training.knobs import Knobs
from nbdebug.training.modules import Model
from nbdebug.training.optimizer_groups import DecayGroup, decay_groups, split_decay, split_mistakes
from nbdebug.training.optimizer_state import has_own_state_dict
from nbdebug.training.script_words import quoted, wrapped
from nbdebug.training.trainer import Trainer

Plan = tuple[DecayGroup, ...]


def decay_mistakes(model: Model, trainer: Trainer, name: str) -> list[str]:
    """Why the decay of these optimizers can't be split, a line for each reason."""
    chosen = _chosen(trainer, name)
    if not chosen:
        return [f"no optimizer {name!r}: there are {', '.join(map(repr, trainer.optimizers))}"]
    found = []
    for optimizer in chosen.values():
        if has_own_state_dict(optimizer):
            found.append(f"{type(optimizer).__name__} keeps its state in a way of its own, by its parameter groups")
        found += split_mistakes(optimizer, decay_groups(model, optimizer))
    return list(dict.fromkeys(found))


def split(model: Model, trainer: Trainer, knobs: Knobs, name: str) -> tuple[str, list[str]]:
    """Split what has no :func:`decay_mistakes`; what was left out, in words, and the same as lines of Python."""
    kept = {(id(group.optimizer), group.index): group for group in knobs.groups}
    plans = {key: decay_groups(model, optimizer) for key, optimizer in _chosen(trainer, name).items()}
    lines, decays = [], []
    for key, plan in plans.items():
        optimizer = trainer.optimizers[key]
        mine = [k for k, s in trainer.schedulers.items() if getattr(s, "optimizer", None) is optimizer]
        decays += [float(group["weight_decay"]) for group in optimizer.param_groups]
        lines += script_lines(key, plan, mine)
        sources = [*range(len(optimizer.param_groups)), *(part.index for part in plan if part.is_split)]
        split_decay(optimizer, plan, [trainer.schedulers[k] for k in mine])
        pairs = [((id(optimizer), index), (id(optimizer), source)) for index, source in enumerate(sources)]
        kept |= {place: kept[source] for place, source in pairs if source in kept}
    knobs.refresh()
    for group in knobs.groups:  # by other names now, which they were known by
        if (before := kept.get((id(group.optimizer), group.index))) is not None:
            group.factor, group.first_lr = before.factor, before.first_lr
    count = sum(len(part.exempt) for plan in plans.values() for part in plan)
    later = "" if any(decays) else "; the decay is 0 now, what is set later is for the others alone"
    return f"{count} parameter{'s are' if count > 1 else ' is'} not decayed{later}", lines


def script_lines(optimizer: str, plan: Plan, schedulers: list[str]) -> list[str]:
    """The same in a script: by group, which of its parameters are left out, by place."""
    parts = [repr((part.index, list(part.exempt))) for part in plan if part.exempt]
    held = ", ".join(f"schedulers[{quoted(name)}]" for name in schedulers)
    return wrapped(f"split_decay(optimizers[{quoted(optimizer)}], [", parts, f"], [{held}])")


def _chosen(trainer: Trainer, name: str) -> Mapping[str, Optimizer]:
    optimizers: dict[str, Any] = trainer.optimizers
    return {key: each for key, each in optimizers.items() if not name or key == name}
