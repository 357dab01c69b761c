"""Which probes look at what modules put out, by the names of what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from nbdebug.probes.activations import ActivationsProbe
from nbdebug.probes.data_flow import DataProbe
from nbdebug.probes.eager_look import Undisturbed
from nbdebug.probes.probe import Probe
from nbdebug.probes.sample_rows import Pool

Modules = Mapping[str, nn.Module]


def module_probes(undisturbed: Undisturbed | None) -> Callable[..., list[Probe]]:
    """Makes the probes of some modules, the networks that they are part of, the names of what is wanted, and a pool.

    Known names are ``activations``, ``units``, ``saturation`` and ``data``; others are ignored.
    """

    def probes(modules: Modules, networks: Modules, wanted: frozenset[str], pool: Pool | None = None) -> list[Probe]:
        found: list[Probe] = []
        if wanted & {"activations", "units", "saturation"}:
            found.append(
                ActivationsProbe(
                    modules,
                    networks=networks,
                    undisturbed=undisturbed,
                    values="activations" in wanted,
                    units="units" in wanted,
                    saturation="saturation" in wanted,
                    pool=pool,
                )
            )
        if "data" in wanted:
            found.append(DataProbe(networks, pool=pool))
        return found

    return probes
