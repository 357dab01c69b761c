"""Which probes look at what modules put out; a look on the side leaves no trace. Training thread only."""

from __future__ import annotations

from nbdebug.probes import module_probes as factory
from nbdebug.training.undisturbed import undisturbed

module_probes = factory.module_probes(undisturbed)
