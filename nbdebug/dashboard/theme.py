"""Colours: one table for the stylesheet and for the charts, light and dark. Pure; any thread.

Charts are authored in the light colours. The browser knows the table (:func:`palette`) and swaps each of these
colours for what its stylesheet says now, so that a change of theme needs no message. Series colours are Okabe and
Ito's (https://jfly.uni-koeln.de/color/), darkened or lightened until they stand out from the panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class Tone:
    """A colour in both themes; ``jupyter`` is the CSS expression that overrides it where JupyterLab says better."""

    light: str
    dark: str
    jupyter: str = ""


TONES: Final[dict[str, Tone]] = {
    "panel": Tone("#fefefe", "#171b20", "var(--jp-layout-color1, {})"),
    "ink": Tone("#1d2228", "#e7eaee", "var(--jp-ui-font-color1, {})"),
    "soft": Tone("#f5f6f8", "#1f242a", "color-mix(in srgb, var(--nbd-ink) 4.5%, var(--nbd-panel))"),
    "line": Tone("#e0e2e6", "#2c333b", "color-mix(in srgb, var(--nbd-ink) 14%, var(--nbd-panel))"),
    "grid": Tone("#eceef1", "#232a31", "color-mix(in srgb, var(--nbd-ink) 8%, var(--nbd-panel))"),
    "mute": Tone("#606975", "#98a4b1", "color-mix(in srgb, var(--nbd-ink) 72%, var(--nbd-panel))"),
    "brand": Tone("#1976d2", "#64b5f6", "var(--jp-brand-color1, {})"),
    "train": Tone("#0072b2", "#56b4e9"),
    "val": Tone("#c97800", "#f0a830"),
    "branch": Tone("#00855f", "#2fc69a"),
    "clip": Tone("#b65a92", "#d98abb"),
    "bad": Tone("#c04a08", "#ff8a4c"),
    "warn": Tone("#8f6600", "#f0c13c"),
    "ok": Tone("#2a8055", "#57c98b"),
    "violet": Tone("#6a51a3", "#a99be0"),
    "teal": Tone("#147d8c", "#4fc3d3"),
    "score1": Tone("#3f1a73", "#f4e04d"),  # best to worst, as viridis goes, away from the panel's own lightness
    "score2": Tone("#2c4f8f", "#8fd35a"),
    "score3": Tone("#1b7f86", "#38b3a0"),
    "score4": Tone("#5f8f2a", "#4488be"),
    "score5": Tone("#a0861c", "#7d70b8"),
}
RUNS: Final = ("train", "branch", "clip", "violet", "teal", "bad", "warn")


def tone(name: str) -> str:
    """The colour in which charts are authored, as ``#rrggbb``."""
    return TONES[name].light


def run_tone(index: int) -> str:
    """The name of the colour of the run made as number ``index``; they repeat after seven."""
    return RUNS[index % len(RUNS)]


def palette() -> dict[str, str]:
    """Authored colour → name, for the browser."""
    return {each.light: name for name, each in TONES.items()}


@cache
def stylesheet() -> str:
    """The CSS that declares every colour as ``--nbd-<name>``, for light, dark and hosts that say which."""
    light, dark = (_declarations(dark) for dark in (False, True))
    return (
        f".nbd{{{light}}}\nbody[data-jp-theme-light=false] .nbd,body.vscode-dark .nbd,html[theme=dark] .nbd{{{dark}}}\n"
    )


def _declarations(dark: bool) -> str:
    lines = []
    for name, each in TONES.items():
        value = each.dark if dark else each.light
        lines.append(f"--nbd-{name}:{each.jupyter.format(value) if each.jupyter else value}")
    return ";".join([*lines, f"color-scheme:{'dark' if dark else 'light'}"])


@cache
def template() -> go.layout.Template:
    """Plotly's template for all charts: thin grid, small muted ticks, no frame, the panel's own background."""
    axis = {
        "gridcolor": tone("grid"),
        "linecolor": tone("line"),
        "zeroline": False,
        "ticks": "",
        "tickfont": {"size": 10.5, "color": tone("mute")},
        "title": {"font": {"size": 10.5, "color": tone("mute")}, "standoff": 4},
        "fixedrange": False,
    }
    return go.layout.Template(
        layout={
            "font": {"size": 11, "color": tone("mute")},
            "paper_bgcolor": tone("panel"),
            "plot_bgcolor": tone("panel"),
            "colorway": [tone(name) for name in RUNS],
            "margin": {"l": 44, "r": 10, "t": 10, "b": 30},
            "xaxis": axis,
            "yaxis": axis,
            "showlegend": False,
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": tone("panel"), "bordercolor": tone("line"), "font": {"color": tone("ink")}},
            "dragmode": "zoom",
        }
    )
