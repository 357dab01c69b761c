"""A likeness to the targets that is made small is named; made large, or lowered for a reason, it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from nbdebug import Trainer
from tests.checks.preflight.looking import judged, told_apart
from tests.checks.preflight.losses import DATA, mlp, trained

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MAXIMISED: Any = lambda parameters: torch.optim.Adam(parameters, 1e-3, maximize=True)  # noqa: E731


def program(name: str, loss: Loss, **options: Any) -> Callable[[], tuple[Any, Trainer]]:
    """Outputs as wide as the targets, which are numbers of both signs."""

    def made() -> tuple[Any, Trainer]:
        return trained(mlp(6), loss, DATA.x.roll(1, 1) + DATA.x.square(), **options)

    made.__name__ = name.replace(" ", "_")
    return made


def cosine(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(o, t).mean()


def by_norms(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return ((o * t).sum(1) / (o.norm(dim=1) * t.norm(dim=1))).mean()


def by_unit_vectors(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (F.normalize(o, dim=1) * F.normalize(t, dim=1)).sum(1).mean()


def pearson(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    o, t = o - o.mean(), t - t.mean()
    return (o * t).sum() / (o.pow(2).sum().sqrt() * t.pow(2).sum().sqrt())


def with_negatives(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return cosine(o, t.roll(1, 0)) - cosine(o, t)


def margin(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    apart = F.cosine_similarity(o, t.roll(1, 0)) - F.cosine_similarity(o, t) + 0.2
    return apart.relu().mean()


def negatives_by_a_margin(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (F.cosine_similarity(o, t) - 0.1).clamp(min=0).mean()


def beside_an_error(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Near to the targets, and apart from their neighbours."""
    return F.mse_loss(o, t) + 0.1 * cosine(o, t.roll(1, 0))


def beside_an_error_by_hand(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (o - t).square().mean() + 0.1 * pearson(o, t.roll(1, 0))


def of_itself(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Halves of the output are to differ, beside an error."""
    return F.mse_loss(o, t) + F.cosine_similarity(o[:, :3], o[:, 3:]).mean()


FAULTS = {
    "loss_sign_error": [
        program("cosine", cosine),
        program("cosine plus one", lambda o, t: 1 + cosine(o, t)),
        program("cosine of half", lambda o, t: 0.5 * F.cosine_similarity(o, t, dim=1).sum() / len(o)),
        program("two cosines", lambda o, t: cosine(o, t) + cosine(o[:, :3], t[:, :3])),
        program("minus twice", lambda o, t: -(1 - cosine(o, t))),
        program("by norms", by_norms),
        program("by unit vectors", by_unit_vectors),
        program("pearson", pearson),
        program("one minus, maximised", lambda o, t: 1 - cosine(o, t), optimizer=MAXIMISED),
    ]
}
HEALTHY = {
    "loss_sign_error": [
        program("one minus", lambda o, t: 1 - cosine(o, t)),
        program("minus", lambda o, t: -cosine(o, t)),
        program("one minus, each", lambda o, t: (1 - F.cosine_similarity(o, t)).mean()),
        program("by norms, minus", lambda o, t: -by_norms(o, t)),
        program("by unit vectors, two minus twice", lambda o, t: 2 - 2 * by_unit_vectors(o, t)),
        program("one minus pearson", lambda o, t: 1 - pearson(o, t)),
        program("maximised", cosine, optimizer=MAXIMISED),
        program("a square", lambda o, t: cosine(o, t).square()),
        program("the size", lambda o, t: F.cosine_similarity(o, t).abs().mean()),
        program("with negatives", with_negatives),
        program("a margin", margin),
        program("negatives by a margin", negatives_by_a_margin),
        program("beside an error", beside_an_error),
        program("beside an error by hand", beside_an_error_by_hand),
        program("of itself", of_itself),
        program("a policy", lambda o, t: -(o.log_softmax(1) * (t - t.mean()) / t.std()).mean()),
    ]
}

test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY, fault_seeds=(0,))


def test_the_line_that_compares_is_told() -> None:
    finding = judged("loss_sign_error", *FAULTS["loss_sign_error"][0]()).findings[0]
    assert finding.line is not None and "F.cosine_similarity(o, t).mean()" in finding.line.code
    assert finding.remedies[0].code == "loss = 1 - similarity"
