"""What a learning-rate range test found: the loss at each rate, and which rates it suggests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nbdebug.records.frames import Floats

ACTIVITY = "testing learning rates"  # how the status of a test under way begins


@dataclass(frozen=True, slots=True, repr=False)
class LrCurve:
    """The losses of a test in which the learning rate grew from step to step, taken at ``step`` of ``run``.

    ``rates``, ``losses`` and ``smooth`` are ``(n,)``, up to where the test ended; a rate is that of the first parameter
    group, the others keep their ratio to it. ``smooth`` is the exponential mean of the losses without its bias, NaN
    where a loss was not finite. ``suggestions`` are names with rates, the best one first. ``diverged_at`` is the rate
    at which the loss ran away, ``None`` if it did not. ``planned`` is how many rates were to be tried, ``present`` the
    rate in force before and after the test. ``note`` says what else to know.
    """

    rates: Floats = field(default_factory=lambda: np.empty(0))
    losses: Floats = field(default_factory=lambda: np.empty(0))
    smooth: Floats = field(default_factory=lambda: np.empty(0))
    suggestions: tuple[tuple[str, float], ...] = ()
    diverged_at: float | None = None
    run: str = "main"
    step: int = 0
    planned: int = 0
    present: float = 0.0
    note: str = ""

    @property
    def suggestion(self) -> float | None:
        """The best suggestion, ``None`` without any: ``debugger.set(lr=curve.suggestion)``."""
        return self.suggestions[0][1] if self.suggestions else None

    @property
    def sentence(self) -> str:
        """The outcome in a line."""
        if not self.suggestions:
            return f"no rate to suggest: {self.note or 'the loss did not fall'}"
        name, rate = self.suggestions[0]
        return f"learning rate {rate:.1e} suggested ({name})"

    def __str__(self) -> str:
        count, of = self.rates.size, f" of {self.planned}" if self.planned > self.rates.size else ""
        lines = [f"learning-rate range test after step {self.step:,} of {self.run}: {count}{of} rates"]
        if count:
            lines[0] += f", {self.rates[0]:.1e} to {self.rates[-1]:.1e}"
            lines.append(f"  loss         {_losses_in_words(self)}")
        lines += [f"  {name:<28} {rate:.1e}" for name, rate in self.suggestions]
        if self.note:
            lines.append(f"  {self.note}")
        if self.suggestions:
            lines.append(f"  in force: {self.present:.1e}; debugger.set(lr=curve.suggestion) takes the first")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def _losses_in_words(curve: LrCurve) -> str:
    known = np.flatnonzero(np.isfinite(curve.smooth))
    if not known.size:
        return "never finite"
    best = known[int(np.argmin(curve.smooth[known]))]
    text = f"{curve.smooth[known[0]]:.4g} at first, {curve.smooth[best]:.4g} at best (at {curve.rates[best]:.1e})"
    return text + (f", diverged at {curve.diverged_at:.1e}" if curve.diverged_at is not None else "")
