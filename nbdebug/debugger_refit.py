"""Other parts in a running model, by method: optimizer, schedule, activations, frozen layers. Any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from nbdebug.records.commands import (
    Command,
    EditNorms,
    Freeze,
    Outcome,
    SetAverage,
    SetSchedule,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
)
from nbdebug.records.errors import CommandError, ConfigurationError, collect
from nbdebug.records.schedules import Schedule
from nbdebug.training.arguments import layer_mistakes
from nbdebug.training.decay_refit import decay_mistakes
from nbdebug.training.modules import named_modules
from nbdebug.training.optimizers import conversion_mistakes
from nbdebug.training.session import Session
from nbdebug.training.surgery import Activation, option_mistakes

Layers = str | Sequence[str] | None


class Refitting:
    """Each acts from the next step on, is on record, and is gone back over by rewinds and reruns."""

    _session: Session
    _ask: Callable[[Command], Outcome]
    paused: Callable[[], AbstractContextManager[Any]]

    def swap_optimizer(self, kind: str, *, lr: float | None = None, name: str = "", **options: Any) -> Outcome:
        """Go on with another kind: SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad.

        What the old one has learnt of the gradients goes over where it has a meaning; the outcome says what does not.
        Without ``lr``, updates stay about as large as they were. ``options`` are the new kind's; of several
        optimizers, ``name`` says which.

        Raises:
            ConfigurationError: lists all that can't work; nothing is changed then.
        """
        optimizers = self._session.trainer.optimizers
        chosen = [each for key, each in optimizers.items() if not name or key == name]
        if not chosen:
            raise ConfigurationError(f"no optimizer {name!r}: there are {', '.join(map(repr, optimizers))}")
        mistakes = [line for each in chosen for line in conversion_mistakes(each, kind, lr, options)]
        if mistakes:
            raise collect(list(dict.fromkeys(mistakes)))
        return self._ask(SwapOptimizer(kind, lr, dict(options), name))

    def set_schedule(self, kind: str | Schedule | None, **options: Any) -> Outcome:
        """Another schedule from here on; the rate that is asked for is its highest. ``None`` takes it away.

        ``kind`` is constant, step, cosine, one_cycle, cyclic, exponential or plateau; options such as ``total``,
        ``warmup_steps`` and ``interval`` ("epoch" or "batch") are those of a
        :class:`~nbdebug.records.schedules.Schedule`.

        Raises:
            ConfigurationError: lists all that can't work; nothing is changed then.
        """
        schedule = kind if isinstance(kind, Schedule) or kind is None else Schedule.of(kind, **options)
        return self._ask(SetSchedule(schedule))

    def split_decay(self, name: str = "") -> Outcome:
        """Leave norm layers and biases out of the weight decay, as is usual for AdamW and for transformers.

        They go into parameter groups of their own, called after the ones they were in: ``"0, no decay"``. What is then
        set for all groups leaves their decay at 0; it can be set by their names. Of several optimizers, ``name`` says
        which; all without.

        Raises:
            ConfigurationError: lists why it would mean nothing: no such optimizer, one that has no weight decay or is
                split already, no bias and no norm layer; nothing is changed then.
        """
        mistakes = decay_mistakes(self._session.model, self._session.trainer, name)
        if mistakes:
            raise collect(mistakes)
        return self._ask(SplitDecay(name))

    def swap_activation(self, kind: str, layers: Layers = None, **options: Any) -> Outcome:
        """Another activation in these layers, or in all: relu, leaky_relu, prelu, elu, gelu, silu, tanh and so on.

        ``options`` are the new kind's by their names in torch, such as ``negative_slope``.

        What can't be swapped (a function called in ``forward``, a scripted part) is left, and the outcome says why.

        Raises:
            ConfigurationError: no such activation or layer.
            CommandError: nothing could be swapped.
        """
        if kind not in list(Activation):
            raise ConfigurationError(f"activation={kind!r}: there are {', '.join(map(str, Activation))}")
        mistakes = option_mistakes(Activation(kind), options)
        if mistakes:
            raise collect(mistakes)
        return self._ask(SwapActivations(kind, self._layers(layers), dict(options)))

    def freeze(self, layers: Layers = None, *, hold_statistics: bool = False) -> Outcome:
        """Stop layers, and all in them, from learning; ``hold_statistics`` keeps batch norms' statistics as they are.

        Raises:
            ConfigurationError: no such layer.
        """
        return self._ask(Freeze(True, self._layers(layers), hold_statistics))

    def unfreeze(self, layers: Layers = None) -> Outcome:
        """Let layers learn; without names all that learnt at first.

        Raises:
            ConfigurationError: no such layer.
        """
        return self._ask(Freeze(False, self._layers(layers)))

    def insert_norms(self, layers: Layers = None) -> Outcome:
        """Put a batch norm after these linear and convolution layers, or after all where that makes sense.

        Raises:
            ConfigurationError: no such layer.
            CommandError: nowhere; the text says why, layer by layer.
        """
        return self._ask(EditNorms(True, self._layers(layers)))

    def remove_norms(self, layers: Layers = None, *, fold: bool = False) -> Outcome:
        """Take these batch norms out, or all; ``fold`` puts what they do in evaluation into the layer before.

        Raises:
            ConfigurationError: no such layer.
            CommandError: none could be taken out; the text says why, layer by layer.
        """
        return self._ask(EditNorms(False, self._layers(layers), fold))

    def average(self, kind: str | None = "ema", *, decay: float = 0.999, start: int = 1, every: int = 1) -> Outcome:
        """Average the weights on the side from here on; ``None`` ends it. Training itself is untouched, bit for bit.

        ``"ema"`` is exponential, with this ``decay`` per step; ``"swa"`` counts the weights after step ``start`` from
        here, and after every ``every`` steps, equally. Each validation also judges the average: ``history`` has
        ``"loss of the average/val"``, and the metrics likewise. :meth:`averaged` puts it into the model for a look.

        Raises:
            ConfigurationError: lists all that can't work.
        """
        mistakes = [] if kind in ("ema", "swa", None) else [f"kind={kind!r}: give 'ema', 'swa', or None to end it"]
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay < 1:
            mistakes.append(f"decay={decay!r}: give a number of at least 0 and below 1, such as 0.999")
        for name, value in (("start", start), ("every", every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                mistakes.append(f"{name}={value!r}: give a whole number of steps, at least 1")
        if mistakes:
            raise collect(mistakes)
        return self._ask(SetAverage(kind or "", float(decay), start, every))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the average of its weights; then its own again. Meanwhile all commands are refused.

        Raises:
            CommandError: no average is taken.
        """
        average = self._session.refitter.average
        if average is None:
            raise CommandError("no average is taken: average('ema') begins one")
        session = self._session
        held = session.reserved("the model holds the average of its weights")
        with self.paused(), held, average.swapped(session.model):
            yield

    def _layers(self, layers: Layers) -> tuple[str, ...]:
        if layers is None:
            return ()
        chosen = [layers] if isinstance(layers, str) else list(layers)
        mistakes = layer_mistakes(chosen, named_modules(self._session.model))
        if mistakes:
            raise collect(mistakes)
        return tuple(chosen)
