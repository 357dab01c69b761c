"""What a frame of the dashboard costs, by layers. By hand: python -m tests.benchmarks.frames

Every tick brings a new sample of all layers, which is the most that can be: a new table, three kinds of histograms,
one more point of every track and one more column of the story. The clock is the dashboard's: ten ticks a second.
``median`` and ``largest`` are over the frames of 20 s; ``drawing`` is processor time of this thread per tick, what
training pays at most; ``quiet`` the same where nothing changed; ``first`` the whole picture at the start.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace

import numpy as np

from nbdebug.dashboard.lens import Lens
from nbdebug.dashboard.picture import Painter, Picture, default_panels, difference
from nbdebug.dashboard.tree import Legend
from nbdebug.records.view import LayersView, View
from tests.dashboard import views

SIZES = (5, 60, 200, 400, 1000)
TICKS = 200
PERIOD_S = 0.1
HEADS = ("layers", "first, kB", "median frame, kB", "largest, kB", "drawing, ms a tick", "largest, ms", "quiet, ms")


def sampled(size: int, ticks: int, *, tab: bool = True) -> list[View]:
    """A view per tick, each with a new sample."""
    samples = [views.layers(size, seed=seed) for seed in range(4)]
    tracks = views.tracks(size, ticks + 40)
    story = views.story(columns=min(ticks + 40, 128))
    made = []
    for tick in range(ticks):
        sample, length = samples[tick % 4], tick + 40
        grown = replace(
            tracks, steps=tracks.steps[:length], low=tracks.low[:length], high=tracks.high[:length],
            odd=tracks.odd[:length],
        )  # fmt: skip
        columns = slice(0, min(length, 128))
        told = replace(story, steps=story.steps[columns], counts=story.counts[columns], limits=story.limits[columns])
        layers = LayersView(sample.latest, length, sample.histograms, (grown,), told if tab else None)
        made.append(views.view(layers=layers))
    return made


def measure(size: int, ticks: int = TICKS, *, tab: bool = True) -> tuple[int, list[int], list[float], float]:
    """Bytes of the first frame and of all others, thread time of each tick, and of one where nothing changed."""
    now, lens, legend = [0.0], Lens(), Legend()
    lens.open_tab("v", "layers" if tab else "runs")
    lens.choose({"layer": views.names(size)[0]})
    painter = Painter(default_panels(legend, lens), legend, lens, clock=lambda: now[0])
    made = sampled(size, ticks, tab=tab)
    picture: Picture = painter.paint(made[0])
    first = _bytes({}, picture)
    sizes, times = [], []
    gc.collect()
    for view in made[1:]:
        now[0] += PERIOD_S
        before, began = picture, time.thread_time()
        picture = painter.paint(view)
        sizes.append(_bytes(before, picture))
        times.append(time.thread_time() - began)
    for _ in range(20):  # what was put off is drawn
        now[0] += 1.0
        picture = painter.paint(made[-1])
    began = time.thread_time()
    for _ in range(20):
        now[0] += PERIOD_S
        picture = painter.paint(made[-1])
    return first, sizes, times, (time.thread_time() - began) / 20


def _bytes(before: Picture, after: Picture) -> int:
    frame = difference(before, after)
    return len(frame[0]) + len(frame[1]) if frame else 0


def main() -> None:
    """Print the table."""
    print("| " + " | ".join(HEADS) + " |\n" + "|---" * len(HEADS) + "|")
    for tab in (True, False):
        for size in SIZES:
            first, sizes, times, quiet = measure(size, tab=tab)
            hidden = "" if tab else " (tab hidden)"
            print(
                f"| {size:,}{hidden} | {first / 1e3:.0f} | {np.median(sizes) / 1e3:.1f} | {max(sizes) / 1e3:.1f} "
                f"| {1e3 * np.median(times):.2f} | {1e3 * max(times):.1f} | {1e3 * quiet:.2f} |"
            )


if __name__ == "__main__":
    main()
