"""What watching costs, as the browser is to show it when asked. Pure; drawing thread."""

from __future__ import annotations

import math

from nbdebug.dashboard import words
from nbdebug.dashboard.figures.distributions import standard_error
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.cost import Cost
from nbdebug.records.view import View

MOST_PROBES = 16


def state(view: View) -> Json:
    """Rows of name and value, the probes with their share of a sample; ``None`` where nothing is known."""
    cost = view.cost
    if cost is None or view.stored:
        return None
    return {"rows": _rows(cost), "probes": _probes(cost), "notes": notes(view)}


def notes(view: View) -> list[str]:
    """Where the numbers come from, and what can't be seen of the whole model."""
    found = [histograms for histograms, _ in view.layers.histograms]
    sampled = [int(each.sampled.max()) for each in found if (each.sampled < each.elements).any()]
    lines = ["exact: norms, means and largest values of gradients, weights and updates; silent and dead units"]
    if sampled:
        error = max(map(standard_error, found))
        lines.append(f"sampled: histograms, {words.count(max(sampled))} values a layer, shares ± {100 * error:.2g} %")
    elif found:
        lines.append("histograms: every value counted")
    return lines + [f"not seen: {each.what}: {each.why}" for each in view.layers.unseen if not each.layer]


def _rows(cost: Cost) -> list[list[str]]:
    allowed = "no limit" if cost.budget is None else f"{100 * cost.budget:.3g} % allowed"
    rows = [["share of the time", f"{words.percent(cost.share)}, {allowed}"]]
    rows += [["of it for snapshots", words.percent(cost.snapshots)]] if cost.snapshots >= 5e-4 else []
    rows += [["for watched samples", words.percent(cost.passes)]] if cost.passes >= 5e-4 else []
    rows += [["a step takes", _milliseconds(cost.step_s)]] if cost.step_s > 0 else []
    rows += [["watching adds, every step", _milliseconds(cost.fixed_s)]] if cost.fixed_s > 0 else []
    if cost.sample_s > 0:
        rows.append(["to a sampled step", _milliseconds(cost.sample_s)])
    if cost.sample_every > 0 and math.isfinite(cost.sample_every):
        every = round(cost.sample_every)
        rows.append(["sampled", "every step" if every <= 1 else f"one step in {words.count(every)}"])
    rows += [["held between steps", words.size(cost.memory_bytes)]] if cost.memory_bytes else []
    return rows


def _probes(cost: Cost) -> list[Json]:
    """Name, time, share of them all; the dearest first."""
    total = sum(seconds for _, seconds in cost.probes)
    ranked = sorted(cost.probes, key=lambda probe: -probe[1])[:MOST_PROBES]
    return [[name, _milliseconds(seconds), round(seconds / total, 2) if total > 0 else 0.0] for name, seconds in ranked]


def _milliseconds(seconds: float) -> str:
    """Two digits, so that it does not change all the time: ``1.2 ms``."""
    value = 1e3 * seconds
    return f"{value:.2g} ms" if value < 100 else f"{value:,.0f} ms"
