"""What can be asked of samples, by method: watching some over time, looking at all of them now. Any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from nbdebug.debugger_sample_watch import SampleWatch, Wish, is_indices, set_of, source_of
from nbdebug.journal.journal import Journal
from nbdebug.records.errors import CommandError, ConfigurationError, collect
from nbdebug.records.samples import SamplePass, Samples
from nbdebug.records.status import State
from nbdebug.tools import sample_pass
from nbdebug.tools.sample_pass import Made, mistakes_of
from nbdebug.training import sample_choice
from nbdebug.training.modules import roots
from nbdebug.training.sample_choice import Choice, Held
from nbdebug.training.session import Session
from nbdebug.training.thread_context import ThreadContext
from nbdebug.training.untouched import Refused

COUNT = 256


class SampleWatching:
    """What can be asked of samples."""

    _session: Session
    _journal: Journal
    _sample_watch: SampleWatch
    _not_from_within: Callable[[str], None]

    @property
    def samples(self) -> Samples:
        """The samples that are watched, over all passes that led to where the model stands; prints in words."""
        session = self._session
        found = self._journal.samples(session.timeline.current, session.loop.step)
        return found if found.passes else self._sample_watch.nothing

    def watch_samples(self, count: int = COUNT, *, of: Any = "train", every: int | None = None) -> None:
        """Watch a fixed set of samples as training goes: what the model makes of each, at the ends of epochs.

        By itself a modest number of training samples is watched, as far as the budget allows; this watches others, or
        more often, whatever it takes. ``watch_samples(0)`` watches none. What comes of it is :attr:`samples`.

        Args:
            count: how many, spread evenly; all where there are fewer.
            of: ``"train"``, ``"val"``, a data set, a loader, or indices of the training data set.
            every: a pass every so many steps, instead of one an epoch.

        Raises:
            ConfigurationError: lists what is wrong, or says why samples can't be watched here.
        """
        self._not_from_within("watch_samples")
        if mistakes := mistakes_of(count, every):
            raise collect(mistakes)
        self._look_aside("choosing samples", lambda: self._sample_watch.watch(Wish(count, of, every)))

    def inspect_samples(self, data: Any = None, *, most: int = 20) -> Samples:
        """What the model, as it is now, makes of all samples of a loader or data set; the ``most`` worst are shown.

        Without ``data``, of the training data. Nothing of it is kept, and everything is as it was afterwards.

        Raises:
            ConfigurationError: there are no samples, or nothing can be told of single ones.
            CommandError: it was called off.
        """
        self._not_from_within("inspect_samples")
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise ConfigurationError(f"most={most!r}: give how many of the worst are to be shown, such as 20")
        of = "train" if data is None else data
        found: Samples = self._look_aside("looking at all samples", lambda: self._inspect(of, most))
        return found

    # -- inside -------------------------------------------------------------------------------------------------

    def _look_aside(self, what: str, look: Callable[[], Any]) -> Any:
        """On the training thread; at rest under the caller's torch context, and it is no edit by hand."""
        session, context = self._session, ThreadContext.capture()

        def quietly() -> Any:
            if not session.at_rest:
                return look()
            before = ThreadContext.capture()
            context.apply()
            try:
                if session.trainer.device is not None:
                    for root in roots(session.model).values():
                        root.to(session.trainer.device)
                with session.unnoticed() if session.state is not State.FAILED else nullcontext():
                    return look()
            finally:
                before.apply()

        return session.call(what, quietly)

    def _inspect(self, of: Any, most: int) -> Samples:
        session = self._session
        indices: list[int] = []
        source = _everything(session, of)

        def all_batches() -> Iterator[Any]:
            indices.clear()
            with closing(source()) as each:
                for batch, group in each:
                    indices.extend(group)
                    yield batch

        try:
            made = sample_pass.make(session, all_batches, called_off=lambda: session.is_called_off)
        except Refused as why:
            if session.is_called_off:
                raise CommandError(str(why)) from None
            raise sample_pass.refused(str(why)) from None
        return self._inspected(made, np.array(indices, dtype=np.int64), of, most)

    def _inspected(self, made: Made, indices: Any, of: Any, most: int) -> Samples:
        run, loop = self._session.timeline.current, self._session.loop
        held = Held((), indices, f"all {len(indices):,} samples")
        split = of if isinstance(of, str) else "given"
        one = SamplePass(
            run, 0, loop.step, loop.epoch, made.losses, made.predicted, made.confidence, made.margins, made.right
        )
        return Samples(set_of(made, held, run, 0, split, None), (one,), shown=most)


def _everything(session: Session, of: Any) -> Callable[[], Any]:
    """How to go through all samples, with their indices."""
    trainer = session.trainer
    loader = {"train": trainer.train_loader, "val": trainer.val_loader}.get(of) if isinstance(of, str) else of
    if loader is None:
        raise ConfigurationError('of="val": there is no validation data: give Trainer a val_loader')
    if not isinstance(of, str) and not is_indices(of) and not isinstance(of, (DataLoader, list, tuple)):
        if hasattr(of, "__iter__") and not hasattr(of, "__getitem__"):
            return lambda: sample_choice.stream(of)
        return sample_choice.of_data_set(of, trainer.train_loader, sample_choice.EVERYTHING).batches
    found = (
        source_of(session, Wish(sample_choice.EVERYTHING, of))
        if not isinstance(of, DataLoader)
        else (sample_choice.choose(of, "given", sample_choice.EVERYTHING))
    )
    return found.batches if isinstance(found, Choice) else lambda: sample_choice.stream(loader)
