"""What makes a fault a fault, for those that show only in steps: true of each planted one, and not of its twin.

As in :mod:`tests.zoo.planted`, none of these asks nbdebug.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tests.zoo.plain import Seen, losses, step
from tests.zoo.planted import batch_pair, first_step, made, pairs, twin
from tests.zoo.program import Program


def trained(program: Program, steps: int) -> tuple[Any, Any, list[float]]:
    """Model, trainer and the losses of so many plain steps."""
    model, trainer = made(program)
    return model, trainer, list(islice(losses(model, trainer), steps))


def rate(program: Program) -> float:
    return float(made(program)[1].optimizer.param_groups[0]["lr"])


def rate_is_many_times_the_twins(program: Program) -> bool:
    return rate(program) > 5 * rate(twin(program))


def rate_is_a_fraction_of_the_twins(program: Program) -> bool:
    return rate(program) < 1e-3 * rate(twin(program))


def rate_is_gone_after_two_epochs(program: Program) -> bool:
    _, trainer = made(program)
    batches = 2 * len(trainer.train_loader)
    _, trainer, _ = trained(program, max(50, batches))
    return bool(trainer.optimizer.param_groups[0]["lr"] < 0.02 * rate(program))


def gradient_is_clipped_away(program: Program) -> bool:
    model, _, _ = trained(program, 1)
    return bool(norm(model) < 0.01)


def norm(model: Any) -> Tensor:
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()


def gradient_is_not_divided(program: Program) -> bool:
    """After the first of several batches the gradient is that batch's own."""
    model, trainer = made(program)
    batch = next(iter(trainer.train_loader))
    step(model, trainer, batch)
    added = norm(model)
    model.zero_grad()
    trainer.loss_fn(model(batch[0]), batch[1]).backward()
    return bool(added > 0.5 * norm(model))


def decay_is_strong(program: Program) -> bool:
    return any(group["weight_decay"] > 0.1 for group in made(program)[1].optimizer.param_groups)


def gradient_of_before_is_still_there(program: Program) -> bool:
    model, trainer, _ = trained(program, 1)
    with torch.no_grad():
        for p in model.parameters():
            p.grad.fill_(1e4)
    step(model, trainer, next(iter(trainer.train_loader)))
    return all(bool((p.grad > 5e3).all()) for p in model.parameters())


def parameters_never_move(program: Program) -> bool:
    model, trainer = made(program)
    before = [p.detach().clone() for p in model.parameters()]
    list(islice(losses(model, trainer), 5))
    return all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def forward_runs_in_eval_mode(program: Program) -> bool:
    """The forward pass whose loss is learnt from, in the second step and after it."""
    model, trainer = made(program)
    modes: list[bool] = []
    model.register_forward_pre_hook(
        lambda module, _: modes.append(module.training) if torch.is_grad_enabled() else None
    )
    list(islice(losses(model, trainer), 3))
    return not any(modes[1:])


def validation_depends_on_chance(program: Program) -> bool:
    model, trainer = made(program)
    model.eval()
    batch = next(iter(trainer.val_loader))

    def loss() -> float:
        with torch.no_grad():
            if trainer.eval_step is not None:
                return float(trainer.eval_step(model, batch, trainer.loss_fn)["loss"])
            return float(trainer.loss_fn(model(batch[0]), batch[1]))

    return loss() != loss()


def loss_falls_below_zero(program: Program) -> bool:
    return trained(program, 60)[2][-1] < -1


def units_are_silent(program: Program) -> bool:
    """Over two fifths of some layer's units are zero for every sample."""
    model, trainer, _ = trained(program, 10)
    x, _ = batch_pair(next(iter(trainer.train_loader)))
    with Seen() as seen:
        model(x)
    units = [call.result.transpose(0, 1).flatten(1) for call in seen.of("relu")]
    return any(bool((each.amax(1) == 0).float().mean() > 0.4) for each in units)


def loss_becomes_not_finite(program: Program) -> bool:
    return not all(map(math.isfinite, trained(program, program.live)[2]))


class Overflows(TorchFunctionMode):
    """Notes whether any half-precision result is not finite."""

    happened = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype is torch.float16 and result.numel():
            with torch._C.DisableTorchFunction():
                self.happened |= not bool(result.isfinite().all())
        return result


def half_precision_overflows(program: Program) -> bool:
    model, trainer = made(program)
    with Overflows() as overflows:
        model(next(iter(trainer.train_loader))[0])
    return overflows.happened


def validation_is_far_worse(program: Program) -> bool:
    model, trainer, _ = trained(program, min(program.live, 200))
    model.eval()
    with torch.no_grad():
        train, val = (
            torch.stack([trainer.loss_fn(model(x), y) for x, y in loader]).mean()
            for loader in (trainer.train_loader, trainer.val_loader)
        )
    return bool(val > 2 * train)


def loss_stays_high(program: Program) -> bool:
    seen = trained(program, min(program.live, 200))[2]
    return sum(seen[-10:]) > 0.5 * sum(seen[:10])


def derivative_is_another(program: Program) -> bool:
    """Along the gradient, the loss changes otherwise than the gradient says; in double precision."""
    model, trainer = made(program)
    model.double()
    x, y = batch_pair(next(iter(trainer.train_loader)))
    x, y = x.double(), y.double() if y.is_floating_point() else y
    trainer.loss_fn(model(x), y).backward()
    along = [(p, p.grad / norm(model)) for p in model.parameters()]
    sides = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, direction in along:
                p.add_(direction, alpha=sign * 1e-6)
            sides.append(trainer.loss_fn(model(x), y))
    return bool(((sides[0] - sides[1]) / 2e-6 / norm(model) - 1).abs() > 0.01)


def parameter_got_no_gradient(program: Program) -> bool:
    model, *_ = first_step(lambda: made(program))
    return any(p.grad is None for p in model.parameters())


def perfect_answers_score_badly(program: Program) -> bool:
    _, trainer = made(program)
    _, target = next(iter(trainer.train_loader))
    perfect = 40 * target - 20 if target.is_floating_point() else 20.0 * F.one_hot(target)
    return any(float(metric(perfect, target)) < 0.9 for metric in trainer.metrics.values())


def targets_lie_far_out(program: Program) -> bool:
    _, y = pairs(made(program)[1].train_loader)
    return bool((y - y.median()).abs().max() > 10 * (y - y.median()).abs().quantile(0.9))


def few_of_each_class(program: Program) -> bool:
    _, y = pairs(made(program)[1].train_loader)
    return bool(y.bincount().float().median() < 6)


LIVE_CONDITIONS: dict[str, Callable[[Program], bool]] = {
    "lr_too_high": rate_is_many_times_the_twins,
    "lr_too_low": rate_is_a_fraction_of_the_twins,
    "lr_schedule_collapse": rate_is_gone_after_two_epochs,
    "gradient_clip_too_low": gradient_is_clipped_away,
    "gradient_accumulation_unscaled": gradient_is_not_divided,
    "weight_decay_too_high": decay_is_strong,
    "zero_grad_missing": gradient_of_before_is_still_there,
    "optimizer_step_missing": parameters_never_move,
    "eval_mode_in_training": forward_runs_in_eval_mode,
    "missing_eval_mode": validation_depends_on_chance,
    "loss_sign_error": loss_falls_below_zero,
    "dead_relu": units_are_silent,
    "numerical_instability": loss_becomes_not_finite,
    "half_precision_overflow": half_precision_overflows,
    "overfitting": validation_is_far_worse,
    "underfitting": loss_stays_high,
    "wrong_gradient": derivative_is_another,
    "loss_part_dropped": parameter_got_no_gradient,
    "metric_error": perfect_answers_score_badly,
    "target_outliers": targets_lie_far_out,
    "too_few_samples": few_of_each_class,
}
