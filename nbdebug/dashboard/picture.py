"""Everything on the dashboard as a flat mapping of parts; a frame is the difference of two pictures.

Drawing thread. A part is JSON, JSON already encoded (figure skeletons), or float64 values. Panels that fail are
switched off and say so among the findings: training and the other panels go on.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nbdebug.dashboard import controls, findings, rewind, runbar, runs, snapshots, theme, verdict
from nbdebug.dashboard.figures.activations import ActivationsPanel
from nbdebug.dashboard.figures.gradient_flow import GradientFlowPanel
from nbdebug.dashboard.figures.loss import Loss
from nbdebug.dashboard.figures.panel import Array, Drawing, Json, Panel
from nbdebug.dashboard.figures.verdict import VerdictPanel
from nbdebug.dashboard.tree import Legend
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.view import View

log = logging.getLogger(__name__)

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """Float64 values as bytes, with their shape."""

    data: bytes
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """JSON as text."""

    text: str


Part = Values | Encoded | Json
Picture = Mapping[Key, Part]


def default_panels(legend: Legend | None = None) -> tuple[Panel, ...]:
    """The charts, in the order of the page."""
    legend = legend or Legend()
    return (Loss(legend), GradientFlowPanel(), ActivationsPanel(), VerdictPanel(legend))


class Painter:
    """Makes pictures, and keeps of each panel what need not be made again."""

    def __init__(self, panels: Sequence[Panel], legend: Legend | None = None) -> None:
        self._panels = tuple(panels)
        self._legend = legend or Legend()
        self._kept: dict[str, tuple[tuple[object, ...], Drawing, dict[Key, Part]]] = {}
        self._encoded: dict[str, dict[Key, tuple[Array, Values]]] = {}
        self._listed: tuple[tuple[object, ...], Json] = ((), None)
        self._failed: dict[str, Finding] = {}

    def paint(self, view: View) -> Picture:
        """The picture of a view. About a millisecond; a panel whose structure changed costs some 10 ms more."""
        picture: dict[Key, Part] = {("palette",): theme.palette()}
        for panel in self._panels:
            picture |= self._panel(panel, view)
        titles = {run.run.name: run.run.shown for run in view.runs}
        picture |= {
            ("bar",): runbar.state(view, self._legend),
            ("rewind",): rewind.state(view),
            ("stops",): rewind.stops(view),
            ("controls",): controls.state(view),
            ("runs",): runs.state(view, self._legend),
            ("snapshots",): self._snapshots(view),
            ("verdict",): verdict.state(view, self._legend),
            ("findings",): findings.state((*self._failed.values(), *view.findings), titles),
            ("outcome",): controls.outcome(view),
        }
        return picture

    def _snapshots(self, view: View) -> Json:
        """There may be hundreds, and they seldom change."""
        inputs = (view.snapshots, *(run.run for run in view.runs))
        if not _same(self._listed[0], inputs):
            self._listed = (inputs, snapshots.state(view))
        return self._listed[1]

    def _panel(self, panel: Panel, view: View) -> dict[Key, Part]:
        if panel.name in self._failed:
            return {
                (panel.name, "panel"): {"title": panel.title, "readout": "", "empty": "switched off, see the findings"}
            }
        try:
            return self._parts(panel, view)
        except Exception as error:  # a panel is a plug-in: its fault becomes a finding, the rest goes on
            log.exception("nbdebug: the panel %r failed and is switched off", panel.name)
            self._failed[panel.name] = _failure(panel, view, error)
            return self._panel(panel, view)

    def _parts(self, panel: Panel, view: View) -> dict[Key, Part]:
        inputs = panel.inputs(view)
        kept = self._kept.get(panel.name)
        if kept and _same(kept[0], inputs):
            return kept[2]
        drawing = panel.draw(view)
        parts: dict[Key, Part] = {
            (panel.name, "panel"): {"title": panel.title, "readout": drawing.readout, "empty": drawing.empty},
            (panel.name, "patch"): {"layout": dict(drawing.layout), "traces": dict(drawing.traces)},
        }
        if not drawing.empty:
            parts[panel.name, "figure"] = self._figure(panel, view, drawing, kept)
        parts |= self._arrays(panel.name, drawing)
        self._kept[panel.name] = (inputs, drawing, parts)
        return parts

    def _arrays(self, panel: str, drawing: Drawing) -> dict[Key, Values]:
        """A curve that did not grow is the same array again, and need not be copied."""
        old = self._encoded.get(panel, {})
        new: dict[Key, tuple[Array, Values]] = {}
        for (trace, attribute), array in drawing.arrays.items():
            key: Key = (panel, "array", trace, attribute)
            kept = old.get(key)
            new[key] = kept if kept is not None and kept[0] is array else (array, values(array))
        self._encoded[panel] = new
        return {key: encoded for key, (_, encoded) in new.items()}

    def _figure(
        self, panel: Panel, view: View, drawing: Drawing, kept: tuple[object, Drawing, dict[Key, Part]] | None
    ) -> Part:
        if kept and kept[1].structure == drawing.structure and (panel.name, "figure") in kept[2]:
            return kept[2][panel.name, "figure"]
        return Encoded(panel.skeleton(view).to_json(validate=False))


def _same(old: tuple[object, ...], new: tuple[object, ...]) -> bool:
    """Whether these are the same objects; numbers and texts are made anew all the time, so their values count."""
    return len(old) == len(new) and all(
        a is b or (isinstance(a, int | str) and a == b) for a, b in zip(old, new, strict=True)
    )


def values(array: Array) -> Values:
    """An array as it travels."""
    exact = np.ascontiguousarray(array, dtype=np.float64)
    return Values(exact.tobytes(), exact.shape)


def difference(old: Mapping[Key, object], new: Picture) -> tuple[bytes, bytes] | None:
    """What turns ``old`` into ``new``: JSON, and the float64 values one after the other. ``None`` if they are equal.

    Curves grow at their end: of an array that begins as it did, only the rest is sent, and how many values to keep.
    """
    changed = [(key, part) for key, part in new.items() if key not in old or _differ(old[key], part)]
    gone = [key for key in old if key not in new]
    if not changed and not gone:
        return None
    arrays = [(key, part, _kept(old.get(key), part)) for key, part in changed if isinstance(part, Values)]
    texts = [(key, part) for key, part in changed if not isinstance(part, Values)]
    head = (
        f'{{"gone":{json.dumps(gone)},"arrays":{json.dumps([[key, part.shape, kept] for key, part, kept in arrays])},'
        f'"parts":[{",".join(_parts_json(texts))}]}}'
    )
    return head.encode(), b"".join(part.data[8 * kept :] for _, part, kept in arrays)


def _differ(old: object, new: object) -> bool:
    return old is not new and old != new


def _kept(old: object, new: Values) -> int:
    """How many leading values two curves share, bit by bit; 0 for arrays of two dimensions."""
    if not isinstance(old, Values) or len(new.shape) != 1 or len(old.shape) != 1:
        return 0
    length = min(old.shape[0], new.shape[0])
    before, after = (np.frombuffer(each.data, np.int64, length) for each in (old, new))
    apart = np.flatnonzero(before != after)
    return int(apart[0]) if apart.size else length


def _parts_json(parts: Iterable[tuple[Key, Part]]) -> Iterable[str]:
    for key, part in parts:
        text = part.text if isinstance(part, Encoded) else json.dumps(part, allow_nan=False, separators=(",", ":"))
        yield f"[{json.dumps(key)},{text}]"


def _failure(panel: Panel, view: View, error: Exception) -> Finding:
    return Finding(
        cause=Cause.WATCHING_DISABLED,
        severity=Severity.WARNING,
        run=view.status.run,
        step=view.status.step,
        title=f"The {panel.title} chart is switched off",
        why=f"Drawing it raised {type(error).__name__}: {error}. Training and the other charts go on.",
        detail="".join(traceback.format_exception(error)),
    )
