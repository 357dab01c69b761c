"""Interventions as lines of Python, and as JSON. Pure functions; the model is only looked at."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from torch.nn.modules.dropout import _DropoutNd

from nbdebug.records.commands import (
    Changes,
    Clip,
    ClipMode,
    EditNorms,
    Freeze,
    OptionValue,
    Reinitialize,
    SetAverage,
    SetKnobs,
    SetSchedule,
    Skip,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
)
from nbdebug.records.runs import Change, Intervention, OutsideEdit, Reseed
from nbdebug.training import initialization, option_knobs, script_data, script_update
from nbdebug.training.initialization import Draw, Function, Operation, Reset, Zero
from nbdebug.training.modules import Model
from nbdebug.training.optimizer_options import MADE_LATER
from nbdebug.training.script_given import Exchanges
from nbdebug.training.script_words import WIDTH, number, one_line, parameter_text, quoted, wrapped

MANY = 3


def words(change: Change) -> str:
    """What was done, in a few words."""
    match change:
        case SetKnobs(changes):
            return str(effective(changes))
        case Reinitialize():
            of = f" of {', '.join(change.layers)}" if change.layers else ""
            kept = ", optimizer state kept" if change.keep_optimizer_state else ""
            return f"init {change.scheme}{of}, seed {change.seed}{kept}"
        case Reseed(seed):
            return f"seed {seed}"
        case SwapOptimizer() | SetSchedule() | SwapActivations() | Freeze() | EditNorms() | SetAverage() | SplitDecay():
            return str(change)
        case Skip():
            return "batch left out"
        case OutsideEdit(what):
            return what


def effective(changes: Changes) -> Changes:
    """These changes; what names no group or layer changes none."""
    return replace(changes, lr=_or_none(changes.lr), dropout=_or_none(changes.dropout))


def _or_none(value: float | Mapping[str, float] | None) -> float | Mapping[str, float] | None:
    return None if isinstance(value, Mapping) and not value else value


def interventions_json(interventions: Sequence[Intervention]) -> str:
    """The history as JSON: a list, an object for each intervention, in their order."""
    return json.dumps([_plain(made) for made in interventions], indent=2, ensure_ascii=False) + "\n"


def _plain(made: Intervention) -> dict[str, Any]:
    return {"run": made.run, "step": made.step, "epoch": made.epoch, **_plain_change(made.change)}


def _plain_change(change: Change) -> dict[str, Any]:
    match change:
        case SetKnobs(changes):
            found: dict[str, Any] = {"kind": "set"}
            if changes.lr is not None:
                found["lr"] = dict(changes.lr) if isinstance(changes.lr, Mapping) else changes.lr
            if changes.clip is not None:
                found["clip"] = _plain_clip(changes.clip)
            if changes.dropout is not None:
                found["dropout"] = dict(changes.dropout) if isinstance(changes.dropout, Mapping) else changes.dropout
            if changes.layer_clips is not None:
                found["clip_layers"] = {name: _plain_clip(clip) for name, clip in changes.layer_clips.items()}
            found |= {
                name: value
                for name in ("gradient_noise", "accumulate")
                if (value := getattr(changes, name)) is not None
            }
            found |= script_data.plain_of(changes)
            for name, value in (changes.options or {}).items():
                found[name] = dict(value) if isinstance(value, Mapping) else value
            return found
        case Reinitialize():
            return {
                "kind": "reinitialize",
                "scheme": str(change.scheme),
                "seed": change.seed,
                "layers": list(change.layers),
                "keep_optimizer_state": change.keep_optimizer_state,
            }
        case Reseed(seed):
            return {"kind": "seed", "seed": seed}
        case SwapOptimizer(kind, lr, options, name):
            rate = list(lr) if isinstance(lr, tuple) else lr
            return {"kind": "optimizer", "to": kind, "lr": rate, "options": dict(options), "name": name}
        case SetSchedule(schedule, over, given):
            chosen = None if schedule is None else {"shape": str(schedule.kind), **schedule.values}
            back = ({"done": over} if over else {}) | ({"given": True} if given else {})
            return {"kind": "schedule", "to": chosen, **back}
        case SwapActivations(kind, layers, options):
            chosen = {"options": dict(options)} if options else {}
            return {"kind": "activation", "to": kind, "layers": list(layers), **chosen}
        case Freeze(frozen, layers, hold_statistics, only):
            return {
                "kind": "freeze" if frozen else "unfreeze",
                "layers": list(layers),
                "hold_statistics": hold_statistics,
                **({"only": list(only)} if only else {}),
            }
        case SetAverage(kind, decay, start, every):
            return {"kind": "average", "by": kind, "decay": decay, "start": start, "every": every}
        case SplitDecay(name):
            return {"kind": "no decay on norms and biases", "optimizer": name}
        case EditNorms(insert, layers, fold):
            return {"kind": "norms", "insert": insert, "layers": list(layers), "fold": fold}
        case Skip():
            return {"kind": "skip"}
        case OutsideEdit(what):
            return {"kind": "edited by hand", "what": what}


def _plain_clip(clip: Clip) -> dict[str, Any]:
    threshold = {} if clip.mode is ClipMode.OFF else {"threshold": clip.threshold}
    return {"mode": str(clip.mode), **threshold}


class Writer:
    """Writes interventions as Python.

    ``simple_rate`` is the expression of the only, unscheduled parameter group, empty where there is more to it;
    ``clips`` the ways of clipping that the script knows; ``states`` the number of each kept random state by the index
    of its intervention; ``hooks`` says that the script acts around updates.
    """

    def __init__(
        self,
        model: Model,
        exchanges: Exchanges,
        *,
        has_rates: bool,
        simple_rate: str,
        clips: Sequence[ClipMode],
        states: Mapping[int, int],
        sources: bool,
        cuda: bool,
        noise: bool = False,
    ) -> None:
        self._model = model
        self._exchanges = exchanges
        self._knobs = exchanges.first
        self._has_rates = has_rates
        self.hooks = False
        self.smoothed = "loss_fn"
        self._simple_rate = simple_rate
        self._clips = clips
        self._states = states
        self._sources = sources
        self._cuda = cuda
        self._noise = noise

    def function(self, interventions: Sequence[Intervention], arguments: Sequence[str]) -> str:
        """The function ``intervene``, which makes each change at its place."""
        lines = [
            f"def intervene(step, epoch{''.join(f', {name}' for name in arguments)}):",
            '    """What was changed by hand after so many steps, so many epochs being finished."""',
        ]
        for (step, epoch), group in groupby(enumerate(interventions), key=lambda pair: (pair[1].step, pair[1].epoch)):
            body = [line for index, made in group for line in self._commented(index, made)]
            if body:
                lines += [f"    if step == {step} and epoch == {epoch}:", *(f"        {line}" for line in body)]
        return "\n".join(lines)

    def change(self, index: int, change: Change) -> list[str]:
        """The lines of one change; none where it has no effect."""
        self._knobs = self._exchanges.scene(index)
        match change:
            case SetKnobs(changes):
                return self._set(effective(changes))
            case Reinitialize():
                return self._reinitialize(index, change)
            case Reseed(seed):
                return self._reseed(index, seed)
            case Skip():
                return ["next(batches)"]
            case (
                SwapOptimizer()
                | SetSchedule()
                | SwapActivations()
                | Freeze()
                | EditNorms()
                | SetAverage()
                | SplitDecay()
            ):
                return self._refit(index, change)
            case OutsideEdit():
                raise ValueError(f"{words(change)} can't be written")

    def clip(self, clip: Clip) -> list[str]:
        """Lines that put a clipping rule in force."""
        limits = {mode: number(clip.threshold) if clip.mode is mode else "None" for mode in self._clips}
        return [f"updates.clip_{mode} = {limit}" for mode, limit in limits.items()]

    def dropout(self, values: Mapping[str, float]) -> list[str]:
        """Lines that set dropout probabilities by layer."""
        lines = []
        by_value: dict[tuple[str, float], list[str]] = {}
        for name, p in values.items():
            attribute = "p" if isinstance(self._knobs.dropout_layers[name], _DropoutNd) else "dropout"
            by_value.setdefault((attribute, float(p)), []).append(name)
        for (attribute, p), names in by_value.items():
            if len(names) > MANY:
                lines += wrapped("for name in [", map(quoted, names), "]:")
                lines.append(f"    modules[name].{attribute} = {number(p)}")
            else:
                lines += [f"modules[{quoted(name)}].{attribute} = {number(p)}" for name in names]
        return lines

    def _commented(self, index: int, made: Intervention) -> list[str]:
        body = self.change(index, made.change)
        told = textwrap.wrap(f"{one_line(made.run)}: {one_line(words(made.change))}", WIDTH - 10)
        return [*(f"# {line}" for line in told), *body] if body else []

    def _set(self, changes: Changes) -> list[str]:
        lines = [] if changes.lr is None else self._rates(changes.lr)
        if changes.clip is not None:
            lines += self.clip(changes.clip)
        if changes.dropout is not None:
            chosen = changes.dropout
            lines += self.dropout(
                chosen if isinstance(chosen, Mapping) else dict.fromkeys(self._knobs.dropout_layers, chosen)
            )
        for name, value in (changes.options or {}).items():
            lines += self._option(name, value)
        return [*lines, *script_update.lines_of(changes), *script_data.lines_of(changes, self.smoothed)]

    def _option(self, name: str, value: OptionValue) -> list[str]:
        """An option of the optimizer, in the groups that are meant, and the buffers that it needs from then on."""
        lines = []
        for group in self._knobs.groups:
            if not option_knobs.is_meant(group.name, name, value):
                continue
            chosen = value[group.name] if isinstance(value, Mapping) else value
            owner = next(key for key, each in self._knobs.trainer.optimizers.items() if each is group.optimizer)
            place = f"optimizers[{quoted(owner)}].param_groups[{group.index}]"
            key, expression = option_knobs.assignments(group, name, chosen)
            lines.append(f"{place}[{quoted(key)}] = {expression.replace('{}', place)}")
            for kind, option, entry in MADE_LATER:
                if isinstance(group.optimizer, kind) and option == name and chosen:
                    lines.append(f'for parameter in {place}["params"]:')
                    lines.append(f"    if parameter in optimizers[{quoted(owner)}].state:")
                    held = f"optimizers[{quoted(owner)}].state[parameter]"
                    fresh = "torch.zeros_like(parameter)"
                    anew = f"{held}[{quoted(entry)}] = {fresh}" if option == "centered" else ""
                    lines.append(f"        {anew or f'{held}.setdefault({quoted(entry)}, {fresh})'}")
        return lines

    def _rates(self, lr: float | Mapping[str, float]) -> list[str]:
        if self._simple_rate:
            value = next(iter(lr.values())) if isinstance(lr, Mapping) else lr
            return [f'{self._simple_rate}["lr"] = {number(value)}']
        if not isinstance(lr, Mapping):
            return [f"set_lr(rates, {number(lr)})"]
        indices = {group.name: index for index, group in enumerate(self._knobs.groups)}
        return [
            f"rates[{indices[name]}].ask({number(value)})  # {one_line(name)}"
            for name, value in ((str(name), value) for name, value in lr.items())
        ]

    def _refit(self, index: int, change: Change) -> list[str]:
        """What was done, and what in the script has to follow it."""
        lines = list(self._exchanges.deeds[index].lines)
        if isinstance(change, SwapOptimizer) and self.hooks:
            lines += [f"updates.watch({line.partition(' = ')[0]})" for line in lines if line.startswith("optimizers[")]
        if isinstance(change, (SwapOptimizer, SetSchedule, SplitDecay)) and self._has_rates:
            options = (
                "{" + ", ".join(f"{quoted(name)}: {value!r}" for name, value in each.items()) + "}"
                for each in self._exchanges.rates(self._knobs)
            )
            lines += wrapped("renew_rates(rates, optimizers, [", options, "])")
        return lines

    def _reinitialize(self, index: int, command: Reinitialize) -> list[str]:
        deed = self._exchanges.deeds.get(index)
        if deed is None:
            planned = initialization.plan(self._model, command.scheme, command.layers)
            operations, names = planned.operations, planned.names
        else:
            operations, names = deed.operations, deed.redrawn
        if not operations:
            return []
        kept = "" if self._cuda else "devices=[]"
        lines = [
            f"with torch.random.fork_rng({kept}), torch.no_grad():",
            f"    torch.manual_seed({command.seed})",
            *(f"    {line}" for operation in operations for line in _operation(operation)),
        ]
        if not command.keep_optimizer_state:
            lines += wrapped("redrawn = [", (parameter_text(*name) for name in names), "]")
            lines.append("forget(optimizers, redrawn)")
        return lines

    def _reseed(self, index: int, seed: int) -> list[str]:
        if index in self._states:
            return [f"set_random_state(random_states[{self._states[index]}])"]
        lines = [f"seed_all({seed})", f"seed_generators(sources, {seed})", "batches.begin_anew(batches.seen)"]
        lines += [script_update.reseeding(seed)] if self._noise else []
        return [line for line in lines if self._sources or "sources" not in line]


def _operation(operation: Operation) -> list[str]:
    match operation:
        case Zero(layer, name):
            return [f"nn.init.zeros_({parameter_text(layer, name)})"]
        case Reset(layer, method, kept):
            copies = (f"{parameter_text(layer, name)}.clone()" for name in kept)
            before = wrapped("kept = [", copies, "]") if kept else []
            after = [f"{parameter_text(layer, name)}.copy_(kept[{index}])" for index, name in enumerate(kept)]
            return [*before, f"modules[{quoted(layer)}].{method}()", *after]
        case Draw(layer, name, function, blocks, transposed, copied):
            whole = parameter_text(layer, name)
            if blocks == 1:
                return _draw(whole, function, transposed=transposed, copied=copied)
            drawn = _draw("block", function, transposed=transposed, copied=copied)
            return [f"for block in {whole}.chunk({blocks}):", *(f"    {line}" for line in drawn)]


def _draw(target: str, function: Function, *, transposed: bool, copied: bool) -> list[str]:
    target += ".transpose(0, 1)" if transposed else ""
    options = f", nonlinearity={quoted(function.nonlinearity)}" if function.nonlinearity else ""
    if copied:
        return [f"drawn = nn.init.{function.name}({target}.contiguous(){options})", f"{target}.copy_(drawn)"]
    return [f"nn.init.{function.name}({target}{options})"]
