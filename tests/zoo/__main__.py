"""``python -m tests.zoo``: judges the programs, each in a child process, and prints what was found and what was not.

With ``--remedies`` the faulty ones are mended; with ``--calibrate`` how sure findings are is fitted to how often they
were right.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from nbdebug.checks import calibration
from tests.zoo import alarms, calibrating, collection, left_out, mended, mending, pool, rows, score
from tests.zoo.judging import Job, sources, work
from tests.zoo.mended import Mended
from tests.zoo.mending import Mend
from tests.zoo.program import Program
from tests.zoo.rows import Row

PAGE = """# How well causes are named

The zoo (`tests/zoo`) holds small training programs of many kinds: with one planted fault each, the same without it
(twins), and sound ones that look wrong at first sight (suspicious). `python -m tests.zoo --write docs/zoo.md` judges
them and writes these tables; with `--held-out` the second part, of programs that no threshold was set on; with
`--remedies` the third. `--live 500 --to-the-end` trains them as well, with the live checks on: healthy ones until their
loss has settled. `--calibrate` fits how sure findings are said to be (`nbdebug/checks/calibration.json`).

*Found* counts a warning or worse that names the planted cause; *first* says that no other cause stands before it.

"""
TUNED, HELD_OUT, REMEDIES = "", " --held-out", " --remedies"
MARKS = {
    part: (f"<!-- python -m tests.zoo{part} writes from here -->", f"<!-- to here: tests.zoo{part} -->")
    for part in (TUNED, HELD_OUT, REMEDIES)
}
TITLES = {TUNED: "Programs that thresholds were set on", HELD_OUT: "Held-out programs"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge or mend, print, and write if asked; 1 where a program could not be judged."""
    options = _options(arguments)
    programs = collection.chosen(options.only, held_out=options.held_out)
    if not programs:
        sys.exit(f"no program fits --only {options.only!r}")
    made: Sequence[Row | Mended]
    if options.remedies:
        part, made = REMEDIES, _mended(programs, options)
        text = mended.tables(made)
    else:
        part, made = HELD_OUT if options.held_out else TUNED, _judged(programs, options)
        if options.calibrate:
            _calibrate(made)
        text = tables(made, part)
    print(text)
    if options.write:
        _write(options.write, text, made, MARKS[part])
    return int(any(each.error for each in made))


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
    parser.add_argument(
        "--to-the-end", action="store_true", help="with --live: end a healthy run once its loss has settled"
    )
    parser.add_argument("--held-out", action="store_true", help="the programs that nothing is tuned on")
    parser.add_argument("--remedies", action="store_true", help="mend the faulty ones by their findings' remedies")
    parser.add_argument("--calibrate", action="store_true", help="fit how sure findings are, and ship it")
    parser.add_argument("--write", type=Path, help="write the tables into this page")
    options = parser.parse_args(arguments)
    if options.calibrate and (options.held_out or options.remedies or options.only != "*"):
        parser.error("--calibrate is for all programs that things are tuned on: leave --held-out and the like away")
    return options


def _judged(programs: Sequence[Program], options: argparse.Namespace) -> list[Row]:
    wanted = [p for p in programs if options.live or p.early or not p.cause or not p.live]
    jobs = [Job(p.name, seed, options.live, options.to_the_end) for seed in options.seeds for p in wanted]

    def is_done(row: Row, job: Job) -> bool:
        return not row.error and row.mode == job.mode

    return _results(work, jobs, is_done, _failed, (rows.load, rows.save), _line, options)


def _mended(programs: Sequence[Program], options: argparse.Namespace) -> list[Mended]:
    jobs = [Mend(p.name, seed, 0.5 * options.limit) for seed in options.seeds for p in programs if p.cause]
    keeping = (mended.load, mended.save)
    return _results(mending.work, jobs, lambda made, _: not made.error, _unmended, keeping, _mended_line, options)


def _results(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    is_done: Callable[[Any, Any], bool],
    failed: Callable[[Any, str], Any],
    keeping: tuple[Callable[[Path], Iterable[Any]], Callable[[Collection[Any], Path], None]],
    line: Callable[[Any], str],
    options: argparse.Namespace,
) -> list[Any]:
    """What comes of each job: as it is on file where that will do, or in a child process, and then onto the file."""
    load, save = keeping
    known = {each.key: each for each in load(options.resume)} if options.resume and options.resume.exists() else {}
    todo = [
        job for job in jobs if (job.program, job.seed) not in known or not is_done(known[job.program, job.seed], job)
    ]
    began = time.monotonic()
    for count, outcome in enumerate(pool.run(work, todo, workers=options.jobs, limit_s=options.limit), 1):
        made = outcome.value or failed(outcome.job, outcome.error)
        known[made.key] = made
        if options.resume:
            save(known.values(), options.resume)
        spent = time.monotonic() - began
        print(f"{count}/{len(todo)} {spent:5.0f} s  {line(made)}", file=sys.stderr, flush=True)
    return [known[job.program, job.seed] for job in jobs]


def _failed(job: Job, error: str) -> Row:
    p = collection.named(job.program)
    return Row(p.name, job.seed, str(p.kind), p.cause, p.family, p.also, error=error, sources=sources(), mode=job.mode)


def _unmended(job: Mend, error: str) -> Mended:
    p = collection.named(job.program)
    return Mended(p.name, job.seed, p.cause, p.family, error=error, sources=sources())


def _line(row: Row) -> str:
    said = row.error.strip().splitlines()[-1] if row.error else ", ".join(row.loud) or "nothing"
    good = not row.error and (row.place == 1 if row.cause else not row.loud)
    return f"{'ok ' if good else 'NOT'} {row.program} ({row.cause or row.kind}): {said} [{row.seconds:.1f} s]"


def _mended_line(made: Mended) -> str:
    said = made.error.strip().splitlines()[-1] if made.error else "by hand" if not made.able else made.why_not
    good = "ok " if made.fixed else "-- " if not made.able and made.named else "NOT"
    wrong = ", ".join(f"{each.remedy}: {each.why or each.verdict}" for each in made.wrong)
    return f"{good} {made.program} ({made.cause}): {said} [{made.seconds:.1f} s] {wrong}"


def tables(judged: Sequence[Row], part: str) -> str:
    """All tables, as Markdown. On held-out programs the calibration is judged as it is shipped."""
    parts = [
        ("Totals", score.totals(judged)),
        ("By cause", score.by_cause(judged)),
        ("By family of networks", score.by(judged, lambda row: row.family, "family")),
        ("Faults whose cause was not named first", score.misses(judged)),
        *([("When it was told", alarms.report(judged))] if any(row.mode for row in judged) else []),
        ("How sure, and how often right", calibrating.report(judged, calibration.shipped() if part else None)),
        ("Thresholds chosen without a family, judged on it", left_out.report(judged)),
        ("What costs most", score.slowest(judged)),
        ("Could not be judged", score.errors(judged)),
    ]
    return "\n\n".join([f"## {TITLES[part]}", *(f"### {title}\n\n{text}" for title, text in parts)]) + "\n"


def _calibrate(judged: Sequence[Row]) -> None:
    """Fit on these rows, and put the outcome where the package reads it."""
    if known := calibrating.samples(judged):
        calibration.FILE.write_text(calibrating.fit(known).to_json(), encoding="utf-8")
        print(f"fitted on {len(known)} findings: {calibration.FILE}", file=sys.stderr)
    else:
        sys.exit("not calibrated: no rule found anything")


def _write(page: Path, text: str, made: Sequence[Row | Mended], marks: tuple[str, str]) -> None:
    """Put the tables between the page's two marks, or make the page; refused where rows are of other sources."""
    if {each.sources for each in made} != {sources()}:
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
