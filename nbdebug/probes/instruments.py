"""All probes of one session, as the session sees them. One transfer per sampled step; training thread only.

A probe that raises (out of memory on a device included) is switched off, reported once through ``on_failure``, and
training goes on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.probes import derived, presets
from nbdebug.probes.assembly import ModuleProbes, Subject, assembled
from nbdebug.probes.gradients import GradientsProbe
from nbdebug.probes.merging import Found, Merger
from nbdebug.probes.parameters import ParameterTable
from nbdebug.probes.probe import Floats, Probe, Reading
from nbdebug.probes.sample_rows import Pool
from nbdebug.probes.timing import TimingProbe
from nbdebug.probes.transfer import Transfer
from nbdebug.probes.updates import UpdatesProbe
from nbdebug.probes.weights import WeightsProbe
from nbdebug.records.cost import Timing
from nbdebug.records.layers import Unseen

Failure = Callable[[str, str], None]
Groups = Sequence[tuple[str, dict[str, Any]]]
PARAMETER_SIDE = ("gradients", "weights", "updates", "memory")
MODULE_SIDE = frozenset({"activations", "units", "saturation", "data"})
SAMPLES = "samples and bins"
AWAITED_STEPS = 256
IN_COMPILED_CODE = "the training step calls compiled functions, in which a hook would be compiled too"


class Measurement:
    """What a sampled step gave: reductions on their way to the host, and how to read them."""

    def __init__(
        self,
        found: Sequence[tuple[Probe | None, list[torch.Tensor]]],
        read: Callable[[Sequence[tuple[Probe | None, list[Floats]]]], Found],
    ) -> None:
        self._sizes = [(probe, len(tensors)) for probe, tensors in found]
        self._read = read
        self._found: Found | None = None
        self.parcel = Transfer([tensor for _, tensors in found for tensor in tensors])

    def read(self) -> Found:
        """The findings; waits where they have not arrived."""
        if self._found is None:
            arrays = self.parcel.arrays()
            parts, at = [], 0
            for probe, count in self._sizes:
                parts.append((probe, arrays[at : at + count]))
                at += count
            self._found = self._read(parts)
        return self._found


class Instruments:
    """The probes, switched on for sampled steps. ``on_failure(probe name, traceback)`` hears of broken ones.

    A sampled step without an update, as under gradient accumulation, leaves gradients half done: what is measured of
    parameters waits for the step in which an optimizer uses them.
    """

    def __init__(
        self,
        on_failure: Failure,
        module_probes: ModuleProbes,
        *,
        probes: str | Collection[str] = "normal",
        layers: Any = None,
    ) -> None:
        self._on_failure = on_failure
        self._module_probes = module_probes
        self._wanted = presets.chosen(probes)
        self._patterns = presets.patterns(layers)
        self._modules: dict[str, nn.Module] = {}
        self._compiled_step = False
        self._known_parameters: list[nn.Parameter] = []
        self._group_numbers_of = derived.GroupNumbers(())
        self._probes: dict[str, Probe] = {}
        self._broken: set[str] = set()
        self._first_norms: dict[str, float] = {}
        self._pool = Pool()
        self._merger = Merger(())
        self._sampling = False
        self._awaiting = 0
        self._updates = 0
        self._ever_updated = False
        self._latest: Measurement | None = None
        self.costs: dict[str, float] = {}

    # -- setting up ---------------------------------------------------------------------------------------------

    def choose(self, probes: str | Collection[str], layers: Any) -> None:
        """Measure something else, from the next :meth:`watch` on."""
        self._wanted, self._patterns = presets.chosen(probes), presets.patterns(layers)
        self._probes = {}

    def watch(
        self, modules: Mapping[str, nn.Module], groups: Groups, roots: Mapping[str, nn.Module], *, compiled_step: bool
    ) -> None:
        """Look at these modules and (named) parameter groups from the next step on; broken probes are kept out."""
        self._group_numbers_of = derived.GroupNumbers(groups)
        same = bool(self._probes) and list(self._modules.items()) == list(modules.items()) and not self._outgrown()
        if same and compiled_step == self._compiled_step:
            return
        self._modules, self._compiled_step = dict(modules), compiled_step
        chosen = presets.restricted(modules, self._patterns)
        subject = Subject(chosen, roots, ParameterTable(chosen), compiled_step)
        found = assembled(subject, self._wanted, self._pool, self._first_norms, self._module_probes)
        self._probes = {probe.name: probe for probe in found if probe.name not in self._broken}
        self._known_parameters = list(subject.table)
        self._merger = Merger(list(chosen))

    def _outgrown(self) -> bool:
        """Whether parameters were exchanged within the same modules."""
        fresh = list(ParameterTable(presets.restricted(self._modules, self._patterns)))
        return len(fresh) != len(self._known_parameters) or any(
            a is not b for a, b in zip(fresh, self._known_parameters, strict=True)
        )

    @property
    def size_bytes(self) -> int:
        """What probes hold between samples."""
        return self._pool.size_bytes + sum(getattr(probe, "size_bytes", 0) for probe in self._probes.values())

    def send(self, tensors: list[torch.Tensor]) -> Transfer:
        """Start bringing tensors to the host."""
        return Transfer(tensors)

    # -- within a step ------------------------------------------------------------------------------------------

    @property
    def looking(self) -> bool:
        """Whether gradients and updates are looked at now."""
        return self._sampling or self._awaiting > 0

    @property
    def hook_seconds(self) -> float:
        """Time that module hooks of the present step spent within the model's forward."""
        if not self._sampling:
            return 0.0
        return sum(probe.hook_s for probe in self._probes.values())

    def begin_step(self, step: int, *, sample: bool) -> None:
        """A step begins; only a sampled one is looked into, or one whose update is awaited."""
        self._sampling = sample
        if not self.looking:
            return
        if self._latest is not None:  # probes hold what it needs to be read, until they begin anew
            self._latest.read()
            self._latest = None
        self._updates = 0
        self._pool.clear()
        for probe in list(self._probes.values()):
            if sample or probe.name in PARAMETER_SIDE:
                self._timed(probe, probe.begin, step)

    def gradients_ready(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        scale: torch.Tensor | None,
        norms: Sequence[torch.Tensor] | None,
    ) -> None:
        """Called by the measure point before clipping."""
        self._call("gradients", "gradients_ready", id(optimizer), parameters, scale, norms)

    def gradients_clipped(
        self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None, factor: torch.Tensor | None
    ) -> None:
        """Called by the measure point after clipping."""
        self._call("gradients", "gradients_clipped", parameters, scale, factor)

    def updating(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        """Called by the measure point before the update."""
        self._call("weights", "updating", parameters)
        self._call("updates", "updating", parameters)

    def updated(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter], skipped: torch.Tensor | None) -> None:
        """Called by the measure point after the update."""
        self._updates += 1
        self._ever_updated = True
        self._call("updates", "updated", id(optimizer), parameters, skipped)
        self._call("memory", "updated", optimizer)

    def model_done(self) -> None:
        """The user's step returned: take the module hooks off."""
        if self._sampling:
            for probe in list(self._probes.values()):
                self._timed(probe, probe.unhook)
                self._charge(probe.name, probe.hook_s)

    def end_step(self, timing: Timing, leftover: torch.Tensor | None) -> Measurement | None:
        """Reduce what the probes saw and start bringing it to the host; ``None`` where there is nothing to bring."""
        if not self._probes:
            self._sampling, self._awaiting = False, 0
            return None
        unfinished = not self._updates and self._ever_updated
        if self._sampling:
            self._awaiting = AWAITED_STEPS if unfinished else 0
        elif unfinished:
            self._awaiting -= 1
            return None
        else:
            self._awaiting = 0
        self._tell_time(timing)
        found: list[tuple[Probe | None, list[torch.Tensor]]] = []
        with torch.no_grad():
            for probe in list(self._probes.values()):
                on_parameters = probe.name in PARAMETER_SIDE
                if (on_parameters and unfinished) or not (on_parameters or self._sampling):
                    continue
                tensors = self._timed(probe, self._finish, probe, leftover)
                if tensors is not None:
                    found.append((probe, tensors))
            self._latest = self._sent(found)
        self._sampling = False
        return self._latest

    def abandon_step(self) -> None:
        """Leave no hook and no tensor behind, whatever happened."""
        for probe in list(self._probes.values()):  # of a step that is over, nothing is held but what is awaited
            if self._sampling or (self._awaiting and probe.name in PARAMETER_SIDE):
                probe.drop()
        self._sampling = False

    # -- inside -------------------------------------------------------------------------------------------------

    def _sent(self, found: list[tuple[Probe | None, list[torch.Tensor]]]) -> Measurement | None:
        """Everything on its way to the host."""
        began = time.perf_counter()
        try:
            return Measurement([*found, (None, self._pool.reduce())], self._read)
        except Exception:  # what a probe let through, such as a tensor without values; or memory has run out
            self._give_up()
            return None
        finally:
            self._charge(SAMPLES, time.perf_counter() - began)

    def _give_up(self) -> None:
        """Nothing can be measured of this model; training goes on."""
        for probe in self._probes.values():
            probe.drop()
        self._broken.update(self._probes)
        self._probes = {}
        self._on_failure("anything", traceback.format_exc())

    def _finish(self, probe: Any, leftover: torch.Tensor | None) -> list[torch.Tensor]:
        if isinstance(probe, GradientsProbe):
            probe.measure_the_rest(leftover)
        found: list[torch.Tensor] = probe.finish()
        return found

    def _read(self, parts: Sequence[tuple[Probe | None, list[Floats]]]) -> Found:
        try:
            return self._put_together(parts)
        except Exception:  # as in what was sent
            self._give_up()
            return Found({}, None, (), None)

    def _put_together(self, parts: Sequence[tuple[Probe | None, list[Floats]]]) -> Found:
        began = time.perf_counter()
        readings: list[Reading] = []
        self._pool.read(parts[-1][1])
        self._charge(SAMPLES, time.perf_counter() - began)
        seen = [(probe, arrays) for probe, arrays in parts if probe is not None]
        for probe, arrays in seen:
            reading = self._timed(probe, probe.read, arrays)
            if reading is not None:
                readings.append(reading)
        columns = [column for reading in readings for column in reading.columns]
        columns += derived.ratios(columns)
        scalars = {series: value for reading in readings for series, value in reading.scalars.items()}
        scalars.update(self._group_numbers())
        for probe, _ in seen:
            probe.drop()
        histograms = tuple(each for reading in readings for each in reading.histograms)
        return self._merger.merge(columns, histograms, scalars, self._unseen())

    def _group_numbers(self) -> dict[Any, float]:
        weights, gradients, updates = (self._probes.get(name) for name in ("weights", "gradients", "updates"))
        if not (
            isinstance(weights, WeightsProbe)
            and isinstance(gradients, GradientsProbe)
            and isinstance(updates, UpdatesProbe)
        ):
            return {}
        norms = (gradients.parameters, gradients.clipped_norms)
        return self._group_numbers_of.of(
            (weights.parameters, weights.norms), norms, (updates.parameters, updates.norms)
        )

    def _unseen(self) -> tuple[Unseen, ...]:
        found = [each for probe in self._probes.values() for each in probe.unseen()]
        if self._compiled_step and self._wanted & MODULE_SIDE:
            found.append(Unseen("", "activations", IN_COMPILED_CODE))
        return tuple(dict.fromkeys(found))

    def _tell_time(self, timing: Timing) -> None:
        probe = self._probes.get("time")
        if isinstance(probe, TimingProbe) and self._sampling:
            in_forward_s = sum(each.hook_s for each in self._probes.values())
            ours_s = time.perf_counter() - timing.returned + timing.watching_s
            probe.spent(
                data_s=timing.data_s,
                step_s=timing.returned - timing.began,
                optimizer_s=timing.optimizer_s,
                watching_s=timing.watching_s,
                in_forward_s=in_forward_s,
                ours_s=ours_s,
            )

    def _call(self, name: str, method: str, *args: Any) -> None:
        probe = self._probes.get(name)
        if probe is not None:
            self._timed(probe, getattr(probe, method), *args)

    def _timed(self, probe: Probe, function: Callable[..., Any], *args: Any) -> Any:
        began = time.perf_counter()
        result = self._guarded(probe, function, *args)
        seconds = time.perf_counter() - began
        self._charge(probe.name, seconds)
        return result

    def _charge(self, name: str, seconds: float) -> None:
        self.costs[name] = self.costs.get(name, 0.0) + seconds

    def _guarded(self, probe: Probe, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except Exception:  # a probe meets whatever modules people write; it must not take training down
            self._probes.pop(probe.name, None)
            self._broken.add(probe.name)
            probe.drop()
            self._on_failure(probe.name, traceback.format_exc())
            return None
