"""When watched samples are looked at, and what that costs: a :class:`SampleWatch` is the session's, on its thread."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from nbdebug.journal.journal import Journal
from nbdebug.probes.governor import Governor
from nbdebug.records.errors import ConfigurationError
from nbdebug.records.findings import Cause, Severity
from nbdebug.records.samples import SamplePass, Samples, SampleSet
from nbdebug.records.status import State
from nbdebug.tools import sample_pass
from nbdebug.tools.sample_pass import Made
from nbdebug.tools.sample_views import joined_view, words_of
from nbdebug.training import sample_choice
from nbdebug.training.sample_choice import Choice, Gathering, Held
from nbdebug.training.session import Session
from nbdebug.training.untouched import Refused

BY_ITSELF = 128  # samples that are watched where nobody asked for it
BYTES_BY_ITSELF = 64_000_000
SHARE = 0.2  # of what watching may take, for passes that nobody asked for
WORKER_S = 0.3  # that reading by a worker process takes at least
BROKEN = "what the samples are looked at with raised an error"


@dataclass(frozen=True)
class Wish:
    """What is to be watched: so many samples ``of`` something, ``every`` so many steps or at the ends of epochs.

    Without ``asked``, nobody said so: then within the budget, and without a word where it can't be.
    """

    count: int
    of: Any = "train"
    every: int | None = None
    asked: bool = True


class SampleWatch:
    """When passes over the samples are made, and what came of them. Training thread, between two steps."""

    def __init__(self, session: Session, journal: Journal, governor: Governor, *, by_itself: bool) -> None:
        self.note = "" if by_itself else "nobody asked for it: watch_samples() does"
        self.spent_s = 0.0
        self._session = session
        self._journal = journal
        self._governor = governor
        self._wish: Wish | None = Wish(BY_ITSELF, asked=False) if by_itself else None
        self._source: Choice | Gathering | None = None
        self._held: Held | None = None
        self._made: SampleSet | None = None
        self._latest: Made | None = None
        self._number = 0
        self._nothing = Samples()
        self._needs_s = 0.0

    @property
    def share(self) -> float:
        """The share of the time so far that passes took."""
        whole = self._session.course.trained_s + self.spent_s
        return self.spent_s / whole if self.spent_s else 0.0

    @property
    def nothing(self) -> Samples:
        """What there is to see before the first pass; the same object while it says the same."""
        if self._nothing.note != self.note:
            self._nothing = Samples(note=self.note)
        return self._nothing

    # -- the session's ------------------------------------------------------------------------------------------

    def epoch_ended(self) -> None:
        """An epoch is over, its validation made."""
        if self._wish is None or self._wish.every is not None:
            return
        began = time.perf_counter()
        if self._affords(self._needs_s):
            self._look()
        spent = time.perf_counter() - began
        self.spent_s += spent
        self._governor.spent(spent)

    def stepped(self) -> None:
        """Steps were taken, and training goes on."""
        wish = self._wish
        if wish is None or wish.every is None or self._session.loop.step % wish.every:
            return
        began = time.perf_counter()
        self._look()
        self.spent_s += time.perf_counter() - began

    def most_steps(self) -> int | None:
        """Steps up to the next pass; ``None`` where they don't count."""
        if self._wish is None or self._wish.every is None:
            return None
        return self._wish.every - self._session.loop.step % self._wish.every

    # -- what is asked for, on the training thread --------------------------------------------------------------

    def watch(self, wish: Wish) -> None:
        """Watch something else from now on; where the model was trained already, look at it at once.

        Raises:
            ConfigurationError: it can't be watched, and why; what was watched before still is.
        """
        before, seen = vars(self).copy(), self._session.loop.seen
        self._wish, self._source, self._held, self._made, self._latest = wish, None, None, None, None
        self.note = ""
        self._session.loop.seen = None
        try:
            if not wish.count:
                self._end("it was switched off")
                return
            if why := sample_pass.why_not(self._session):
                raise sample_pass.refused(why)
            self._begin()
            if self._held is not None and self._session.loop.step:
                self._pass()
        except BaseException as error:
            vars(self).update(before)
            self._session.loop.seen = seen
            if isinstance(error, Refused):
                raise sample_pass.refused(str(error)) from None
            raise

    # -- inside -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """A pass, if there is something to look at; whatever goes wrong, training goes on."""
        try:
            self._begin()
            if self._held is not None:
                self._pass()
        except Refused as why:
            self._give_up(str(why))
        except ConfigurationError as error:
            self._give_up(str(error))
        except Exception as error:  # the user's model, data set or eval_step may raise anything
            self._give_up(f"{BROKEN}: {type(error).__name__}: {error}", traceback.format_exc())

    def _begin(self) -> None:
        """Choose the samples, and read them, as far as that is not done."""
        wish = self._wish
        if wish is None or self._held is not None:
            return
        session = self._session
        if self._source is None:
            self._source = source_of(session, wish)
            if isinstance(self._source, Gathering):
                self._source.most_bytes = sample_choice.MOST_BYTES if wish.asked else BYTES_BY_ITSELF
                session.loop.seen = self._come_by
                self.note = f"samples are kept as they come by in training: {self._source.why}"
        with session.turns:  # reading may draw random numbers, which are everybody's
            if isinstance(self._source, Gathering):
                self._held = self._source.held() if self._source.is_done else None
            elif wish.asked:
                self._held = self._source.held()
            else:
                self._read_if_affordable(self._source)
        if self._held is not None:
            session.loop.seen = None
            self.note = ""
            self._needs_s = session.seconds_per_step * len(self._held.batches)

    def _read_if_affordable(self, choice: Choice) -> None:
        """The first batch tells how long all take; read by a worker process, there is no telling beforehand."""
        if not self._needs_s:
            loader = self._session.trainer.train_loader
            if isinstance(loader, DataLoader) and loader.num_workers:
                self._needs_s = WORKER_S
            else:
                began = time.perf_counter()
                for _ in choice.first().batches():
                    self._needs_s = (time.perf_counter() - began) * len(choice.groups)
        if self._affords(self._needs_s):
            self._held = choice.held(BYTES_BY_ITSELF)

    def _come_by(self, split: str, batch: Any, place: int) -> None:
        source = self._source
        if isinstance(source, Gathering) and split == source.split and self._session.state is State.RUNNING:
            try:
                source.come_by(batch, place)
            except Exception as error:  # a batch may be anything; training must have it all the same
                self._give_up(f"a batch could not be copied: {type(error).__name__}: {error}", traceback.format_exc())

    def _affords(self, seconds: float) -> bool:
        """Whether what nobody asked for may take so long now."""
        wish, budget = self._wish, self._governor.budget
        if wish is None or wish.asked or budget is None:
            return True
        return SHARE * budget * self._session.course.trained_s - self.spent_s >= seconds

    def _pass(self) -> None:
        """One pass over the samples that are held, on record."""
        session, held = self._session, self._held
        assert held is not None
        began = time.perf_counter()
        latest = self._latest
        made = sample_pass.make(
            session,
            lambda: held.batches,
            task=latest.task if latest is not None else None,
            way=latest.way if latest is not None else None,
        )
        if self._made is None or latest is None or (latest.task, latest.classes) != (made.task, made.classes):
            self._made = self._new_set(made, held)
            self._journal.record_sample_set(self._made)
        self._latest = made
        run, step = session.timeline.current, session.loop.step
        self._journal.record_sample_pass(
            SamplePass(
                run, self._made.number, step, session.loop.epoch,
                made.losses, made.predicted, made.confidence, made.margins, made.right,
            )
        )  # fmt: skip
        self._needs_s = time.perf_counter() - began

    def _new_set(self, made: Made, held: Held) -> SampleSet:
        assert self._wish is not None
        self._number += 1
        view = joined_view(held.batches)
        split = self._wish.of if isinstance(self._wish.of, str) else "given"
        return set_of(made, held, self._session.timeline.current, self._number, split, view)

    def _give_up(self, why: str, detail: str = "") -> None:
        """Watch no more; said once, where somebody asked for it, or something of the user's raised an error."""
        wish = self._wish
        self._end(why)
        is_theirs = detail and self._session.trainer.eval_step is not None
        if wish is not None and (wish.asked or is_theirs):
            text = f"{why}. Training is not affected; watch_samples() begins anew."
            title = "Watching samples is off"
            self._session.find(Cause.WATCHING_DISABLED, Severity.WARNING, title, text, detail)

    def _end(self, why: str) -> None:
        self._wish = self._source = self._held = None
        self._session.loop.seen = None
        self.note = why


def set_of(made: Made, held: Held, run: str, number: int, split: str, view: Any) -> SampleSet:
    """The record of the samples that a pass was made over."""
    return SampleSet(
        number, run, split, made.task, held.indices, made.targets, made.classes,
        words_of(made, view), view, held.about, str(made.way),
    )  # fmt: skip


def source_of(session: Session, wish: Wish) -> Choice | Gathering:
    """Where the samples of a wish come from.

    Raises:
        ConfigurationError: there are none, or not such.
    """
    trainer, of = session.trainer, wish.of
    if isinstance(of, str):
        if of not in ("train", "val"):
            raise ConfigurationError(f'of={of!r}: give "train", "val", a data set, a loader, or a list of indices')
        loader = trainer.train_loader if of == "train" else trainer.val_loader
        if loader is None:
            raise ConfigurationError('of="val": there is no validation data: give Trainer a val_loader')
        return sample_choice.choose(loader, of, wish.count)
    if of is trainer.train_loader or of is trainer.val_loader:
        return sample_choice.choose(of, "train" if of is trainer.train_loader else "val", wish.count)
    if is_indices(of):
        indices = [int(each) for each in of]
        return sample_choice.choose(trainer.train_loader, "train", len(indices), indices=indices)
    return _of_given(trainer.train_loader, of, wish.count)


def _of_given(like: Any, of: Any, count: int) -> Choice:
    if not isinstance(of, (DataLoader, list, tuple)):
        return sample_choice.of_data_set(of, like, count)
    found = sample_choice.choose(of, "given", count)
    if isinstance(found, Gathering):
        raise ConfigurationError(f"the samples of the loader given can't be watched: {found.why}")
    return found


def is_indices(of: Any) -> bool:
    """Whether it is a list of whole numbers, in whatever form."""
    if isinstance(of, range):
        return True
    if hasattr(of, "dtype") and hasattr(of, "tolist"):
        return getattr(of, "ndim", 0) == 1 and np.asarray(of).dtype.kind in "iu"
    return isinstance(of, Sequence) and bool(of) and all(isinstance(x, int) and not isinstance(x, bool) for x in of)
