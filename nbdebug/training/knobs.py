"""Knobs: what can be changed while training. Reads and sets them; the training thread applies, any thread validates."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from nbdebug.records.commands import Changes, Clip, ClipMode
from nbdebug.records.signals import Series, Signal
from nbdebug.records.status import DropoutLayer, GroupRate, KnobStates, OwnKnob
from nbdebug.training import data_knobs, option_knobs, update_knobs
from nbdebug.training.data_knobs import DataKnobs, DataSettings
from nbdebug.training.modules import Model, named_modules
from nbdebug.training.numbers import number_mistakes
from nbdebug.training.optimizer_groups import is_split_off
from nbdebug.training.optimizer_options import OPTION_NAMES
from nbdebug.training.own_knob import Knob
from nbdebug.training.rates import Rate, RateGroup, leaves, own_rate_tensor, rate_groups, rate_in_force
from nbdebug.training.trainer import Trainer
from nbdebug.training.update_knobs import UpdateKnobs, UpdateSettings, clip_mistakes, parse_layer_clips

NAMES = ("lr", "clip_norm", "clip_value", "dropout", "gradient_noise", "accumulate", *data_knobs.NAMES)
ALIASES = {
    "learning_rate": "lr",
    "clip": "clip_norm",
    "grad_clip": "clip_norm",
    "max_norm": "clip_norm",
    "gradient_clipping": "clip_norm",
    "p": "dropout",
    "drop": "dropout",
    "noise": "gradient_noise",
    "grad_noise": "gradient_noise",
    "gradient_accumulation_steps": "accumulate",
    "accumulate_grad_batches": "accumulate",
    "accumulation": "accumulate",
    "bs": "batch_size",
    "smoothing": "label_smoothing",
    "weights": "loss_weights",
}


@dataclass(frozen=True)
class KnobSettings:
    """What a snapshot keeps of the knobs; learning rates themselves are the optimizer's.

    ``first_rates`` are the groups' rates when they were first seen, which a schedule without a base of its own scales.
    """

    factors: tuple[float, ...]
    clip: Clip
    dropout: tuple[float, ...]
    first_rates: tuple[float, ...] = ()
    own: tuple[tuple[str, float], ...] = ()
    update: UpdateSettings = field(default_factory=UpdateSettings)
    data: DataSettings = field(default_factory=DataSettings)


@dataclass
class Knobs:
    """All knobs of one model and trainer."""

    model: Model
    trainer: Trainer
    clip: Clip = field(default_factory=Clip)
    groups: list[RateGroup] = field(default_factory=list)
    dropout_layers: dict[str, nn.Module] = field(default_factory=dict)
    own: dict[str, Knob] = field(default_factory=dict)
    update: UpdateKnobs = field(init=False)
    data: DataKnobs = field(init=False)
    _last_shares: dict[str, float] = field(default_factory=dict)
    _series: tuple[Series, ...] = ()

    def __post_init__(self) -> None:
        self.update = UpdateKnobs(self.model, self.trainer)
        self.data = DataKnobs(self.trainer)
        self.refresh()

    @property
    def untouched(self) -> bool:
        """Whether no factor is put on any schedule."""
        return all(group.factor == 1.0 for group in self.groups)

    @property
    def series(self) -> tuple[Series, ...]:
        """What :meth:`in_force` returns the values of; the same object until the groups or layers change."""
        return self._series

    def in_force(self) -> tuple[Rate, ...]:
        """The values that a step now runs with; clipping that is off counts as a threshold of infinity.

        A rate that is a tensor on a device is returned as such.
        """
        groups, clip = self.groups, self.clip
        rates: tuple[Rate, ...] = (rate_in_force(groups[0]),) if groups else ()
        if len(groups) > 1:
            rates += tuple(rate_in_force(group) for group in groups)
        norm = clip.threshold if clip.mode is ClipMode.NORM else math.inf
        value = clip.threshold if clip.mode is ClipMode.VALUE else math.inf
        return (*rates, norm, value) if not self.dropout_layers else (*rates, norm, value, self.dropout or 0.0)

    def refresh(self) -> None:
        """Look again at the model and optimizer, which may be others; factors are kept while a group's schedule is."""
        known = {(group.name, id(group.optimizer), group.scheduled): group for group in self.groups}
        self.groups = list(rate_groups(self.trainer))
        for group in self.groups:
            before = known.get((group.name, id(group.optimizer), group.scheduled), group)
            group.factor, group.first_lr = before.factor, before.first_lr
        self.dropout_layers = {name: m for name, m in named_modules(self.model).items() if _drops(m)}
        names = [Series(Signal.LEARNING_RATE)] if self.groups else []
        if len(self.groups) > 1:
            names += [Series(Signal.LEARNING_RATE, group.name) for group in self.groups]
        names += [Series(Signal.CLIP_NORM), Series(Signal.CLIP_VALUE)]
        series = (*names, Series(Signal.DROPOUT)) if self.dropout_layers else tuple(names)
        self._series = self._series if self._series == series else series

    def states(self, init_layers: tuple[str, ...] = ()) -> KnobStates:
        """Every knob's present value."""
        schedulers = {type(s).__name__: None for s in self.trainer.schedulers.values()}
        optimizers = {type(o).__name__: None for o in self.trainer.optimizers.values()}
        return KnobStates(
            groups=tuple(GroupRate(group.name, group.asked, group.in_force) for group in self.groups),
            schedule=", ".join(schedulers),
            clip=self.clip,
            dropout=tuple(DropoutLayer(name, _dropout_of(layer)) for name, layer in self.dropout_layers.items()),
            optimizer=", ".join(optimizers),
            init_layers=init_layers,
            options=option_knobs.knobs(self.groups, self._schedulers),
            own=tuple(OwnKnob(k.name, k.value, k.low, k.high, k.log) for k in self.own.values()),
            layer_clips=tuple(self.update.layer_clips.items()),
            gradient_noise=self.update.noise.std,
            accumulate=self.update.accumulation.every,
            accumulated=self.update.accumulation.done,
            why_not_accumulate=self.update.why_not_accumulate,
            **self.data.states(),
        )

    @property
    def dropout(self) -> float | None:
        """The dropout probability, the mean over layers where they differ; ``None`` without a dropout layer."""
        values = [_dropout_of(layer) for layer in self.dropout_layers.values()]
        if not values:
            return None
        return values[0] if min(values) == max(values) else sum(values) / len(values)

    def mistakes(self, changes: Changes) -> list[str]:
        """Why these changes can't be made, a line for each reason."""
        return [
            *self._rate_mistakes(changes.lr),
            *clip_mistakes(changes.clip),
            *self._dropout_mistakes(changes.dropout),
            *(option_knobs.mistakes(self.groups, self._schedulers, changes.options) if changes.options else ()),
            *self._own_mistakes(changes.own or {}),
            *self.update.mistakes(changes),
            *self.data.mistakes(changes),
        ]

    def apply(self, changes: Changes) -> None:
        """Make changes that have no :meth:`mistakes`. Training thread, safe point."""
        if changes.lr is not None:
            self._set_rates(changes.lr)
        if changes.clip is not None:
            self.clip = changes.clip
        if changes.dropout is not None:
            chosen = changes.dropout
            values = chosen if isinstance(chosen, Mapping) else dict.fromkeys(self.dropout_layers, chosen)
            for name, p in values.items():
                _set_dropout(self.dropout_layers[name], p)
        if changes.options is not None:
            option_knobs.apply(self.groups, changes.options)
        for name, value in (changes.own or {}).items():
            self.own[name].value = float(value)
        self.update.apply(changes)
        self.data.apply(changes)

    def _own_mistakes(self, values: Mapping[str, float]) -> list[str]:
        found = [
            f"no knob {name!r} of your own: there {_list_of(list(self.own))}" for name in values if name not in self.own
        ]
        for name, knob in self.own.items():
            value = values.get(name, knob.value)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not knob.low <= value <= knob.high:
                found.append(f"{name}={value!r} is out of range: from {knob.low:g} to {knob.high:g}")
        return found

    @property
    def _schedulers(self) -> list[Any]:
        return list(leaves(self.trainer.schedulers.values()))

    def all_asked(self) -> Changes:
        """The present value of every knob, as changes that would bring it about."""
        rates = {group.name: group.asked for group in self.groups}
        dropout = {name: _dropout_of(layer) for name, layer in self.dropout_layers.items()}
        own = {name: knob.value for name, knob in self.own.items()}
        options, update = option_knobs.present(self.groups, self._schedulers), self.update
        clips, noise, every = dict(update.layer_clips), update.noise.std, update.accumulation.every
        return Changes(rates, self.clip, dropout, dict(options), own, clips, noise, every, **self.data.asked())

    def difference(self, wanted: Changes) -> Changes:
        """Of what :meth:`all_asked` gave at another time, what is different now; one value where all are alike."""
        return _between(self.all_asked(), wanted)

    def changed_since(self, before: Changes) -> Changes:
        """What is different from what :meth:`all_asked` gave then, as changes that lead from then to now."""
        return _between(before, self.all_asked())

    def settings(self) -> KnobSettings:
        """For a snapshot."""
        dropout = tuple(_dropout_of(layer) for layer in self.dropout_layers.values())
        factors = tuple(group.factor for group in self.groups)
        own = tuple((name, knob.value) for name, knob in self.own.items())
        rates = tuple(group.first_lr for group in self.groups)
        return KnobSettings(factors, self.clip, dropout, rates, own, self.update.settings(), self.data.settings())

    def restore(self, settings: KnobSettings) -> None:
        """From a snapshot; the learning rates come back with the optimizer."""
        for group, factor in zip(self.groups, settings.factors, strict=False):
            group.factor = factor
        for group, rate in zip(self.groups, settings.first_rates, strict=False):
            group.first_lr = rate
        self.clip = settings.clip
        for name, value in settings.own:
            if name in self.own:
                self.own[name].value = value
        for layer, p in zip(self.dropout_layers.values(), settings.dropout, strict=False):
            _set_dropout(layer, p)
        self.update.restore(settings.update)
        self.data.restore(settings.data)

    def _set_rates(self, lr: float | Mapping[str, float]) -> None:
        if isinstance(lr, Mapping):
            by_name = {group.name: group for group in self.groups}
            for name, value in lr.items():
                own_rate_tensor(by_name[str(name)], self.groups)
                by_name[str(name)].ask(value)
            return
        shares = self._shares()
        for group, share in zip(self.groups, shares, strict=True):
            own_rate_tensor(group, self.groups)
            group.ask(lr * share if share != 1.0 else lr)

    def _shares(self) -> list[float]:
        """Each group's rate as a share of the first one's, remembered over a rate of zero."""
        asked = [group.asked for group in self.groups]
        if asked and asked[0] > 0:
            self._last_shares = {group.name: rate / asked[0] for group, rate in zip(self.groups, asked, strict=True)}
        return [self._last_shares.get(group.name, 1.0) for group in self.groups]

    def _rate_mistakes(self, lr: float | Mapping[str, float] | None) -> list[str]:
        if lr is None:
            return []
        if not self.groups:
            return ["lr can't be set: the optimizer's groups have no 'lr'"]
        flat = [group.name for group in self.groups if group.scheduled and group.base == 0]
        if flat:
            return [f"lr can't be set: the schedule of {flat[0] or 'this optimizer'} starts from a rate of 0, and is a "
                    "factor on it; make the optimizer with a rate above 0"]  # fmt: skip
        if not isinstance(lr, Mapping):
            return number_mistakes("lr", lr, 0.0, math.inf)
        names = [group.name for group in self.groups]
        return _named_mistakes("lr", "parameter group", {str(k): v for k, v in lr.items()}, names, 0.0, math.inf)

    def _dropout_mistakes(self, dropout: float | Mapping[str, float] | None) -> list[str]:
        if dropout is None:
            return []
        if not self.dropout_layers:
            return ["dropout can't be set: the model has no dropout layer (functional dropout can't be seen)"]
        if not isinstance(dropout, Mapping):
            return number_mistakes("dropout", dropout, 0.0, 1.0)
        return _named_mistakes("dropout", "dropout layer", dropout, list(self.dropout_layers), 0.0, 1.0)


def parse(options: Mapping[str, Any], own: Collection[str] = ()) -> tuple[Changes, list[str]]:
    """Keyword arguments of ``debugger.set`` as changes, and what is wrong with them in words.

    ``clip_norm=None`` and ``clip_value=None`` turn clipping off; as mappings they are by layer. Unknown names come with
    the nearest right one.
    """
    known = (*NAMES, *OPTION_NAMES, *own)
    mistakes = [_unknown(name, known) for name in options if name not in known]
    others = option_knobs.parse({name: value for name, value in options.items() if name in OPTION_NAMES[1:]})
    options = {name: _plain(value) for name, value in options.items()}
    layer_clips, wrong = parse_layer_clips(options)
    modes = {key: mode for key, mode in update_knobs.MODES.items() if not isinstance(options.get(key), Mapping)}
    on = [Clip(mode, options[key]) for key, mode in modes.items() if options.get(key) is not None]
    if len(on) == 2:
        mistakes.append("clip_norm and clip_value can't both be on: give one of them")
    mine = {name: value for name, value in options.items() if name in own}
    nones = [name for name in NAMES if name not in update_knobs.MODES and name in options and options[name] is None]
    mistakes += [f"{name} can't be None: leave it out to keep it as it is" for name in nones]
    clip = (on[0] if on else Clip()) if any(key in options for key in modes) else None
    changes = Changes(
        *(options.get("lr"), clip, options.get("dropout"), others or None, mine or None, layer_clips),
        *(options.get("gradient_noise"), options.get("accumulate")),
        **data_knobs.parse(options),
    )
    return changes, mistakes + wrong


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's own; names of layers and groups as text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.dim() == 0):
        return value.item()
    return value


def _unknown(name: str, known: tuple[str, ...]) -> str:
    near = ALIASES.get(name) or next(iter(difflib.get_close_matches(name, known, 1, 0.4)), None)
    hint = f": did you mean {near!r}?" if near else ""
    return f"unknown knob {name!r}{hint} (there are {', '.join(NAMES)}, and the optimizer's options)"


def _drops(module: nn.Module) -> bool:
    return isinstance(module, (_DropoutNd, nn.MultiheadAttention)) or (
        isinstance(module, nn.RNNBase) and module.num_layers > 1
    )


def _dropout_of(module: Any) -> float:
    return float(module.p if isinstance(module, _DropoutNd) else module.dropout)


def _set_dropout(module: Any, p: float) -> None:
    if isinstance(module, _DropoutNd):
        module.p = float(p)
    else:
        module.dropout = float(p)


def _between(before: Changes, after: Changes) -> Changes:
    """The changes that lead from one full set of knobs to another."""
    return Changes(
        lr=_differing(before.lr, after.lr),
        clip=after.clip if after.clip != before.clip else None,
        dropout=_differing(before.dropout, after.dropout),
        options=_differing_options(before.options or {}, after.options or {}),
        own={name: v for name, v in (after.own or {}).items() if (before.own or {}).get(name, v) != v} or None,
        **update_knobs.between(before, after),
        **data_knobs.between(before, after),
    )


def _differing(present: Any, wanted: Any) -> float | dict[str, float] | None:
    changed = {name: value for name, value in wanted.items() if present.get(name, value) != value}
    same_for_all = len(changed) == len(wanted) and len(set(changed.values())) == 1
    same_for_all &= not any(map(is_split_off, wanted))  # what is set for all need not be for those
    return next(iter(changed.values())) if changed and same_for_all else changed or None


def _differing_options(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any] | None:
    found = {name: _differing(before[name], values) for name, values in after.items() if name in before}
    return {name: value for name, value in found.items() if value is not None} or None


def _named_mistakes(
    knob: str, kind: str, values: Mapping[str, float], names: list[str], low: float, high: float
) -> list[str]:
    mistakes = [] if values else [f"{knob}={{}} names no {kind}: there {_list_of(names)}"]
    for name, value in values.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.4)
            hint = f": did you mean {near[0]!r}?" if near else f" (there {_list_of(names)})"
            mistakes.append(f"no {kind} {name!r}{hint}")
        mistakes += number_mistakes(f"{knob}[{name!r}]", value, low, high)
    return mistakes


def _list_of(names: list[str]) -> str:
    return f"are {', '.join(map(repr, names))}" if len(names) > 1 else f"is only {names[0]!r}"
