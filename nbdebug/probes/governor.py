"""The overhead governor: spaces the expensive probes so that watching stays within its share of step time."""

from __future__ import annotations

from dataclasses import dataclass

SMOOTHING = 0.1
LONGEST_GAP_S = 2.0


@dataclass
class Governor:
    """Decides from measured times which steps are sampled. Times are wall-clock seconds; training thread only.

    Each step earns ``budget`` × its time and pays for what watching took, on sampled steps and on the others. A sample
    is taken when what one costs lately has been earned, and at least every two seconds. ``budget=None`` samples every
    step.
    """

    budget: float | None
    sample_cost_s: float = 0.0
    earned_s: float = 0.0
    since_sample_s: float = 0.0
    share: float = 0.0
    _steps: int = 0
    _is_first: bool = True

    def begin(self) -> None:
        """Training sets out: its first step is sampled whatever was spent before, so that there is something to see."""
        self._is_first = True

    def wants_sample(self) -> bool:
        """Whether the step that begins now should be sampled."""
        if self.budget is None or self._is_first:
            return True
        return self.earned_s >= self.sample_cost_s or self.since_sample_s > LONGEST_GAP_S

    def step_done(self, *, training_s: float, watching_s: float, sampled: bool) -> None:
        """What the step took: the training itself, and everything that was ours."""
        self._steps += 1
        self._is_first = False
        self.since_sample_s += training_s + watching_s
        if sampled:
            first = self.sample_cost_s == 0.0
            self.sample_cost_s += (watching_s - self.sample_cost_s) * (1.0 if first else SMOOTHING * 2)
            self.since_sample_s = 0.0
        earned_s = self.earned_s + (self.budget or 0.0) * training_s - watching_s
        self.earned_s = min(max(earned_s, -2 * self.sample_cost_s), 2 * self.sample_cost_s)
        share = watching_s / max(training_s + watching_s, 1e-9)
        self.share += (share - self.share) * max(SMOOTHING / 5, 1 / self._steps)
