"""A run as a plain Python script, which gives the run's weights bit for bit and needs no nbdebug. Any thread.

Beside the script lies the run's start, a snapshot. The history from there on is inlined: each intervention at its step.
Only what the run used is in its script; :mod:`nbdebug.training.script_template` holds the parts.
"""

from __future__ import annotations

import os
import platform
import re
import textwrap
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from nbdebug.records.commands import ClipMode, Reinitialize, SetKnobs, Skip
from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Intervention, OutsideEdit, Reseed
from nbdebug.training import script_data, script_update, snapshot_file, steps
from nbdebug.training.knobs import Knobs
from nbdebug.training.modules import Model, named_modules
from nbdebug.training.rng import RandomState
from nbdebug.training.script_changes import Writer, effective, interventions_json, words
from nbdebug.training.script_given import Exchanges, Given
from nbdebug.training.script_scene import Deed
from nbdebug.training.script_text import assemble, names_in
from nbdebug.training.script_words import one_line, quoted, wrapped
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.trainer import Trainer

__all__ = ["export", "interventions_json"]
ARGUMENTS = (
    *("modules", "optimizer", "optimizers", "rates", "updates", "batches", "sources", "random_states", "accumulation"),
    *("roots", "schedulers", "schedule", "given", "averages", "loss_fn"),
)
OPTIONAL = ("val_loader", "scheduler", "metrics", "step", "eval_step", "state")


def export(
    path: str | os.PathLike[str],
    *,
    model: Model,
    trainer: Trainer,
    start: Snapshot,
    interventions: Sequence[Intervention],
    end_step: int,
    end_epoch: int,
    reseeded: Mapping[int, RandomState],
    run: str,
    deeds: Mapping[int, Deed] | None = None,
) -> tuple[Path, Path]:
    """Write the script to ``path``, and beside it the run's start; returns both paths.

    ``interventions`` are all from ``start`` to the run's end, after ``end_step`` steps and ``end_epoch`` epochs, in
    their order. ``reseeded`` are the random states that a :class:`Reseed` took over, by the intervention's index; one
    without drew other batches too, as a rerun with a seed does. ``deeds``, also by index, are what was kept of changes;
    without one, the model has to be as it was then.

    Raises:
        CommandError: the run can't be done again by a script, with each reason; or a file can't be written.
    """
    target = Path(path)
    kept = _beside(target)
    exporter = _Exporter(model, trainer, start, interventions, reseeded, deeds or {})
    reasons = exporter.reasons()
    if reasons:
        raise CommandError("\n".join(f"{run!r} can't be exported: {reason}" for reason in reasons))
    random = [reseeded[index] for index in sorted(reseeded)]
    about = {"run": run, "script": target.name, "random": random}
    draft = kept.with_name(f"{kept.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        snapshot_file.write(start, draft, about=about)
        text = exporter.text(run, target.name, kept.name, draft, end=(end_step, end_epoch))
        with snapshot_file.appearing(target) as file:  # both take their places here, or none
            file.write(text.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
            os.replace(draft, kept)
    finally:
        draft.unlink(missing_ok=True)
    return target, kept


def _beside(target: Path) -> Path:
    """Where the start goes.

    Raises:
        CommandError: one of the two is a folder, or the script's own folder is missing.
    """
    if target.is_dir():
        raise CommandError(
            f"can't write a script to {str(target)!r}, which is a folder: give a file's name, such as "
            f"{str(target / 'run.py')!r}"
        )
    kept = target.with_name(f"{target.stem}.start.safetensors")
    if kept.is_dir():
        raise CommandError(f"can't write {str(kept)!r}, which is a folder: give the script another name")
    if not target.parent.is_dir():
        raise CommandError(f"can't write {str(target)!r}: there is no folder {str(target.parent)!r}; make it first")
    return kept


class _Exporter:
    """What the script of one run needs."""

    def __init__(
        self,
        model: Model,
        trainer: Trainer,
        start: Snapshot,
        interventions: Sequence[Intervention],
        reseeded: Mapping[int, RandomState],
        deeds: Mapping[int, Deed],
    ) -> None:
        self._model = model
        self._trainer = trainer
        self._start = start
        self._interventions = interventions
        self._reseeded = reseeded
        self._given = Given.of(trainer, start)
        self._knobs = self._given.scene(Knobs(model, trainer), start)
        self._exchanges = Exchanges(self._given, self._knobs, deeds, interventions)
        self._changes = [effective(made.change.changes) for made in interventions if isinstance(made.change, SetKnobs)]
        self._skips = any(isinstance(made.change, Skip) for made in interventions)
        self._seeds_anew = any(
            isinstance(made.change, Reseed) and index not in reseeded for index, made in enumerate(interventions)
        )
        self._sources = bool(start.data.generators)

    def reasons(self) -> list[str]:
        """Why it can't be exported."""
        found = self._exchanges.reasons()
        found += [
            f"{made.change.what} after step {made.step:,}, which can't be written as a line; go back to before it, or "
            "make the change with the controls"
            for made in self._interventions
            if isinstance(made.change, OutsideEdit)
        ]
        if self._start.modules.lazy:
            found.append(
                "the model's lazy layers had no shape at its start; run the model once on a batch before making the "
                "Debugger"
            )
        if self._stateful and (self._start.data.batch or self._seeds_anew):
            found.append("it goes on within an epoch of a loader that keeps its place by itself")
        if any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")):
            found.append("it trains under torch.autocast, which the script can't know; use it within step=")
        return found + self._unknown_names()

    def _unknown_names(self) -> list[str]:
        """Names in the history that the model and optimizer no longer have."""
        found = []
        for index, made in enumerate(self._interventions):
            scene = self._exchanges.scene(index)
            if isinstance(made.change, SetKnobs):
                changes = effective(made.change.changes)
                groups = {group.name for group in scene.groups}
                found += _missing("parameter group", changes.lr, groups)
                found += _missing("dropout layer", changes.dropout, set(scene.dropout_layers))
            elif isinstance(made.change, Reinitialize) and index not in self._exchanges.deeds:
                found += _missing("layer", dict.fromkeys(made.change.layers, 0.0), set(named_modules(self._model)))
        return list(dict.fromkeys(found))

    # -- what is needed ---------------------------------------------------------------------------------------------

    @property
    def _used(self) -> list[str]:
        """What the trainer was given besides the necessary."""
        given = {name: getattr(self._trainer, name) for name in OPTIONAL}
        given |= {"scheduler": self._given.scheduler, "state": self._given.state}
        return [name for name, value in given.items() if value is not None and value != {}]

    @property
    def _stateful(self) -> bool:
        return bool(getattr(self._start.data, "states", ()))

    @property
    def _clips(self) -> list[ClipMode]:
        used = {changes.clip.mode for changes in self._changes if changes.clip is not None}
        return [mode for mode in (ClipMode.NORM, ClipMode.VALUE) if mode in used | {self._start.knobs.clip.mode}]

    @property
    def _has_factors(self) -> bool:
        set_rates = any(changes.lr is not None for changes in self._changes)
        groups = self._exchanges.groups
        return (set_rates and any(group.scheduled for group in groups)) or any(group.factor != 1.0 for group in groups)

    @property
    def _has_rates(self) -> bool:
        set_rates = any(changes.lr is not None for changes in self._changes)
        several = any(len(scene.groups) > 1 for scene in self._exchanges.scenes)
        return self._has_factors or (set_rates and (several or self._has_rate_tensors))

    @property
    def _has_rate_tensors(self) -> bool:
        return any(isinstance(group.options["lr"], torch.Tensor) for group in self._exchanges.groups)

    @property
    def _simple_rate(self) -> str:
        if self._has_rates:
            return ""
        name = next(iter(self._given.optimizers))
        stays = not isinstance(self._given.optimizer, Mapping) and "swaps" not in self._exchanges.features()
        return f"{'optimizer' if stays else f'optimizers[{quoted(name)}]'}.param_groups[0]"

    @property
    def _update_features(self) -> set[str]:
        return script_update.features(self._start.knobs.update, self._changes)

    def _features(self, json: str, written: str) -> set[str]:
        trainer, start, kept = self._trainer, self._start, self._start.modules
        update = self._update_features
        embeddings = (nn.Embedding, nn.EmbeddingBag)
        modules = named_modules(self._model).values()
        found = {
            "val": trainer.val_loader is not None,
            "closures": trainer.step is not None or any(map(steps.needs_closure, self._exchanges.optimizers)),
            "scaler": trainer.step is not None,
            "sparse": trainer.step is not None or any(m.sparse for m in modules if isinstance(m, embeddings)),
            "own_state_dict": any(isinstance(each, dict) for each in start.optimizers.values()),
            "sources": self._sources,
            "device": trainer.device is not None,
            "stateful": self._stateful,
            "midway": bool(start.data.batch),
            "restart": bool(start.data.batch) or self._seeds_anew or self._skips,
            "states": bool(self._reseeded),
            "cuda": bool(start.random.cuda) or '"device":' in json,
            "others": bool(kept.others),
            "attributes": bool(kept.attributes),
            "plain": bool(kept.plain),
            "extra": bool(kept.extra),
            "changes": bool(written),
            "norm": ClipMode.NORM in self._clips,
            "value": ClipMode.VALUE in self._clips,
            "clip": bool(self._clips) or bool({"layers", "noise"} & update),
            "factor": self._has_factors,
            "rates": self._has_rates,
            "hooks": bool(self._clips) or self._has_factors or bool({"layers", "noise"} & update),
            "reseeded_noise": self._seeds_anew,
            "tensor_lr": self._has_rate_tensors,
            **{name: name in self._used for name in ("metrics", "step", "eval_step", "state")},
        }
        tags = set(re.findall(r'"(\$\w+)":', json))
        data = script_data.features(self._trainer, start, self._changes)
        return {name for name, present in found.items() if present} | self._exchanges.features() | update | data | tags

    # -- the text ---------------------------------------------------------------------------------------------------

    def text(self, run: str, script: str, kept: str, written: Path, *, end: tuple[int, int]) -> str:
        """The whole script; its start is ``written`` already, and will be named ``kept``."""
        with safe_open(written, framework="pt") as file:
            json = file.metadata()[snapshot_file.KEY]
        writer = Writer(
            self._model,
            self._exchanges,
            has_rates=self._has_rates,
            simple_rate=self._simple_rate,
            clips=self._clips,
            states={index: number for number, index in enumerate(sorted(self._reseeded))},
            sources=self._sources,
            cuda=bool(self._start.random.cuda),
            noise="noise" in self._update_features,
        )
        writer.hooks = "hooks" in self._features(json, "")
        writer.smoothed = script_data.smoothed(self._trainer)
        drafted = writer.function(self._interventions, ())
        used = names_in(drafted)
        arguments = [name for name in ARGUMENTS if name in used]
        changed = drafted.count("\n") > 1
        settings = self._start.knobs
        dropout = dict(zip(self._knobs.dropout_layers, settings.dropout, strict=False))
        initial = [*(writer.clip(settings.clip) if settings.clip.mode in self._clips else []), *writer.dropout(dropout)]
        initial += script_update.layer_lines(dict(settings.update.layer_clips))
        initial += script_data.initial(self._trainer, self._start, self._changes)
        features = self._features(json, drafted if changed else "")
        features |= {"initial"} if initial else set()
        features |= {"modules"} if "modules" in arguments or any("modules" in line for line in initial) else set()
        own = {**self._constants(kept, end), **({"intervene": writer.function(self._interventions, arguments)})}
        placeholders = {
            "INITIAL": "\n".join(initial),
            "ARGUMENTS": ", ".join(arguments),
            "BATCHES": "batches" if "restart" in features else "train_loader",
        }
        return f"{self._header(run, script, kept, end)}\n\n{assemble(own, features, placeholders)}"

    def _constants(self, kept: str, end: tuple[int, int]) -> dict[str, str]:
        names = ["model", "optimizer", "loss_fn", "train_loader"]
        names += self._used
        rates = (
            "{" + ", ".join(f"{quoted(name)}: {value!r}" for name, value in each.items()) + "}"
            for each in self._exchanges.rates(self._knobs)
        )
        return {
            "START_FILE": f"START_FILE = Path(__file__).with_name({quoted(kept)})",
            "FIRST": f"FIRST = {(self._start.step, self._start.epoch)}  # steps and whole epochs at the start",
            "LAST": f"LAST = {end}  # and at the end",
            "NEEDED": "\n".join(wrapped("NEEDED = [", map(quoted, names), "]")),
            "THREADS": f"THREADS = {torch.get_num_threads()}",
            "INTERVAL": f"INTERVAL = {quoted(self._given.interval)}  # of the schedule at the start",
            "DEVICE": f"DEVICE = {quoted(str(self._trainer.device))}",
            "RATES": "\n".join(wrapped("RATES = [", rates, "]  # of each parameter group")),
        }

    def _header(self, run: str, script: str, kept: str, end: tuple[int, int]) -> str:
        told = [(made, textwrap.shorten(one_line(words(made.change)), 70, placeholder=" …"))
                for made in self._interventions if words(made.change)]  # fmt: skip
        rows = [(f"{made.step:,}", str(made.epoch), one_line(made.run), text) for made, text in told]
        lines = [
            f"Training that ends in the weights of run {run!r}, bit for bit.",
            "",
            f"    python {script} setup.py --out weights.safetensors",
            "",
            "setup.py is yours: a Python file that makes, under these names, what was given to the Debugger and its",
            "Trainer (see NEEDED below), from the same data. Its weights and random numbers need not be those of the",
            f"run: they come from {kept}, which lies beside this file.",
            "",
            f"From step {self._start.step:,} to step {end[0]:,}, {end[1]} epochs finished. Same bits need the same",
            f"versions and kind of machine: made with torch {torch.__version__}, numpy {np.__version__}, Python "
            f"{platform.python_version()}.",
            "",
            *(
                _table(("after step", "epoch", "run", "changed by hand"), rows)
                if rows
                else ["Nothing was changed by hand."]
            ),
        ]
        text = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        return f'"""{text}\n"""'


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    every = (head, tuple("-" * width for width in widths), *rows)
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]


def _missing(kind: str, given: float | Mapping[str, float] | None, known: set[str]) -> list[str]:
    names = given if isinstance(given, Mapping) else ()
    return [f"there is no {kind} {name!r} any more" for name in names if str(name) not in known]
