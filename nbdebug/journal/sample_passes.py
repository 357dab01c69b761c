"""The sets of samples that were watched, and the passes over them, by run. In memory; the journal locks it."""

from __future__ import annotations

from collections.abc import Sequence

from nbdebug.records.samples import SamplePass, Samples, SampleSet

MOST_SETS = 8
MOST_PASSES, FEWEST_PASSES = 256, 32
MOST_BYTES = 4 << 20  # of a run's passes, before every other one goes


def most_passes(one: SamplePass) -> int:
    """How many passes of this size are kept of a run."""
    size = sum(each.nbytes for each in (one.losses, one.predicted, one.confidence, one.margins, one.right))
    return max(FEWEST_PASSES, min(MOST_PASSES, MOST_BYTES // max(size, 1)))


class SamplePasses:
    """All that is known of samples over time. A pass at the same step as the last takes its place."""

    def __init__(self) -> None:
        self._sets: dict[int, SampleSet] = {}
        self._passes: dict[str, list[SamplePass]] = {}
        self._latest = Samples()

    def record_set(self, made: SampleSet) -> None:
        """Samples are watched from now on; of many sets, the oldest is forgotten."""
        self._sets[made.number] = made
        while len(self._sets) > MOST_SETS:
            gone = min(self._sets)
            del self._sets[gone]
            self._passes = {run: [p for p in passes if p.number != gone] for run, passes in self._passes.items()}

    def record_pass(self, made: SamplePass) -> None:
        """A pass was made; of very many, every other one is forgotten, the newest kept."""
        passes = self._passes.setdefault(made.run, [])
        if passes and (passes[-1].number, passes[-1].step) == (made.number, made.step):
            passes.pop()
        passes.append(made)
        if len(passes) > most_passes(made):
            self._passes[made.run] = passes[::-1][::2][::-1]

    def forget(self, run: str) -> None:
        """A run is deleted."""
        self._passes.pop(run, None)

    def of(self, lineage: Sequence[tuple[str, int | None]], step: int | None) -> Samples:
        """What led to ``step`` along these runs, each up to its last step that counts; the latest set of them.

        The same object while nothing is new.
        """
        found = [
            each
            for run, last in lineage
            for each in self._passes.get(run, ())
            if (last is None or each.step <= last) and (step is None or each.step <= step)
        ]
        number = max((each.number for each in found), default=0)
        passes = tuple(each for each in found if each.number == number)
        kept = self._latest
        if len(passes) != len(kept.passes) or any(a is not b for a, b in zip(passes, kept.passes, strict=True)):
            self._latest = Samples(self._sets.get(number), passes)
        return self._latest
