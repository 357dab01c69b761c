"""What the levels of a category tell of the target: each sample is told by the others of its level. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import torch

FEWEST_IN_LEVEL = 10


@dataclass(frozen=True, slots=True)
class Levels:
    """A column of a few values: ``places`` ``(n,)`` is each sample's level, ``counts`` are the levels' samples."""

    places: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def of(cls, column: torch.Tensor) -> Levels | None:
        """``None`` of a column of one value, or of so many that a level has too few samples to tell anything."""
        _, places, counts = torch.unique(column, return_inverse=True, return_counts=True)
        return cls(places, counts) if 2 <= len(counts) <= len(column) // FEWEST_IN_LEVEL else None

    def left(self, target: torch.Tensor) -> float:
        """The share of a number's variance that is left where each sample is told by the mean of its level's others."""
        sums = torch.zeros(len(self.counts), dtype=target.dtype, device=target.device).index_add_(
            0, self.places, target
        )
        counts = self.counts[self.places].to(target.dtype)
        others = (sums[self.places] - target) / (counts - 1).clamp(min=1)
        told = torch.where(counts > 1, others, target.mean())
        return float((target - told).square().sum() / (target - target.mean()).square().sum().clamp(min=1e-30))

    def errors(self, classes: torch.Tensor) -> float:
        """The wrongly told where each sample's class is told by its level's others, over those told without levels."""
        _, kinds = torch.unique(classes, return_inverse=True)
        table = torch.zeros(len(self.counts), int(kinds.max()) + 1, device=classes.device)
        table.index_put_((self.places, kinds), torch.ones_like(kinds, dtype=table.dtype), accumulate=True)
        others = table[self.places] - torch.nn.functional.one_hot(kinds, table.shape[1])
        wrong = int((others.argmax(1) != kinds).sum())
        return wrong / max(1, len(kinds) - int(torch.bincount(kinds).max()))

    def strays(self, target: torch.Tensor) -> float:
        """The share of samples that lie among another level's, in order of the target; 0 where levels are its bands."""
        order = self.places.argsort(stable=True)
        order = order[target[order].argsort(stable=True)]
        in_order = self.places[order]
        changes = int((in_order[1:] != in_order[:-1]).sum())
        return max(0, changes + 1 - len(self.counts)) / 2 / len(target)

    def gap(self, target: torch.Tensor) -> float:
        """How far the target's bands are from each other, over their width: hardly if cut out of one continuum."""
        ends = torch.tensor([0.02, 0.1, 0.5, 0.9, 0.98], dtype=target.dtype, device=target.device)
        rows = torch.stack([target[self.places == level].quantile(ends) for level in range(len(self.counts))])
        rows = rows[rows[:, 2].argsort()]
        between = (rows[1:, 0] - rows[:-1, 4]).clamp(min=0).median()
        return float(between / (rows[:, 3] - rows[:, 1]).median().clamp(min=1e-30))
