"""What the user adds of their own, by method: knobs, buttons, functions at epochs' ends, early stopping. Any thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nbdebug.records.commands import Checkout, Command, Outcome, Press
from nbdebug.records.errors import CommandError, ConfigurationError, collect
from nbdebug.training.early import Patience
from nbdebug.training.knobs import NAMES
from nbdebug.training.optimizer_options import OPTION_NAMES
from nbdebug.training.own_knob import Knob
from nbdebug.training.session import Session


class Owning:
    """Adds to a session what only its user can know."""

    _session: Session
    _ask: Callable[[Command], Outcome]

    def knob(self, name: str, value: float, *, low: float = 0.0, high: float = 1.0, log: bool = False) -> Knob:
        """A number of one's own that training code reads, with a slider: ``temperature.value``, or ``2 * temperature``.

        ``set(temperature=0.5)`` changes it between two steps, on record, and rewinds bring it back. Made again under
        the same name it is the same knob, with its present value.

        Raises:
            ConfigurationError: lists all that can't be: the name, the range.
        """
        known = self._session.knobs.own
        mistakes = []
        if not isinstance(name, str) or not name.isidentifier():
            mistakes.append(f"name={name!r}: give a name that can stand in set(name=...)")
        elif name in (*NAMES, *OPTION_NAMES):
            mistakes.append(f"name={name!r} is the name of another knob: choose a different one")
        numbers = {"value": value, "low": low, "high": high}
        mistakes += [f"{key}={x!r} must be a finite number" for key, x in numbers.items() if not _is_number(x)]
        if not mistakes and not low <= value <= high:
            mistakes.append(f"value={value!r} must lie between low={low!r} and high={high!r}")
        if not mistakes and (low >= high or (log and low <= 0)):
            mistakes.append(
                f"low={low!r} must be below high={high!r}" + (", and above 0 on a log scale" if log else "")
            )
        if mistakes:
            raise collect(mistakes)
        if name not in known:
            known[name] = Knob(name, float(value), float(low), float(high), log=log)
        else:
            known[name].low, known[name].high, known[name].log = float(low), float(high), log
        return known[name]

    def button(self, name: str, callback: Callable[[], Any]) -> None:
        """A button on the dashboard that runs ``callback`` on the training thread between two steps.

        What it does is on record as a change by hand: a snapshot is taken after it, and rewinds come to either side.
        """
        if not callable(callback) or not isinstance(name, str) or not name:
            raise ConfigurationError("give a name and a function: button('resample', callback)")
        self._session.own.buttons[name] = callback

    def press(self, name: str) -> Outcome:
        """Press a button by its name; returns when it is done.

        Raises:
            CommandError: there is none of that name, or what is behind it raised an error.
        """
        return self._ask(Press(name))

    def on_epoch_end(self, callback: Callable[[], Any], *, name: str = "") -> Callable[[], Any]:
        """Call a function after each epoch's validation and show what it returns as a panel; also as a decorator.

        A number becomes a series in ``history``; a matplotlib figure, a PIL image or PNG bytes a picture; anything else
        is shown as text. It runs on the training thread without gradients; random states and modes are then as before.
        One that raises is taken out, and a finding says so.
        """
        if not callable(callback):
            raise ConfigurationError(f"callback={callback!r:.80}: give a function")
        self._session.own.functions[name or getattr(callback, "__name__", type(callback).__name__)] = callback
        return callback

    def stop_early(
        self, series: str | None = "val_loss", *, patience: int = 5, least: float = 0.0, lower_is_better: bool = True
    ) -> None:
        """End a run when a validation series has not improved by more than ``least`` for ``patience`` validations.

        ``series`` is ``"val_loss"``, or ``"val_"`` and a metric's name; ``None`` switches it off. The best epoch's
        state is kept as a snapshot: :meth:`go_to_best`.

        Raises:
            ConfigurationError: there is no such series, or no validation.
        """
        trainer = self._session.trainer
        if series is None:
            self._session.early.watch(None)
            return
        names = ["val_loss", *(f"val_{name}" for name in trainer.measures)]
        mistakes = [] if series in names else [f"series={series!r}: there are {', '.join(names)}"]
        if trainer.val_loader is None:
            mistakes.append("there is no validation to judge by: give Trainer a val_loader")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            mistakes.append(f"patience={patience!r}: give a whole number of validations, at least 1")
        if not _is_number(least) or least < 0:
            mistakes.append(f"least={least!r}: give a number of at least 0")
        if mistakes:
            raise collect(mistakes)
        self._session.early.watch(Patience(series.removeprefix("val_"), patience, float(least), lower_is_better))

    def go_to_best(self) -> Outcome:
        """Put the best epoch that :meth:`stop_early` has kept into the model.

        Raises:
            CommandError: none was kept yet.
        """
        best = self._session.early.best
        if not best:
            raise CommandError("no best epoch was kept yet: stop_early('val_loss') keeps it from then on")
        return self._ask(Checkout(snapshot=best))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
