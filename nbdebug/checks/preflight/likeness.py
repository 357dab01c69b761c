"""Where a loss is made of how alike output and target are: cosines and correlations, torch's and by hand. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nbdebug.checks.preflight.lossward import compares_with_data, meetings, weighed
from nbdebug.checks.preflight.trace import MOVES, Call, LossCall, StepTrace
from nbdebug.checks.preflight.wiring import consumers, descendants

COSINES = frozenset({"cosine_similarity"})
PRODUCTS = frozenset({"mul", "multiply"})
SUMS = frozenset({"sum", "mean"})
QUOTIENTS = frozenset({"div", "divide", "true_divide"})
BENDS = frozenset(
    {"pow", "square", "abs", "relu", "clamp", "clip", "clamp_min", "clamp_max", "max", "maximum", "softplus"}
)
NORMS = frozenset({"norm", "linalg_norm", "vector_norm", "linalg_vector_norm", "sqrt", "std", "rsqrt"})


@dataclass(frozen=True, slots=True)
class Likeness:
    """A comparison that grows as output and target become alike, and the factor with which it is minimised."""

    met: LossCall
    coefficient: float


def likenesses(trace: StepTrace) -> list[Likeness]:
    """Those that training goes by; none where anything else is compared as well, as beside a penalty."""
    factors, users = weighed(trace), consumers(trace)
    found: list[Likeness] = []
    for meeting in meetings(trace):
        met = meeting.loss
        if not meeting.by_hand or not compares_with_data(trace, met):
            return []
        if _are_sizes(trace, met):
            continue  # the product of both sizes, by which a product is divided
        top = met.call if met.name in COSINES or _has_unit_parts(trace, met) else _divided(trace, users, met.call)
        if top is None or top.index not in factors or _is_bent(users, top):
            return []
        found.append(Likeness(met, factors[top.index]))
    return found


def _origins(trace: StepTrace, met: LossCall) -> Iterator[Call | None]:
    for number in (met.input_number, met.target_number):
        yield trace.origin(number, met.call.index)[1] if number else None


def _are_sizes(trace: StepTrace, met: LossCall) -> bool:
    return met.name in PRODUCTS and all(made is not None and made.name in NORMS for made in _origins(trace, met))


def _has_unit_parts(trace: StepTrace, met: LossCall) -> bool:
    """Whether it multiplies what was brought to length one before."""
    return met.name in PRODUCTS and all(
        made is not None and (made.name == "normalize" or _divides_by_norm(trace, made))
        for made in _origins(trace, met)
    )


def _divides_by_norm(trace: StepTrace, call: Call) -> bool:
    if call.name not in QUOTIENTS or len(call.inputs) != 2:
        return False
    below = call.inputs[1]
    return any(each.name in NORMS for each in _near(trace, below, call.index))


def _near(trace: StepTrace, number: int, before: int, most: int = 8) -> Iterator[Call]:
    """The last calls behind a tensor."""
    for each, _ in zip(trace.ancestors(number, before), range(most), strict=False):
        yield each


def _is_bent(users: dict[int, list[Call]], call: Call) -> bool:
    """Whether only its size counts, or only what lies beyond a margin."""
    return any(each.name.strip("_") in BENDS for each in descendants(users, call))


def _divided(trace: StepTrace, users: dict[int, list[Call]], product: Call) -> Call | None:
    """Where a sum of products is divided by sizes."""
    if product.name not in PRODUCTS:
        return None
    call: Call | None = product
    while call is not None and (call is product or call.name in SUMS | MOVES):
        following = [each for number in call.outputs for each in users.get(number, []) if each.index > call.index]
        quotients = [each for each in following if _divides_by_norm(trace, each) and each.inputs[0] in call.outputs]
        if quotients and call is not product:
            return quotients[0]
        call = following[0] if len(following) == 1 else None
    return None
