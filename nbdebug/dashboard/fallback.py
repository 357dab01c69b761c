"""The dashboard in plain words, for where widgets cannot be shown, and as the widget's text. Pure; any thread."""

from __future__ import annotations

from nbdebug.dashboard import ability, breakpoints, rewind, runbar, words
from nbdebug.dashboard.figures import gradient_flow, loss
from nbdebug.dashboard.figures.distributions import DistributionsPanel
from nbdebug.dashboard.figures.over_time import OverTimePanel
from nbdebug.dashboard.lens import Lens
from nbdebug.dashboard.tree import shown, training
from nbdebug.records.commands import ClipMode
from nbdebug.records.view import View


def text(view: View) -> str:
    """A few lines: progress and place, knobs, the charts' read-outs, findings, runs, the latest comparison."""
    status, knobs = view.status, view.knobs
    goal = f"/{status.goal_epoch}" if status.goal_epoch else ""
    word = "from disk" if view.stored else runbar.word(status)
    lines = [
        f"nbdebug: {word}, epoch {runbar.epoch_shown(status)}{goal}, step {words.count(status.step)}"
        + (" of " if view.stored else ", in the model: ")
        + shown(view, status.run)
    ]
    lines += [line for line in (status.message, ability.place(view), _activity(view)) if line]
    if view.stop is not None:
        lines.append(breakpoints.sentence(view.stop))
    if knobs.groups or not view.stored:
        rates = ", ".join(f"{group.name} {words.rate(group.in_force)}".strip() for group in knobs.groups)
        clip = "off" if knobs.clip.mode is ClipMode.OFF else f"{knobs.clip.mode} {knobs.clip.threshold:g}"
        lines.append(f"lr {rates or '–'}, clip {clip}, {_dropout(view)}")
    if view.runs and any(run.train.steps.size for run in view.runs):
        lines.append(f"loss: {loss.readout(view, len(training(view.runs)))}")
    table = gradient_flow.measured(view.layers.latest)
    if table is not None:
        lines.append(f"gradients: {gradient_flow.readout(table, False, view.layers.step)}")
    lines += _layers(view)
    lines += [f"{finding.severity}: {finding.title}. {finding.why}" for finding in view.findings]
    runs = training(view.runs)
    if len(runs) > 1:
        lines.append("runs: " + ", ".join(f"{run.run.shown} ({words.plural(run.steps, 'step')})" for run in runs))
    if view.comparison is not None:
        lines.append(f"comparison: {view.comparison.sentence}")
    if view.search is not None:
        lines.append(f"search: {view.search.sentence}")
    return "\n".join(lines)


def _layers(view: View) -> list[str]:
    """The read-outs of the other charts of layers, as they are before anything is chosen."""
    lens, lines = Lens(), []
    for panel in (DistributionsPanel(lens), OverTimePanel(lens)):
        drawing = panel.draw(view)
        if not drawing.empty:
            lines.append(f"{drawing.title.lower()}: {drawing.readout}")
    return lines


def _activity(view: View) -> str:
    activity = rewind.activity(view)
    return str(activity["text"]) if activity else ""


def _dropout(view: View) -> str:
    rates = sorted({layer.p for layer in view.knobs.dropout})
    return "dropout " + "…".join(f"{p:g}" for p in rates) if rates else "no dropout"
