"""``python -m tests.zoo``: judges the programs, each in a child process, and prints what was found and what was not."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.zoo import collection, left_out, pool, score
from tests.zoo.judging import Job, sources, work
from tests.zoo.program import Program
from tests.zoo.rows import Row, load, save

PAGE = """# How well causes are named

The zoo (`tests/zoo`) holds small training programs of many kinds: with one planted fault each, the same without it
(twins), and sound ones that look wrong at first sight (suspicious). `python -m tests.zoo --write docs/zoo.md` judges
them and writes these tables; with `--held-out` the second part, of programs that no threshold was set on.

*Found* counts a warning or worse that names the planted cause; *first* says that no other cause stands before it.

"""
MARKS = {
    held_out: (f"<!-- python -m tests.zoo{option} writes from here -->", f"<!-- to here: tests.zoo{option} -->")
    for held_out, option in ((False, ""), (True, " --held-out"))
}
TITLES = {False: "Programs that thresholds were set on", True: "Held-out programs"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, print, and write if asked; 1 where a program could not be judged."""
    options = _options(arguments)
    programs = collection.chosen(options.only, held_out=options.held_out)
    if not programs:
        sys.exit(f"no program fits --only {options.only!r}")
    rows = _rows(programs, options)
    text = tables(rows, TITLES[options.held_out])
    print(text)
    if options.write:
        _write(options.write, text, rows, MARKS[options.held_out])
    return int(any(row.error for row in rows))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--only", default="*", help="programs whose name, cause, family or kind fits (with * and ?)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--resume", type=Path, help="a file of rows: those in it are not judged again, new ones added")
    parser.add_argument("--jobs", type=int, default=1, help="child processes at a time")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds that a program may take")
    parser.add_argument(
        "--live", type=int, default=0, metavar="STEPS", help="train as well: healthy ones so many steps"
    )
    parser.add_argument("--held-out", action="store_true", help="the programs that nothing is tuned on")
    parser.add_argument("--write", type=Path, help="write the tables into this page")
    return parser.parse_args(arguments)


def _rows(programs: Sequence[Program], options: argparse.Namespace) -> list[Row]:
    known = {row.key: row for row in load(options.resume)} if options.resume and options.resume.exists() else {}
    wanted = [
        (p.name, seed)
        for seed in options.seeds
        for p in programs
        if options.live or p.early or not p.cause or not p.live
    ]
    jobs = [Job(*key, options.live) for key in wanted if key not in known or known[key].error]
    began = time.monotonic()
    outcomes = pool.run(work, jobs, workers=options.jobs, limit_s=options.limit)
    for count, outcome in enumerate(outcomes, 1):
        row = outcome.value or _failed(outcome.job, outcome.error)
        known[row.key] = row
        if options.resume:
            save(known.values(), options.resume)
        spent = time.monotonic() - began
        print(f"{count}/{len(jobs)} {spent:5.0f} s  {_line(row)}", file=sys.stderr, flush=True)
    return [known[key] for key in wanted]


def _failed(job: Job, error: str) -> Row:
    p = collection.named(job.program)
    return Row(p.name, job.seed, str(p.kind), p.cause, p.family, p.also, error=error, sources=sources())


def _line(row: Row) -> str:
    said = row.error.strip().splitlines()[-1] if row.error else ", ".join(row.loud) or "nothing"
    good = not row.error and (row.place == 1 if row.cause else not row.loud)
    return f"{'ok ' if good else 'NOT'} {row.program} ({row.cause or row.kind}): {said} [{row.seconds:.1f} s]"


def tables(rows: Sequence[Row], heading: str) -> str:
    """All tables, as Markdown."""
    parts = [
        ("Totals", score.totals(rows)),
        ("By cause", score.by_cause(rows)),
        ("By family of networks", score.by(rows, lambda row: row.family, "family")),
        ("Faults whose cause was not named first", score.misses(rows)),
        ("Thresholds chosen without a family, judged on it", left_out.report(rows)),
        ("What costs most", score.slowest(rows)),
        ("Could not be judged", score.errors(rows)),
    ]
    return "\n\n".join([f"## {heading}", *(f"### {title}\n\n{text}" for title, text in parts)]) + "\n"


def _write(page: Path, text: str, rows: Sequence[Row], marks: tuple[str, str]) -> None:
    """Put the tables between the page's two marks, or make the page; refused where rows are of other sources."""
    if {row.sources for row in rows} != {sources()}:
        sys.exit("not written: some rows were made with other sources. Run again without --resume, or with a new file")
    begin, end = marks
    empty = PAGE + "\n".join(f"{first}\n{last}\n" for first, last in MARKS.values())
    old = page.read_text(encoding="utf-8") if page.exists() else empty
    if begin not in old or end not in old:
        sys.exit(f"not written: {page} lacks the marks {begin!r} and {end!r}")
    before, after = old.split(begin)[0], old.split(end)[1]
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
