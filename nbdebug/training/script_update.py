"""What is set for the update, as lines and features of an exported script. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nbdebug.records.commands import Changes, Clip, ClipMode
from nbdebug.training.script_words import number, quoted
from nbdebug.training.update_knobs import UpdateSettings


def lines_of(changes: Changes) -> list[str]:
    """Lines that make these changes."""
    lines = layer_lines(changes.layer_clips or {})
    if changes.gradient_noise is not None:
        lines.append(f"updates.noise.std = {number(changes.gradient_noise)}")
    if changes.accumulate is not None:
        lines.append(f"accumulation.every = {changes.accumulate}")
    return lines


def layer_lines(rules: Mapping[str, Clip]) -> list[str]:
    """Lines that put layers' clipping rules in force, or take them away."""
    return [
        f"updates.layer_clips.pop({quoted(name)}, None)"
        if clip.mode is ClipMode.OFF
        else f"updates.layer_clips[{quoted(name)}] = ({quoted(str(clip.mode))}, {number(clip.threshold)})"
        for name, clip in rules.items()
    ]


def reseeding(seed: int) -> str:
    """The line that draws other noise."""
    return f"updates.noise.reseed({seed})"


def features(start: UpdateSettings, made: Sequence[Changes]) -> set[str]:
    """What of this a script needs."""
    rules = [clip for changes in made for clip in (changes.layer_clips or {}).values()]
    kinds = {clip.mode for clip in (*rules, *dict(start.layer_clips).values())}
    found = {
        "layers": bool(kinds),
        "layer_norm": ClipMode.NORM in kinds,
        "layer_value": ClipMode.VALUE in kinds,
        "noise": start.noise > 0 or any(changes.gradient_noise is not None for changes in made),
        "accumulate": start.accumulate > 1 or start.done > 0 or any(changes.accumulate is not None for changes in made),
    }
    return {name for name, needed in found.items() if needed}
