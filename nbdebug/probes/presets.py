"""What is measured: three presets, or a choice of one's own, and the layers it is measured of. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from nbdebug.probes.parameters import INSIDE

LIGHT = ("gradients", "weights", "updates", "time")
NORMAL = (*LIGHT, "gradient histograms", "activations", "units", "saturation", "data")
DEEP = (*NORMAL, "weight histograms", "update histograms", "memory")
PRESETS: dict[str, tuple[str, ...]] = {"light": LIGHT, "normal": NORMAL, "deep": DEEP}


def chosen(probes: str | Iterable[str]) -> frozenset[str]:
    """The names of what is measured, of a preset or as listed."""
    return frozenset(PRESETS[probes] if isinstance(probes, str) else probes)


def probe_mistakes(probes: Any) -> list[str]:
    """Why these probes can't be chosen, a line each."""
    if isinstance(probes, str):
        if probes in PRESETS:
            return []
        near = difflib.get_close_matches(probes, PRESETS, 1, 0.3)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, PRESETS))}"
        return [f"probes={probes!r} is no preset: {hint}; or list what to measure: {', '.join(DEEP)}"]
    if not isinstance(probes, (list, tuple, set, frozenset)) or not probes:
        return [f"probes={probes!r}: give one of {', '.join(map(repr, PRESETS))}, or a list of {', '.join(DEEP)}"]
    mistakes = []
    for name in probes:
        if name not in DEEP:
            near = difflib.get_close_matches(str(name), DEEP, 1, 0.3)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DEEP)}"
            mistakes.append(f"probes: unknown {name!r}: {hint}")
    return mistakes


def patterns(layers: Any) -> tuple[str, ...] | None:
    """What was given for layers as patterns; ``None`` for all."""
    return None if layers is None else (layers,) if isinstance(layers, str) else tuple(layers)


def layer_mistakes(layers: Any, modules: Iterable[str]) -> list[str]:
    """Why these patterns choose nothing, a line each; ``None`` means all layers."""
    if layers is None:
        return []
    if not isinstance(layers, (str, list, tuple, set)) or not layers:
        return [f"layers={layers!r}: give a name or pattern such as 'blocks.*', or several; leave it out for all"]
    names = [name for name in modules if name]
    mistakes = []
    for pattern in patterns(layers) or ():
        if not isinstance(pattern, str):
            mistakes.append(f"layers: {pattern!r} is no text")
        elif not any(matches(name, (pattern,)) for name in names):
            near = difflib.get_close_matches(pattern, names, 1, 0.3)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:6])}"
            mistakes.append(f"layers: no module is called, or matches, {pattern!r}: {hint}")
    return mistakes


def matches(name: str, wanted: tuple[str, ...]) -> bool:
    """Whether a module is chosen: by its name, by a pattern (``*``, ``?``, ``[...]``), or as part of one that is."""
    name = name.partition(INSIDE)[0]
    parts = name.split(".")
    wholes = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(fnmatchcase(whole, pattern) for whole in wholes for pattern in wanted)


def restricted(modules: Mapping[str, Any], wanted: tuple[str, ...] | None) -> dict[str, Any]:
    """The modules that are chosen."""
    return {name: m for name, m in modules.items() if wanted is None or matches(name, wanted)}
