"""What watching costs, beside the plain loop and beside peers: ``python -m tests.benchmarks.watching``.

``--rounds N``, ``--models tiny,MLP``, ``--ways light,recipe`` and ``--quick`` choose; ``--write`` puts the table into
``watching.md``. One thread of torch. Every round takes each way once, in random order; right before or after it (by
lot) the plain loop trains for as many steps, and the ratio of the two is one observation. "CPU" counts all threads of
the process and its children, such as the service of wandb.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.watching_rows import BUDGETED, MODELS, NEEDS, PEERS, WAYS, Plain, Way, installed

PAGE = Path(__file__).with_suffix(".md")
BUDGETED_S = 30.0
BUDGETED_SAMPLES = 20
REST_S = 0.1  # what writers still have to write shall not fall upon the next


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, seconds of plain loop in each, and whether the default budget gets its 30 s."""

    rounds: int = 9
    block_s: float = 1.0
    budgeted_block_s: float = 4.0
    long: bool = True


@dataclass(frozen=True)
class Spent:
    """Seconds a step."""

    wall_s: float
    cpu_s: float


@dataclass
class Row:
    """One way to train one model: what it spent in each round, and the plain loop beside it."""

    way: str
    pairs: list[tuple[Spent, Spent]] = field(default_factory=list)
    steps: int = 0
    samples: int = 0
    note: str = ""

    def wall(self) -> np.ndarray:
        """Ratios to the plain loop, ``(rounds,)``."""
        return np.asarray([way.wall_s / plain.wall_s for plain, way in self.pairs])

    def cpu(self) -> np.ndarray:
        """The same of CPU time."""
        return np.asarray([way.cpu_s / plain.cpu_s for plain, way in self.pairs])

    def added_ms(self) -> float:
        """Milliseconds a step on top of the plain loop, the median."""
        return float(np.median([1e3 * (way.wall_s - plain.wall_s) for plain, way in self.pairs]))


# -- measuring --------------------------------------------------------------------------------------------------------


def cpu_s() -> float:
    """CPU seconds of this process and of its living children."""
    return time.process_time() + sum(_cpu_of(child) for child in _children("self"))


def _children(process: str) -> list[str]:
    try:
        tasks = os.listdir(f"/proc/{process}/task")
        found = [c for task in tasks for c in Path(f"/proc/{process}/task/{task}/children").read_text().split()]
    except OSError:  # it ended meanwhile, or there is no /proc
        return []
    return found + [grandchild for child in found for grandchild in _children(child)]


def _cpu_of(process: str) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spent(way: Way, steps: int) -> Spent:
    cpu, began = cpu_s(), time.perf_counter()
    way.run(steps)
    found = Spent((time.perf_counter() - began) / steps, (cpu_s() - cpu) / steps)
    time.sleep(REST_S)
    return found


def pair(plain: Way, way: Way, steps: int) -> tuple[Spent, Spent]:
    """Both for as many steps, which first is by lot."""
    if random.random() < 0.5:
        before = spent(plain, steps)
        return before, spent(way, steps)
    after = spent(way, steps)
    return spent(plain, steps), after


def measure(model: str, names: Sequence[str], effort: Effort) -> list[Row]:
    """All rows of a model."""
    rows = {name: Row(name, note="" if installed(name) else "not installed") for name in names}
    present = [name for name in names if installed(name)]
    plain: Way = Plain(model)
    ways = {name: WAYS[name](model) for name in present}
    plain.run(5)
    step_s = spent(plain, 20).wall_s
    for way in ways.values():
        way.run(max(5, round(effort.block_s / step_s / 4)))  # warm: buffers made, first snapshots taken
    begun = {name: way.samples() for name, way in ways.items()}
    for _ in range(effort.rounds):
        for name in random.sample(present, len(present)):
            _take(rows[name], plain, ways[name], step_s, effort)
    if effort.long and BUDGETED in ways:
        _take_until_enough(rows[BUDGETED], plain, ways[BUDGETED], step_s, effort, begun[BUDGETED])
    for name, way in ways.items():
        rows[name].samples = way.samples() - begun[name]
        way.close()
    return list(rows.values())


def _take(row: Row, plain: Way, way: Way, step_s: float, effort: Effort) -> None:
    wanted_s = effort.budgeted_block_s if row.way == BUDGETED else effort.block_s
    steps = max(5, round(wanted_s / step_s))
    row.pairs.append(pair(plain, way, steps))
    row.steps += steps


def _take_until_enough(row: Row, plain: Way, way: Way, step_s: float, effort: Effort, begun: int) -> None:
    """The default budget samples seldom: measured for at least 30 s and 20 samples."""
    for _ in range(4 * effort.rounds):
        if row.steps * step_s >= BUDGETED_S and way.samples() - begun >= BUDGETED_SAMPLES:
            return
        _take(row, plain, way, step_s, effort)


# -- telling ----------------------------------------------------------------------------------------------------------

HEADS = (
    "way", "wall, median", "mean", "middle half", "CPU, median", "added ms a step", "steps", "samples", "against peer",
)  # fmt: skip


def table(model: str, rows: Sequence[Row]) -> str:
    """The rows of a model as Markdown."""
    with_plain = [plain.wall_s for row in rows for plain, _ in row.pairs]
    title = f"### {model}: {1e3 * float(np.median(with_plain)):.3g} ms a step" if with_plain else f"### {model}"
    known = {row.way: row.added_ms() for row in rows if row.pairs}
    lines = [_line(HEADS), _line(["---"] * len(HEADS)), *(_line(_cells(row, known)) for row in rows)]
    return "\n".join([title, "", *lines, ""])


def _cells(row: Row, added: dict[str, float]) -> list[str]:
    if not row.pairs:
        return [row.way, row.note, *[""] * (len(HEADS) - 2)]
    wall = row.wall()
    low, high = np.percentile(wall, [25, 75])
    peer = PEERS.get(row.way, "")
    against = f"{100 * added[row.way] / added[peer]:.3g} % of {peer}" if added.get(peer, 0) > 0 else ""
    return [
        row.way, f"×{np.median(wall):.3f}", f"×{wall.mean():.3f}", f"{low:.3f} – {high:.3f}",
        f"×{np.median(row.cpu()):.3f}", f"{row.added_ms():.3f}", str(row.steps), str(row.samples), against,
    ]  # fmt: skip


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def circumstances(effort: Effort) -> str:
    """Machine, versions and date."""
    versions = {name: _version(name) for name in ("torch", "numpy", *NEEDS.values())}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    now = datetime.datetime.now(datetime.UTC)
    return (
        f"{now:%d %B %Y}, {_processor()}, {os.cpu_count()} cores of which torch uses one, {platform.system()}, "
        f"Python {platform.python_version()}, {told}. {effort.rounds} rounds of {effort.block_s:g} s and more, load "
        f"average {os.getloadavg()[0]:.1f}."
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


HOW_TO_READ = """# What watching costs

Written by `python -m tests.benchmarks.watching --write`. Ratios are of a way's time to that of the plain loop beside
it, over the same number of steps; "plain loop again" is the plain loop against itself and says what a difference is
worth. Every way but the one with the default budget records at every step. nbdebug writes its journal to disk and takes
snapshots as it does for everybody. "light" records norms, means and maxima of gradients, norms of weights and update
ratios; its peer is the forum recipe, which has mean and maximum of gradients only. "normal" and "deep" record
activations and histograms; the cheapest peer that has as much is TensorBoard with histograms of weights, gradients and
activations. `wandb.watch` has histograms of weights and gradients, and no activations.
"""


def chosen(wanted: str | None, among: Iterable[str]) -> list[str]:
    """Those of the names that contain one of the words, all without words."""
    words = wanted.split(",") if wanted else [""]
    return [name for name in among if any(word.lower() in name.lower() for word in words)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.watching", description=__doc__)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--models", help="words of their names, with commas")
    parser.add_argument("--ways", help="likewise")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    effort = Effort(options.rounds or 3, 0.2, 0.4, long=False) if options.quick else Effort(options.rounds or 9)
    torch.set_num_threads(1)
    random.seed(0)
    tables = []
    for model in chosen(options.models, MODELS):
        tables.append(table(model, measure(model, chosen(options.ways, WAYS), effort)))
        print(tables[-1], flush=True)
    page = "\n".join([HOW_TO_READ, circumstances(effort), "", *tables])
    if options.write:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
