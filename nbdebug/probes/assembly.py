"""Which probes there are for a model, by the names of what is wanted. Training thread only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from nbdebug.probes.gradients import GradientsProbe
from nbdebug.probes.memory import MemoryProbe
from nbdebug.probes.parameters import ParameterTable
from nbdebug.probes.probe import Probe
from nbdebug.probes.sample_rows import Pool
from nbdebug.probes.timing import TimingProbe
from nbdebug.probes.updates import UpdatesProbe
from nbdebug.probes.weights import WeightsProbe

Modules = Mapping[str, nn.Module]


class ModuleProbes(Protocol):
    """Makes the probes that look at what modules put out."""

    def __call__(self, modules: Modules, roots: Modules, wanted: frozenset[str], pool: Pool) -> list[Probe]:
        """The probes for these modules, of those wanted by name; none of them may be called."""


@dataclass(frozen=True)
class Subject:
    """What is looked at: the chosen ``modules``, the networks they are part of, and their parameters by layer.

    ``compiled_step`` says that modules are called within compiled code, where no hook may be put on them.
    """

    modules: Modules
    roots: Modules
    table: ParameterTable
    compiled_step: bool


def assembled(
    subject: Subject, wanted: frozenset[str], pool: Pool, first_norms: dict[str, float], module_probes: ModuleProbes
) -> list[Probe]:
    """The probes, in the order in which their findings are put together."""
    table = subject.table
    found: list[Probe] = []
    if "weights" in wanted:
        found.append(WeightsProbe(table, histograms="weight histograms" in wanted, first=first_norms, pool=pool))
    if "gradients" in wanted:
        found.append(GradientsProbe(table, histograms="gradient histograms" in wanted, pool=pool))
    if "updates" in wanted:
        found.append(UpdatesProbe(table, histograms="update histograms" in wanted, pool=pool))
    if not subject.compiled_step:
        found += module_probes(subject.modules, subject.roots, wanted, pool)
    if "memory" in wanted:
        found.append(MemoryProbe(table))
    if "time" in wanted:
        found.append(TimingProbe(subject.roots, hooked=not subject.compiled_step))
    return found
