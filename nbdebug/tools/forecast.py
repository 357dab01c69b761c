"""The next step under other knobs, taken on the side: what each layer's update would be. Training thread, at rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from nbdebug.probes import reductions
from nbdebug.probes.parameters import ParameterTable
from nbdebug.records.commands import Changes, ClipMode, SwapOptimizer
from nbdebug.records.errors import collect
from nbdebug.records.forecast import Forecast
from nbdebug.records.frames import Floats
from nbdebug.tools.forecast_memory import foretell_memory
from nbdebug.training.aside import aside, batch_of_its_own, take_step
from nbdebug.training.data import Held
from nbdebug.training.modules import named_modules

if TYPE_CHECKING:
    from nbdebug.training.session import Session

RECENT = 100


@dataclass(frozen=True)
class Question:
    """What is asked about the next step: under ``changes`` of knobs, and with another optimizer where one is named.

    ``before`` are changes that what is ``now`` is taken under, such as those that lead back to how the knobs were.
    """

    changes: Changes = field(default_factory=Changes)
    swap: SwapOptimizer | None = None
    before: Changes = field(default_factory=Changes)
    now: str = "now"


def forecast(session: Session, question: Question, norms: Sequence[float]) -> Forecast:
    """What the next step would be; the batch for it is fetched, held, and then used by the next step.

    ``norms`` are the gradient norms of the latest steps. All is as it was afterwards, bit for bit. A batch size changes
    which batch comes next: of that only the memory is foretold.

    Raises:
        ConfigurationError: the changes can't be made.
        CommandError: there is no next batch in this epoch, or the memory can't be foretold.
    """
    session.ensure_started()
    session.knobs.refresh()
    mistakes = session.knobs.mistakes(question.changes)
    if mistakes:
        raise collect(mistakes)
    size = question.changes.batch_size
    changes, before = (replace(each, batch_size=None) for each in (question.changes, question.before))
    held = session.halts.hold()
    table = ParameterTable(named_modules(session.model))
    with session.unnoticed():
        now, loss, norm = _step(session, held, before, table)
        asked = changes or question.swap is not None or before
        if asked:
            ratios, loss, norm = _step(session, held, changes, table, question.swap)
        memory = foretell_memory(session, held, size) if size is not None else None
    recent = np.asarray(norms[-RECENT:], dtype=np.float64)
    clip = changes.clip or session.knobs.clip
    counted = clip.mode is ClipMode.NORM and len(recent) > 0
    clipped = float(np.mean(recent > clip.threshold)) if counted else math.nan
    return Forecast(
        *(question.changes, tuple(table.layers), ratios if asked else now, now, loss, norm, clipped, len(recent)),
        *(str(question.swap or ""), memory, session.timeline.current, session.loop.step, question.now),
    )


def _step(
    session: Session, held: Held, changes: Changes, table: ParameterTable, swap: SwapOptimizer | None = None
) -> tuple[Floats, float, float]:
    """Update ratios by layer, loss, and norm of the gradients."""
    batch = batch_of_its_own(session, held)
    norms: list[torch.Tensor] = []
    with aside(session, held), _swapped(session, swap):
        session.knobs.apply(changes)
        session.stepper.guard.capture = lambda optimizer: norms.append(_gradient_norm(optimizer))
        parameters = table.owned(table)
        before = [parameter.detach().clone() for parameter in parameters]
        found = take_step(session, batch).loss
        loss = float(found.detach() if isinstance(found, torch.Tensor) else found)
        changed = [parameter.detach() - old for parameter, old in zip(parameters, before, strict=True)]
        layout = table.layout(parameters)
        sizes, moved = (_norms(values) for values in (before, changed))
    by_name = dict(zip(layout.layers, _ratios(layout.norms(moved), layout.norms(sizes)).tolist(), strict=True))
    ratios = np.asarray([by_name.get(name, math.nan) for name in table.layers])
    norm = math.sqrt(sum(float(each) ** 2 for each in norms)) if norms else math.nan
    return ratios, loss, norm


@contextmanager
def _swapped(session: Session, swap: SwapOptimizer | None) -> Iterator[None]:
    """Within, another optimizer is in use; then the very one that was. Values are put back by whoever is outside."""
    if swap is None:
        yield
        return
    equipment = session.refitter.equipment()
    try:
        session.refitter.refit(swap)
        yield
    finally:
        session.refitter.put_back(equipment)


def _gradient_norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    gradients = [
        reductions.dense(p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    found = reductions.norms(gradients)
    return torch.linalg.vector_norm(torch.stack([norm.to(found[0]) for norm in found])) if found else torch.zeros(())


def _norms(values: list[torch.Tensor]) -> Floats:
    found: Floats = np.asarray([float(norm) for norm in reductions.norms(values)], dtype=np.float64)
    return found


def _ratios(moved: Floats, sizes: Floats) -> Floats:
    found: Floats = np.divide(moved, sizes, out=np.full(len(sizes), math.nan), where=sizes > 0)
    return found
