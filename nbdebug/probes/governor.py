"""The overhead governor: spaces the expensive probes so that watching stays within its share of step time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nbdebug.records.cost import Cost

SMOOTHING = 0.05
LATELY = 0.02
LONGEST_GAP_S = 2.0
MARGIN = 0.85  # of the budget is spent by what we measure; what we can't (caches, the interpreter lock) has the rest
NORM_SHARE = 0.25  # of the budget may go into the gradients' norm on ordinary steps
FIRST_SAMPLES = 2
DEEPEST_DEBT = 4  # samples; one that took far longer than usual, as when a machine stalls, is not made up for in full
MOST_STEPS_WITHOUT_NORM = 64


@dataclass
class Governor:
    """Decides from measured times which steps are sampled. Times are wall-clock seconds; training thread only.

    Each step earns ``budget`` × its time and pays for what watching took, snapshots included. A sample is taken when
    what one costs lately has been earned, and at least every two seconds. The gradients' norm is taken at every step if
    it costs little of that, else at every few. ``budget=None`` samples every step.
    """

    budget: float | None
    step_s: float = 0.0
    fixed_s: float = 0.0
    sample_s: float = 0.0
    norm_s: float = 0.0
    share: float = 0.0
    samples: int = 0
    sample_every: float = 0.0
    _earned_s: float = 0.0
    _since_sample_s: float = 0.0
    _since_sample: int = 0
    _steps: int = 0
    _is_first: bool = True
    _spent_s: float = field(default=0.0)
    _total_s: float = field(default=0.0)

    def begin(self) -> None:
        """Training sets out: its first step is sampled whatever was spent before, so that there is something to see."""
        self._is_first = True

    def wants_sample(self) -> bool:
        """Whether the step that begins now should be sampled."""
        if self.budget is None or self._is_first:
            return True
        return self._earned_s >= self.sample_s or self._since_sample_s > LONGEST_GAP_S

    def norm_every(self) -> int:
        """Every how many ordinary steps the norm of the gradients can be afforded."""
        if self.budget is None or not self.step_s:
            return 1
        return max(1, min(MOST_STEPS_WITHOUT_NORM, math.ceil(self.norm_s / (NORM_SHARE * self.budget * self.step_s))))

    def steps_done(
        self, steps: int, *, training_s: float, watching_s: float, norms: int, norm_s: float, sampled: bool
    ) -> None:
        """What so many steps took: training itself, and all that was ours, the norm taken ``norms`` times included."""
        self._steps += steps
        self._is_first = False
        weight = max(SMOOTHING, 1 / self._steps) if steps == 1 else max(SMOOTHING, steps / self._steps)
        self.step_s += (training_s / steps - self.step_s) * weight
        if norms and not sampled:
            self.norm_s += (norm_s / norms - self.norm_s) * (SMOOTHING if self.norm_s else 1.0)
        self._since_sample_s += training_s + watching_s
        self._since_sample += steps
        self._keep_share(training_s, watching_s)
        if sampled:
            self._sampled(watching_s)
        else:
            self.fixed_s += (watching_s / steps - self.fixed_s) * (SMOOTHING if self.fixed_s else 1.0)
        if sampled and self.samples <= FIRST_SAMPLES:
            watching_s = min(watching_s, self.fixed_s)  # what the first samples build is used by all others
        earned_s = self._earned_s + MARGIN * (self.budget or 0.0) * training_s - watching_s
        self._earned_s = min(max(earned_s, -DEEPEST_DEBT * self.sample_s), self.sample_s)

    def spent(self, seconds: float) -> None:
        """So much went into watching between two steps, such as at the end of an epoch."""
        self._keep_share(0.0, seconds)
        self._earned_s = max(self._earned_s - seconds, -DEEPEST_DEBT * self.sample_s)

    def cost(
        self,
        probes: tuple[tuple[str, float], ...] = (),
        snapshots: float = 0.0,
        memory_bytes: int = 0,
        passes: float = 0.0,
    ) -> Cost:
        """All of it as a record. Any thread."""
        return Cost(
            budget=self.budget,
            share=self.share,
            step_s=self.step_s,
            fixed_s=self.fixed_s,
            sample_s=max(self.sample_s, 0.0),
            sample_every=self.sample_every,
            samples=self.samples,
            probes=probes,
            snapshots=snapshots,
            memory_bytes=memory_bytes,
            passes=passes,
        )

    def _sampled(self, watching_s: float) -> None:
        """The first samples build tables that later ones use again, so they tell nothing of what one costs."""
        self.samples += 1
        self.sample_every += (self._since_sample - self.sample_every) * (0.2 if self.samples > 1 else 1.0)
        extra_s = max(watching_s - self.fixed_s, 0.0)
        settled = self.samples > FIRST_SAMPLES + 1
        self.sample_s += (extra_s - self.sample_s) * (0.2 if settled else 1.0)
        self._since_sample_s, self._since_sample = 0.0, 0

    def _keep_share(self, training_s: float, watching_s: float) -> None:
        """A mean over the last seconds, weighted by time: rare and dear samples count as what they are."""
        total_s = training_s + watching_s
        keep = 1 - min(LATELY, total_s / 5.0) if self._total_s > 5.0 else 1.0
        self._spent_s = self._spent_s * keep + watching_s
        self._total_s = self._total_s * keep + total_s
        self.share = self._spent_s / self._total_s if self._total_s else 0.0
