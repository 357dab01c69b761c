"""The measure point: hooks around each optimizer step, where gradients are complete and the update is not yet done.

They read gradients for the watcher, clip, add noise, and put the learning rate's factor on for the length of the
update. They act only within the session's own step, on its thread; a step that someone else takes with the optimizer
passes untouched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.hooks import RemovableHandle

from nbdebug.records.commands import Clip, ClipMode
from nbdebug.training.clipping import clip_gradients, total_norm
from nbdebug.training.guard import Guard
from nbdebug.training.knobs import Knobs


class GradientWatcher(Protocol):
    """Who looks at gradients and updates. ``scale`` divides gradients still multiplied for half precision (else None).

    Nothing is called while not ``looking``. ``norms`` are the 2-norms of all parameters' gradients that are not
    ``None``, in their order, where they are known.
    """

    @property
    def looking(self) -> bool:
        """Whether gradients and updates are looked at now."""

    def gradients_ready(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        scale: torch.Tensor | None,
        norms: Sequence[torch.Tensor] | None,
    ) -> None:
        """Gradients are complete, nothing clipped yet."""

    def gradients_clipped(
        self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None, factor: torch.Tensor | None
    ) -> None:
        """Clipping is done; ``factor`` is what all gradients were multiplied by, ``None`` when clipped by value."""

    def updating(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        """The optimizer is about to change the parameters; with closures, after none of them was called yet."""

    def updated(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter], skipped: torch.Tensor | None) -> None:
        """It has; ``skipped`` is above 0 where a fused optimizer found an overflow and changed nothing."""


class UpdateHooks:
    """Owns the hooks on all optimizers of one session.

    After a step, ``updates`` counts its optimizer steps and ``skips`` are their overflow flags, ``total_norm`` is the
    2-norm of the gradients before clipping, ``seconds`` is what measuring and clipping took, ``optimizer_s`` what the
    optimizers took. The norm is taken where ``measure_norm`` says so, and where clipping needs it. ``asleep`` says that
    ``trains()`` said no at its last update.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        knobs: Knobs,
        watcher: GradientWatcher,
        guard: Guard,
        *,
        busy: Callable[[], bool],
        trains: Callable[[], bool] = lambda: True,
    ) -> None:
        self.busy = busy
        self.trains = trains
        self.asleep = False
        self.measure_norm = True
        self.updates = 0
        self.skips: list[torch.Tensor] = []
        self.seconds = 0.0
        self.norm_s = 0.0
        self.optimizer_s = 0.0
        self.before_update_s = 0.0
        self._norms: dict[int, torch.Tensor] = {}
        self._limited_norms: dict[int, torch.Tensor] = {}
        self._knobs = knobs
        self._watcher = watcher
        self._guard = guard
        self._optimizers = optimizers
        self._only_counts = False
        self._thread: int | None = None
        self._handles: list[RemovableHandle] = []
        self._stashed: dict[int, list[Any]] = {}
        self._began = 0.0
        self._closure_s = 0.0

    def attach(self) -> None:
        """Put the hooks on."""
        for optimizer in self._optimizers.values():
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def detach(self) -> None:
        """Take the hooks off; the optimizers are as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def attach_to(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Move the hooks to other optimizers, if these are others."""
        if [id(each) for each in optimizers.values()] == [id(each) for each in self._optimizers.values()]:
            return
        attached = bool(self._handles)
        self.detach()
        self._optimizers = optimizers
        if attached:
            self.attach()

    def others(self) -> list[UpdateHooks]:
        """Hooks of other sessions on the same optimizers; ``busy()`` says whether that session trains."""
        owners = [
            getattr(hook, "__self__", None)
            for optimizer in self._optimizers.values()
            for hook in optimizer._optimizer_step_pre_hooks.values()
        ]
        return [owner for owner in owners if isinstance(owner, UpdateHooks) and owner is not self]

    def __enter__(self) -> None:
        """From here on optimizer steps on this thread are this session's."""
        self.updates = 0
        self.asleep = False
        self.seconds = self.norm_s = self.optimizer_s = self.before_update_s = 0.0
        if self.skips:
            self.skips = []
        if self._norms:
            self._norms, self._limited_norms = {}, {}
        self._only_counts = not self._acts
        self._thread = threading.get_ident()

    @property
    def _acts(self) -> bool:
        """Whether there is anything to measure, change or scale."""
        return self._guard.armed or self._reads_gradients or not self._knobs.untouched

    @property
    def _reads_gradients(self) -> bool:
        clips = self._knobs.clip.mode is not ClipMode.OFF
        return self.measure_norm or self._watcher.looking or clips or self._guard.asks or self._knobs.update.acts

    def __exit__(self, *_: object) -> None:
        self._thread = None
        if self._stashed:
            for optimizer in self._optimizers.values():
                self._unscale_rates(optimizer)

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return None
        self.asleep = not self.trains()
        if self._only_counts:
            return None
        began = time.perf_counter()
        self.before_update_s = self.before_update_s or began
        self._scale_rates(optimizer)
        # args[0] is the optimizer itself: torch passes the bound method's arguments on
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        result = None
        if not callable(closure):
            self._measure_and_clip(optimizer)
        else:
            wrapped = self._wrap(closure, optimizer)
            result = (
                ((args[0], wrapped, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": wrapped})
            )
        if self._watcher.looking:
            with out_of_modes(), torch.no_grad():
                self._watcher.updating(optimizer, _parameters(optimizer))
        self._closure_s = 0.0
        self._began = time.perf_counter()
        self.seconds += self._began - began
        return result

    def _wrap(self, closure: Callable[[], Any], optimizer: Optimizer) -> Callable[[], Any]:
        def evaluate() -> Any:
            called = time.perf_counter()
            loss = closure()
            began = time.perf_counter()
            self._measure_and_clip(optimizer)
            ended = time.perf_counter()
            self.seconds += ended - began
            self._closure_s += ended - called
            return loss

        return evaluate

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        self.updates += 1
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None:
            self.skips.append(skipped.detach())
        if self._only_counts:
            return
        ended = time.perf_counter()
        self.optimizer_s += ended - self._began - self._closure_s
        if self._stashed:
            self._unscale_rates(optimizer)
        if self._watcher.looking:
            with out_of_modes(), torch.no_grad():
                self._watcher.updated(optimizer, _parameters(optimizer), skipped)
        self.seconds += time.perf_counter() - ended

    def _measure_and_clip(self, optimizer: Optimizer) -> None:
        if self._reads_gradients:
            with out_of_modes(), torch.no_grad():
                self._look_at_gradients(optimizer, self._knobs.clip)
        elif self._guard.armed:
            with out_of_modes(), torch.no_grad():
                self._guard.glance(optimizer)

    def _look_at_gradients(self, optimizer: Optimizer, clip: Clip) -> None:
        parameters = _parameters(optimizer)
        scale = getattr(optimizer, "grad_scale", None)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        began = time.perf_counter()
        norm, norms = self._try_norms(gradients) if gradients else (None, None)
        self.norm_s += time.perf_counter() - began
        self._guard.before_update(optimizer, gradients, norm)
        if self._watcher.looking:
            self._watcher.gradients_ready(optimizer, parameters, scale, norms)
        if not gradients:
            return
        if norm is not None:
            self._norms[id(optimizer)] = norm if scale is None else norm / scale
        self._change_gradients(optimizer, parameters, gradients, norm, clip, scale)

    def _change_gradients(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        gradients: Sequence[torch.Tensor],
        norm: torch.Tensor | None,
        clip: Clip,
        scale: torch.Tensor | None,
    ) -> None:
        """Clipping layer by layer, then of all, then noise."""
        update, factor = self._knobs.update, None
        if update.layer_clips:
            update.clip_layers(parameters, scale)
            norm = total_norm(gradients)[0] if clip.mode is ClipMode.NORM else None
            if norm is not None:
                self._limited_norms[id(optimizer)] = norm if scale is None else norm / scale
        if clip.mode is not ClipMode.OFF:
            factor = clip_gradients(gradients, norm, clip, scale)
        if self._watcher.looking and (update.layer_clips or clip.mode is not ClipMode.OFF):
            self._watcher.gradients_clipped(parameters, scale, None if update.layer_clips else factor)
        if update.noise.std > 0:
            update.noise.add(gradients, scale)

    def _try_norms(
        self, gradients: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor | None, Sequence[torch.Tensor] | None]:
        """The norm, and those of each; ``None`` of gradients that torch can't take it of, an error where clipping
        by norm needs it.
        """
        try:
            return total_norm(gradients)
        except (RuntimeError, TypeError, NotImplementedError):
            if self._knobs.clip.mode is ClipMode.NORM:
                raise
            return None, None

    @property
    def total_norm(self) -> torch.Tensor | None:
        """The 2-norm of the gradients of all optimizers that stepped, before clipping, each at its last evaluation."""
        return _joined(list(self._norms.values()))

    @property
    def norm_to_clip(self) -> torch.Tensor | None:
        """The same after clipping layer by layer, which the clipping of all gradients goes by."""
        return _joined(list((self._limited_norms or self._norms).values()))

    def _scale_rates(self, optimizer: Optimizer) -> None:
        if self._knobs.untouched:
            return
        groups = [group for group in self._knobs.groups if group.optimizer is optimizer]
        if all(group.factor == 1.0 for group in groups) or id(optimizer) in self._stashed:
            return
        before = [_copied(group.options["lr"]) for group in groups]
        self._stashed[id(optimizer)] = before
        for group, lr in zip(groups, before, strict=True):
            _write_lr(group.options, lr * group.factor)

    def _unscale_rates(self, optimizer: Optimizer) -> None:
        for options, lr in zip(optimizer.param_groups, self._stashed.pop(id(optimizer), ()), strict=False):
            _write_lr(options, lr)


def out_of_modes() -> AbstractContextManager[Any]:
    """What runs inside is not told to modes that the user's step is in, nor made on another default device."""
    if torch._C._len_torch_dispatch_stack():
        return _out_of_dispatch_modes()
    quiet: AbstractContextManager[Any] = torch._C.DisableTorchFunction()
    return quiet


@contextmanager
def _out_of_dispatch_modes() -> Iterator[None]:
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


def _joined(norms: list[torch.Tensor]) -> torch.Tensor | None:
    if len(norms) < 2:
        return norms[0] if norms else None
    joined: torch.Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms]))
    return joined


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copied(lr: Any) -> Any:
    return lr.clone() if isinstance(lr, torch.Tensor) else lr


def _write_lr(options: dict[str, Any], lr: Any) -> None:
    """A tensor keeps its identity, on which compiled and capturable optimizers rely."""
    if isinstance(options["lr"], torch.Tensor):
        options["lr"].copy_(lr)
    else:
        options["lr"] = lr
