"""What is set for the update besides rates and options: layers' clipping, gradient noise, accumulation.

:class:`~nbdebug.training.knobs.Knobs` holds it. Training thread; any thread may ask for mistakes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nbdebug.records.commands import Changes, Clip, ClipMode
from nbdebug.training import layer_clipping, steps
from nbdebug.training.accumulation import Accumulation
from nbdebug.training.gradient_noise import SEED, GradientNoise
from nbdebug.training.modules import Model
from nbdebug.training.numbers import number_mistakes
from nbdebug.training.trainer import Trainer

MODES = {"clip_norm": ClipMode.NORM, "clip_value": ClipMode.VALUE}


@dataclass(frozen=True)
class UpdateSettings:
    """What a snapshot keeps of these; the gradients gathered so far are the modules'."""

    layer_clips: tuple[tuple[str, Clip], ...] = ()
    noise: float = 0.0
    noise_seed: int = SEED
    noise_states: tuple[tuple[str, torch.Tensor], ...] = ()
    accumulate: int = 1
    group: int = 1
    done: int = 0


class UpdateKnobs:
    """The knobs of one model and trainer that act on gradients and updates."""

    def __init__(self, model: Model, trainer: Trainer) -> None:
        self.layer_clips: dict[str, Clip] = {}
        self.noise = GradientNoise()
        self.accumulation = Accumulation()
        self._model = model
        self._trainer = trainer

    @property
    def acts(self) -> bool:
        """Whether gradients are changed by any of these."""
        return bool(self.layer_clips) or self.noise.std > 0

    def clip_layers(self, held: Sequence[torch.nn.Parameter], scale: torch.Tensor | None) -> None:
        """Clip what an optimizer's parameters have of the rules' layers."""
        layer_clipping.clip_layers(self._model, self.layer_clips, held, scale)

    def mistakes(self, changes: Changes) -> list[str]:
        """Why these changes can't be made, a line for each reason."""
        found = []
        if changes.layer_clips is not None:
            found += layer_clipping.layer_mistakes(self._model, self.layer_clips, changes.layer_clips)
            found += [line for name, clip in changes.layer_clips.items() for line in clip_mistakes(clip, name)]
        if changes.gradient_noise is not None:
            found += number_mistakes("gradient_noise", changes.gradient_noise, 0.0, math.inf)
        if changes.accumulate is not None:
            found += self._accumulation_mistakes(changes.accumulate)
        return found

    def apply(self, changes: Changes) -> None:
        """Make changes that have no :meth:`mistakes`."""
        if changes.layer_clips is not None:
            self.layer_clips = layer_clipping.changed(self.layer_clips, changes.layer_clips)
        if changes.gradient_noise is not None:
            self.noise.std = float(changes.gradient_noise)
        if changes.accumulate is not None:
            self.accumulation.every = changes.accumulate

    def settings(self) -> UpdateSettings:
        """For a snapshot."""
        noise, gathered = self.noise, self.accumulation
        return UpdateSettings(
            tuple(self.layer_clips.items()),
            *(noise.std, noise.seed, noise.states()),
            *(gathered.every, gathered.size, gathered.done),
        )

    def restore(self, settings: UpdateSettings) -> None:
        """From a snapshot."""
        self.layer_clips = dict(settings.layer_clips)
        self.noise.restore(settings.noise, settings.noise_seed, settings.noise_states)
        gathered = self.accumulation
        gathered.every, gathered.size, gathered.done = settings.accumulate, settings.group, settings.done

    @property
    def why_not_accumulate(self) -> str:
        """Why batches can't be accumulated, empty where they can."""
        if self._trainer.step is not None:
            return "your own step=... says when the optimizer steps: accumulate there"
        closures = [o for o in self._trainer.optimizers.values() if steps.needs_closure(o)]
        if closures:
            return f"{type(closures[0]).__name__} evaluates a batch as often as it wants within one update"
        return ""

    def _accumulation_mistakes(self, count: Any) -> list[str]:
        found = []
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            found.append(f"accumulate={count!r}: give a whole number of batches for each update, at least 1")
        if self.why_not_accumulate:
            found.append(f"accumulate can't be set: {self.why_not_accumulate}")
        return found


def between(before: Changes, after: Changes) -> dict[str, Any]:
    """The changes that lead from one full set of knobs to another, by field."""
    clips = layer_clipping.difference(before.layer_clips or {}, after.layer_clips or {})
    return {
        "layer_clips": clips or None,
        "gradient_noise": after.gradient_noise if after.gradient_noise != before.gradient_noise else None,
        "accumulate": after.accumulate if after.accumulate != before.accumulate else None,
    }


def parse_layer_clips(options: Mapping[str, Any]) -> tuple[dict[str, Clip] | None, list[str]]:
    """Clipping by layer out of ``clip_norm`` and ``clip_value``, where they are mappings; and what is wrong."""
    found: dict[str, Clip] = {}
    given = {key: options[key] for key in MODES if isinstance(options.get(key), Mapping)}
    mistakes = [
        f"{key}={{}} names no layer: give some, such as {{'fc1': 1.0}}" for key, each in given.items() if not each
    ]
    for key, each in given.items():
        for name, threshold in each.items():
            if threshold is None:
                found.setdefault(name, Clip())
            elif found.get(name, Clip()).mode is not ClipMode.OFF:
                mistakes.append(f"clip_norm and clip_value can't both be on for {name!r}: give one of them")
            else:
                found[name] = Clip(MODES[key], threshold)
    return (found if given else None), mistakes


def clip_mistakes(clip: Clip | None, layer: str | None = None) -> list[str]:
    """Why this can't be a clipping rule; ``layer`` is whose, ``None`` for all gradients."""
    if clip is None or clip.mode is ClipMode.OFF:
        return []
    name = f"clip_{clip.mode}" if layer is None else f"clip_{clip.mode}[{layer!r}]"
    found = number_mistakes(name, clip.threshold, 0.0, math.inf)
    if not found and clip.threshold == 0:
        found = [f"{name}=0 would stop all learning: give a positive threshold, or None to turn clipping off"]
    return found
