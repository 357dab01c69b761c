"""What a run was made of, so that it can be understood and made again: written down before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Manifest:
    """Facts as plain values (what JSON can hold), by section.

    ``hyper_parameters``: optimizer, schedule, knobs, loaders. ``model``: layers, parameters, sizes. ``versions``:
    Python, torch, numpy, nbdebug, platform. ``device``, ``seeds``, ``data`` (its size and a fingerprint), ``git``
    (commit, branch, diff), ``source``: the cells that made model and trainer, by name.
    """

    run: str
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    seeds: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    git: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
