"""What layers put out: values, silent and dead units, saturation, memory. Sampled steps; training thread only.

Means, deviations, shares and histograms come from up to 4,096 elements of each output, copied inside the hook since
later layers may overwrite the rest in place. The first eight calls of a layer in a step count, all of them for memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nbdebug.probes.eager_look import EagerLook, Undisturbed
from nbdebug.probes.hooks import CallHook, HookSet
from nbdebug.probes.outputs import first_readable, flat, size_bytes
from nbdebug.probes.probe import Column, Floats, Reading
from nbdebug.probes.sample_rows import Pool, SampleRows, Summary
from nbdebug.probes.sampling import Places
from nbdebug.probes.saturation import Saturation, saturating_bounds
from nbdebug.probes.units import Shares, Units
from nbdebug.probes.visibility import WHAT, Compiled, Survey, fast_layers, refusing_hooks, roots, survey
from nbdebug.records.layers import Unseen
from nbdebug.records.signals import Signal

MAX_CALLS = 8

NOT_CALLED = "was not called as a module in the forward"
ELSEWHERE = "was called on another thread, as a replica of the module"
FAST_PATH = "is part of a transformer layer in eval mode, which would compute differently with hooks on"


VALUES = (
    Signal.ACTIVATION_MEAN,
    Signal.ACTIVATION_STD,
    Signal.ACTIVATION_ZERO,
    Signal.ACTIVATION_NON_FINITE,
    Signal.MEMORY_ACTIVATIONS,
    Signal.ACTIVATIONS,
)
UNITS = (Signal.UNITS_SILENT, Signal.UNITS_DEAD, Signal.INPUT_UNITS_DEAD)


class ActivationsProbe:
    """Hooks on the layers whose outputs tell something, there only during sampled steps.

    ``modules`` by dotted name are looked at, ``networks`` are what they are part of (if not told: those among the
    modules that are within no other). ``values``, ``units`` and ``saturation`` say what is measured of them.
    ``undisturbed`` makes looks into compiled modules possible, see :class:`EagerLook`. ``pool`` may be shared.
    """

    name = "activations"

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        networks: Mapping[str, nn.Module] | None = None,
        undisturbed: Undisturbed | None = None,
        values: bool = True,
        units: bool = True,
        saturation: bool = True,
        pool: Pool | None = None,
    ) -> None:
        self.signals = (*VALUES * values, *UNITS * units, *(Signal.SATURATED,) * saturation)
        self._survey = survey(modules, networks or roots(modules))
        self._looks = [EagerLook(compiled, undisturbed) for compiled in self._survey.compiled]
        self._fast_layers = fast_layers(modules.values())
        self._hooks = HookSet()
        places = Places()
        self._rows = SampleRows(places=places, pool=pool) if values else None
        self._units = Units() if units else None
        self._saturation = Saturation(places, pool) if saturation else None
        self._calls: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._counts: list[int] = []
        self._has_values = False
        self._seen: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._sampled = False

    @property
    def hook_s(self) -> float:
        """Seconds that hooks and eager looks of this step took within the model's forward."""
        return self._hooks.seconds

    @property
    def size_bytes(self) -> int:
        """What is held between samples."""
        parts = (self._rows, self._saturation, self._units)
        return sum(part.size_bytes for part in parts if part is not None)

    def begin(self, step: int) -> None:
        """Put the hooks on for this step."""
        self.drop()
        self._hooks.begin()
        for part in (self._rows, self._saturation):
            if part is not None:
                part.clear(step)
        self._put_on(self._hooks, self._survey)
        for look in self._looks:
            look.begin()
            inside = look.compiled
            self._hooks.add_before_call(inside.name, inside.module, self._look_into(look), measuring=False)

    def unhook(self) -> None:
        """Take the hooks off; what they saw is kept."""
        self._hooks.remove()

    def finish(self) -> list[torch.Tensor]:
        """Samples of all layers reduced, those of inputs that may saturate, and numbers of silent and dead units."""
        self._hooks.remove()
        if self._hooks.error is not None:
            raise self._hooks.error
        self._sampled = True
        for name in self._hooks.elsewhere:
            self._reasons.setdefault(name, ELSEWHERE)
        parts = [
            self._rows.reduce() if self._rows else [],
            self._saturation.finish() if self._saturation else [],
            self._units.finish() if self._units else [],
        ]
        self._counts = [len(part) for part in parts]
        return [tensor for part in parts for tensor in part]

    def read(self, arrays: list[Floats]) -> Reading:
        """The finding, from what :meth:`finish` gave once it is on the host."""
        rest = iter(arrays)
        samples, saturated, units = ([next(rest) for _ in range(count)] for count in self._counts)
        reading = Reading()
        if self._rows and self._has_values:
            found = self._rows.read(samples)
            reading.columns += _value_columns(found)
            reading.columns.append(_column(Signal.MEMORY_ACTIVATIONS, self._bytes))
            reading.histograms.append(found.histograms(Signal.ACTIVATIONS))
        if self._units and units:
            reading.columns += _unit_columns(self._units.read(units))
        if self._saturation:
            reading.columns.append(_column(Signal.SATURATED, self._saturation.read(saturated)))
        reading.columns = [column for column in reading.columns if len(column.layers)]
        return reading

    def drop(self) -> None:
        """Take the hooks off and let go of all tensors; what is counted over steps stays."""
        self._hooks.remove()
        self._hooks.error = None
        for part in (self._rows, self._saturation, self._units):
            if part is not None:
                part.clear()
        self._has_values = False
        self._calls.clear()
        self._bytes.clear()

    def unseen(self) -> list[Unseen]:
        """Layers without activations, and why; a layer that was once seen is not among them."""
        found = list(self._survey.unseen)
        if not self._sampled:
            return found
        refusing = refusing_hooks(self._fast_layers)
        for name, module in self._survey.telling.items():
            if name not in self._seen:
                default = FAST_PATH if module in refusing else NOT_CALLED
                found.append(Unseen(name, WHAT, self._reasons.get(name, default)))
        for look in self._looks:
            for name in look.compiled.telling:
                if name not in self._seen or look.why_not:
                    found.append(Unseen(name, WHAT, look.why_not or self._reasons.get(name, NOT_CALLED)))
        return found

    def _put_on(self, hooks: HookSet, place: Survey | Compiled) -> None:
        refusing = refusing_hooks(self._fast_layers)
        for name, module in place.telling.items():
            if module in refusing:
                continue
            hooks.add(name, module, self._saw)
            if self._saturation is not None and getattr(module, "inplace", False) and saturating_bounds(module):
                hooks.add_before(name, module, self._about_to_overwrite)
        if self._units is not None:
            for name, module in place.dropouts.items():
                if module not in refusing:
                    hooks.add(name, module, self._units.dropped)

    def _look_into(self, look: EagerLook) -> CallHook:
        def put_on(hooks: HookSet) -> None:
            self._put_on(hooks, look.compiled)

        def called(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
            look.look(put_on, args, kwargs)

        return called

    def _saw(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        calls = self._calls[name] = self._calls.get(name, 0) + 1
        in_place = bool(args) and output is args[0]
        self._bytes[name] = self._bytes.get(name, 0) + (0 if in_place else size_bytes(output))
        if calls > MAX_CALLS:
            return
        tensor = first_readable(output)
        if isinstance(tensor, str):
            self._reasons[name] = tensor
            return
        self._seen.add(name)
        if self._rows is not None:
            self._rows.add_flat(name, flat(tensor))
            self._has_values = True
        if self._units is not None:
            self._units.saw(name, module, args, output, tensor)
        if self._saturation is not None and not in_place:
            self._saturation.saw(name, module, args)

    def _about_to_overwrite(self, name: str, module: nn.Module, args: Any) -> None:
        if self._saturation is not None and self._calls.get(name, 0) < MAX_CALLS:
            self._saturation.saw(name, module, args)


def _column(signal: Signal, values: Mapping[str, float]) -> Column:
    return Column(signal, tuple(values), np.fromiter(values.values(), np.float64, len(values)))


def _value_columns(found: Summary) -> Iterable[Column]:
    return (
        Column(Signal.ACTIVATION_MEAN, found.keys, found.mean),
        Column(Signal.ACTIVATION_STD, found.keys, found.std),
        Column(Signal.ACTIVATION_ZERO, found.keys, found.zero),
        Column(Signal.ACTIVATION_NON_FINITE, found.keys, found.non_finite),
    )


def _unit_columns(shares: Shares) -> Iterable[Column]:
    told = list(zip(shares.places, shares.silent, shares.dead, strict=True))
    dead = [(place, share) for place, _, share in told if not np.isnan(share)]
    return (
        _column(Signal.UNITS_SILENT, {place.layer: share for place, share, _ in told if not place.is_input}),
        _column(Signal.UNITS_DEAD, {place.layer: share for place, share in dead if not place.is_input}),
        _column(Signal.INPUT_UNITS_DEAD, {place.layer: share for place, share in dead if place.is_input}),
    )
