"""Where time goes: within a step, and what watching costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Shares of the time since training last set out, and lately; times are wall-clock seconds, 0 while unknown.

    ``share`` is what watching took of all time lately, snapshots included; ``budget`` what it may take (``None``:
    everything is measured at every step). ``step_s`` is a step without us, ``fixed_s`` what we add to every step,
    ``sample_s`` what a sample adds on top, taken every ``sample_every`` steps lately. ``probes`` says by probe what it
    takes of a sample, ``snapshots`` is the share of snapshots, ``memory_bytes`` what probes hold between steps;
    ``passes`` is the share of the time of passes over the samples that are watched.
    """

    budget: float | None
    share: float = 0.0
    step_s: float = 0.0
    fixed_s: float = 0.0
    sample_s: float = 0.0
    sample_every: float = 0.0
    samples: int = 0
    probes: tuple[tuple[str, float], ...] = ()
    snapshots: float = 0.0
    memory_bytes: int = 0
    passes: float = 0.0

    def __str__(self) -> str:
        allowed = "no limit" if self.budget is None else f"{100 * self.budget:.3g} % allowed"
        lines = [
            f"watching takes {100 * self.share:.1f} % of the time ({allowed}), "
            f"{100 * self.snapshots:.1f} % of it for snapshots",
            f"a step takes {1e3 * self.step_s:.3g} ms, watching adds {1e3 * self.fixed_s:.3g} ms to each and "
            f"{1e3 * self.sample_s:.3g} ms to a sampled one; every {self.sample_every:.3g} steps one was sampled",
        ]
        if self.passes:
            lines.append(f"passes over watched samples took {100 * self.passes:.1f} % of the time")
        lines += [f"  {name}: {1e3 * seconds:.3g} ms a sample" for name, seconds in self.probes]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Timing:
    """How a step's time was spent, in seconds, and moments of ``time.perf_counter``.

    ``data_s`` is the wait for the batch; the user's step ran from ``began`` to ``returned``; ``update`` is when the
    first optimizer step began (0: none), ``optimizer_s`` what all of them took, ``watching_s`` what hooks took inside.
    """

    data_s: float
    began: float
    update: float
    optimizer_s: float
    returned: float
    watching_s: float
