"""Which probes look at what modules put out; a look on the side leaves no trace. Training thread only."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from nbdebug.probes import module_probes as probes
from nbdebug.probes.probe import Probe
from nbdebug.probes.sample_rows import Pool
from nbdebug.training.undisturbed import undisturbed


def module_probes(
    modules: Mapping[str, nn.Module], roots: Mapping[str, nn.Module], wanted: frozenset[str], pool: Pool
) -> list[Probe]:
    """The probes for these modules, of those wanted by name."""
    return probes.module_probes(undisturbed)(modules, roots, wanted)
