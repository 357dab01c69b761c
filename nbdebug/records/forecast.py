"""What the next step would be under a change, before it is made."""

from __future__ import annotations

from dataclasses import dataclass

from nbdebug.records.commands import Changes
from nbdebug.records.frames import Floats


@dataclass(frozen=True)
class Forecast:
    """The next step under ``changes`` and as things are now, taken on the side on the batch that then comes next.

    ``ratios`` and ``ratios_now`` ``(layers,)`` are ‖Δw‖ / ‖w‖ by layer (about 1e-3 is healthy), NaN where the weights
    are zero. ``loss`` is that of the batch, before the update. ``grad_norm`` is that before clipping, ``clipped`` the
    share of the last ``recent`` steps that the clipping threshold under ``changes`` would have clipped, NaN while
    clipping is off or no norm is on record.
    """

    changes: Changes
    layers: tuple[str, ...]
    ratios: Floats
    ratios_now: Floats
    loss: float
    grad_norm: float
    clipped: float
    recent: int

    def __str__(self) -> str:
        shown = "as it is" if not self.changes else str(self.changes)
        lines = [f"next step under {shown}: loss {self.loss:.6g}, gradient norm {self.grad_norm:.4g}"]
        if self.clipped == self.clipped:
            lines[0] += f"; {self.clipped:.0%} of the last {self.recent} steps would have been clipped"
        width = max((len(name) for name in self.layers), default=5)
        lines.append(f"{'layer':{width}}  update : weight    now")
        for name, ratio, now in zip(self.layers, self.ratios.tolist(), self.ratios_now.tolist(), strict=True):
            lines.append(f"{name:{width}}  {ratio:15.2e}  {now:.2e}")
        return "\n".join(lines)
