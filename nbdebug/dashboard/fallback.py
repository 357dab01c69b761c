"""The dashboard in plain words, for where widgets cannot be shown, and as the widget's text. Pure; any thread."""

from __future__ import annotations

from nbdebug.dashboard import runbar, words
from nbdebug.dashboard.figures import activations, gradient_flow, loss
from nbdebug.records.commands import ClipMode
from nbdebug.records.view import View


def text(view: View) -> str:
    """A few lines: progress, knobs, the three charts' read-outs, findings, runs."""
    status, knobs = view.status, view.knobs
    goal = f"/{status.goal_epoch}" if status.goal_epoch else ""
    lines = [
        f"nbdebug: {runbar.word(status)}, epoch {runbar.epoch_shown(status)}{goal}, step {words.count(status.step)}, "
        f"in the model: {status.run}"
    ]
    if status.message:
        lines.append(status.message)
    rates = ", ".join(f"{group.name} {words.rate(group.in_force)}".strip() for group in knobs.groups)
    clip = "off" if knobs.clip.mode is ClipMode.OFF else f"{knobs.clip.mode} {knobs.clip.threshold:g}"
    lines.append(f"lr {rates or '–'}, clip {clip}, {_dropout(view)}")
    if view.runs and any(run.train.steps.size for run in view.runs):
        lines.append(f"loss: {loss.readout(view, len(view.runs))}")
    if view.gradients is not None and view.gradients.layers:
        lines.append(f"gradients: {gradient_flow.readout(view.gradients, False, view.gradients_step)}")
    if view.activations is not None and view.activations.layers:
        lines.append(f"activations: {activations.readout(view.activations, view.activations_step)}")
    lines += [f"{finding.severity}: {finding.title}. {finding.why}" for finding in view.findings]
    if len(view.runs) > 1:
        lines.append("runs: " + ", ".join(f"{run.run.name} ({words.plural(run.steps, 'step')})" for run in view.runs))
    return "\n".join(lines)


def _dropout(view: View) -> str:
    rates = sorted({layer.p for layer in view.knobs.dropout})
    return "dropout " + "…".join(f"{p:g}" for p in rates) if rates else "no dropout"
