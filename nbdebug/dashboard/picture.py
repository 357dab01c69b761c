"""Everything on the dashboard as a flat mapping of parts; a frame is the difference of two pictures.

Drawing thread. A part is JSON, JSON already encoded (figure skeletons), or float64 values. Panels that fail are
switched off and say so among the findings: training and the other panels go on.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import (
    batch,
    breakpoints,
    change,
    checks,
    controls,
    cost,
    finder,
    findings,
    rewind,
    runbar,
    runs,
    samples,
    search,
    snapshots,
    theme,
    trials,
    verdict,
)
from nbdebug.dashboard.figures.distributions import DistributionsPanel
from nbdebug.dashboard.figures.gradient_flow import GradientFlowPanel
from nbdebug.dashboard.figures.loss import Loss
from nbdebug.dashboard.figures.lr_curve import LrCurvePanel
from nbdebug.dashboard.figures.over_time import OverTimePanel
from nbdebug.dashboard.figures.panel import Array, Drawing, Json, Panel
from nbdebug.dashboard.figures.search import SearchPanel
from nbdebug.dashboard.figures.story import StoryPanel
from nbdebug.dashboard.figures.verdict import VerdictPanel
from nbdebug.dashboard.layer_table import LayerTablePanel
from nbdebug.dashboard.lens import Lens, scope
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


@dataclass(frozen=True, slots=True)
class _Kept:
    """A panel as last drawn: from what, when (seconds), under which choices, and what came of it."""

    inputs: tuple[object, ...]
    drawn_at: float
    version: int
    drawing: Drawing
    parts: dict[Key, Part]


def default_panels(legend: Legend | None = None, lens: Lens | None = None) -> tuple[Panel, ...]:
    """The charts and the table of layers, in the order of the page."""
    legend, lens = legend or Legend(), lens or Lens()
    layers = (GradientFlowPanel(lens), DistributionsPanel(lens), OverTimePanel(lens), LayerTablePanel(lens))
    return (Loss(legend), *layers, StoryPanel(lens), VerdictPanel(legend), LrCurvePanel(), SearchPanel())


class Painter:
    """Makes pictures, and keeps of each panel what need not be made again.

    Panels that have a period are drawn again no sooner than that, and one of them at a time, so that no tick is a long
    one and no frame a large one; what the person chose is drawn at once.
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        legend: Legend | None = None,
        lens: Lens | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._panels = tuple(panels)
        self._legend = legend or Legend()
        self._lens = lens or Lens()
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._scope: tuple[tuple[object, ...], Json] = ((), None)
        self._encoded: dict[str, dict[Key, tuple[Array, Values]]] = {}
        self._listed: tuple[tuple[object, ...], Json] = ((), None)
        self._cards: tuple[tuple[object, ...], Json] = ((None,), None)
        self._failed: dict[str, Finding] = {}
        self._answers = breakpoints.Answers()
        self._batch: tuple[tuple[object, ...], Json] = ((None,), batch.state(None))
        self._own: tuple[tuple[object, ...], Json] = ((), [])
        self._samples: tuple[tuple[object, ...], Json] = ((), {"hint": samples.WAITING})
        self._looks: tuple[tuple[object, ...], Json] = ((None,), samples.looks(None))

    def paint(self, view: View, *, whole: bool = False) -> Picture:
        """The picture of a view. About a millisecond; a panel whose structure changed costs some 10 ms more.

        ``whole``: nothing is put off, and hidden tabs are drawn, too.
        """
        picture: dict[Key, Part] = {("palette",): theme.palette()}
        inputs = self._inputs(view)
        chosen = self._chosen(inputs, whole)
        for panel in self._panels:
            picture |= self._panel(panel, view, inputs.get(panel.name), panel.name in chosen)
        picture |= {
            ("bar",): runbar.state(view, self._legend),
            ("rewind",): rewind.state(view),
            ("stops",): rewind.stops(view),
            ("controls",): controls.state(view),
            ("runs",): runs.state(view, self._legend),
            ("snapshots",): self._snapshots(view),
            ("verdict",): verdict.state(view, self._legend),
            ("checks",): checks.state(view),
            ("finder",): finder.state(view),
            ("searching",): search.state(view),
            ("findings",): self._found(view),
            ("outcome",): controls.outcome(view),
            ("cost",): cost.state(view),
            ("focus",): self._lens.state(view),
            ("scope",): self._scoped(view),
            ("breakpoints",): breakpoints.state(view, self._answers.latest(view)),
            ("batch",): self._batched(view, whole),
            ("change",): change.state(view, self._lens.names(view)),
            ("own",): self._owned(view, whole),
            ("samples",): self._sampled(view, whole),
            ("looks",): self._looked(view, whole),
        }
        return picture

    def _found(self, view: View) -> Json:
        """Cards seldom change; what a trial takes does all the time."""
        failed, runs = tuple(self._failed.values()), tuple(run.run for run in view.runs)
        inputs = (view.findings, view.courses, *view.proofs, *failed, *runs, view.status.run)
        if not _same(self._cards[0], inputs):
            self._cards = (inputs, findings.state((*failed, *view.findings), view))
        return self._cards[1] | trials.state(view)

    def _snapshots(self, view: View) -> Json:
        """There may be hundreds, and they seldom change."""
        inputs = (view.snapshots, *(run.run for run in view.runs))
        if not _same(self._listed[0], inputs):
            self._listed = (inputs, snapshots.state(view))
        return self._listed[1]

    def _batched(self, view: View, whole: bool) -> Json:
        """Pictures are large and stay as long as the stop does; nobody is sent them who does not look."""
        seen = view.report.batch if view.report is not None else None
        inputs = (view.stop, seen)
        if not _same(self._batch[0], inputs):
            if not (whole or self._lens.shows(batch.BATCH_TAB)):
                return batch.state(None) if view.stop is None and seen is None else {"hint": batch.WAITING}
            self._batch = (inputs, batch.state(view.stop, seen))
        return self._batch[1]

    def _owned(self, view: View, whole: bool) -> Json:
        """Pictures of the user's, too: made again only where there are others, sent only to who looks."""
        if not _same(self._own[0], view.panels) and (whole or self._lens.shows(change.CHANGE_TAB)):
            self._own = (view.panels, change.panels(view.panels))
        return self._own[1]

    def _sampled(self, view: View, whole: bool) -> Json:
        """What passes tell of samples, made again where there are others, and sent only to who looks."""
        if not _same(self._samples[0], (view.samples,)) and (whole or self._lens.shows(samples.SAMPLES_TAB)):
            self._samples = ((view.samples,), samples.state(view.samples))
        return self._samples[1]

    def _looked(self, view: View, whole: bool) -> Json:
        """How they look stays as long as they are watched."""
        inputs = (view.samples.set,)
        if not _same(self._looks[0], inputs) and (whole or self._lens.shows(samples.SAMPLES_TAB)):
            self._looks = (inputs, samples.looks(view.samples.set))
        return self._looks[1]

    def _scoped(self, view: View) -> Json:
        """The rows at the present place in the tree; for the browser, in the order of the table."""
        names = view.layers.latest.layers if view.layers.latest else ()
        inputs = (self._lens.rows(view), names)
        if not _same(self._scope[0], inputs):
            self._scope = (inputs, scope(inputs[0], names))
        return self._scope[1]

    def _inputs(self, view: View) -> dict[str, tuple[object, ...]]:
        """What each panel depends on; a panel that fails here is switched off."""
        found = {}
        for panel in self._panels:
            if panel.name not in self._failed:
                try:
                    found[panel.name] = panel.inputs(view)
                except Exception as error:  # a panel is a plug-in: its fault becomes a finding, the rest goes on
                    self._switch_off(panel, view, error)
        return found

    def _chosen(self, inputs: Mapping[str, tuple[object, ...]], whole: bool) -> set[str]:
        """The panels to draw now: of those with a period only the one that waited longest, but for the first time."""
        now, version = self._clock(), self._lens.version
        chosen, waiting = set(), []
        for panel in self._panels:
            if panel.name not in inputs or not (whole or not panel.tab or self._lens.shows(panel.tab)):
                continue
            kept = self._kept.get(panel.name)
            if kept is None or whole or kept.drawing.empty or kept.version != version or not panel.period_s:
                chosen.add(panel.name)
            elif now - kept.drawn_at >= panel.period_s and not _same(kept.inputs, inputs[panel.name]):
                waiting.append((kept.drawn_at, panel.name))
        return chosen | {name for _, name in sorted(waiting)[:1]}

    def _panel(self, panel: Panel, view: View, inputs: tuple[object, ...] | None, due: bool) -> dict[Key, Part]:
        if panel.name in self._failed or inputs is None:
            return {
                (panel.name, "panel"): {"title": panel.title, "readout": "", "empty": "switched off, see the findings"}
            }
        kept = self._kept.get(panel.name)
        if not due:
            return kept.parts if kept else {}
        try:
            return self._parts(panel, view, inputs, kept)
        except Exception as error:  # a panel is a plug-in: its fault becomes a finding, the rest goes on
            self._switch_off(panel, view, error)
            return self._panel(panel, view, None, due)

    def _switch_off(self, panel: Panel, view: View, error: Exception) -> None:
        log.exception("nbdebug: the panel %r failed and is switched off", panel.name)
        self._failed[panel.name] = _failure(panel, view, error)

    def _parts(self, panel: Panel, view: View, inputs: tuple[object, ...], kept: _Kept | None) -> dict[Key, Part]:
        if kept and _same(kept.inputs, inputs):
            self._kept[panel.name] = replace(kept, version=self._lens.version)
            return kept.parts
        drawing = panel.draw(view)
        parts: dict[Key, Part] = {
            (panel.name, "panel"): {
                "title": drawing.title or panel.title,
                "readout": drawing.readout,
                "empty": drawing.empty,
            },
            (panel.name, "patch"): {"layout": dict(drawing.layout), "traces": dict(drawing.traces)},
        }
        if not drawing.empty:
            parts[panel.name, "figure"] = _figure(panel, view, drawing, kept)
        parts |= self._arrays(panel.name, drawing)
        self._kept[panel.name] = _Kept(inputs, self._clock(), self._lens.version, drawing, parts)
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


def _figure(panel: Panel, view: View, drawing: Drawing, kept: _Kept | None) -> Part:
    if kept and kept.drawing.structure == drawing.structure and (panel.name, "figure") in kept.parts:
        return kept.parts[panel.name, "figure"]
    made = panel.skeleton(view)
    return Encoded(made.to_json(validate=False) if isinstance(made, go.Figure) else _compact(made))


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
    """How many leading values two curves share, bit by bit; of two tables, only where their rows are as long."""
    if not isinstance(old, Values) or old.shape[1:] != new.shape[1:]:
        return 0
    length = min(len(old.data), len(new.data)) // 8
    before, after = (np.frombuffer(each.data, np.int64, length) for each in (old, new))
    apart = np.flatnonzero(before != after)
    return int(apart[0]) if apart.size else length


def _parts_json(parts: Iterable[tuple[Key, Part]]) -> Iterable[str]:
    for key, part in parts:
        text = part.text if isinstance(part, Encoded) else _compact(part)
        yield f"[{json.dumps(key)},{text}]"


def _compact(part: Json) -> str:
    return json.dumps(part, allow_nan=False, separators=(",", ":"))


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
