"""Training on one batch over and over must memorise it: better than the same training on inputs that say nothing.

Both run the user's own step on the same samples, for as many steps. Blind inputs leave what can be learnt from the
targets alone, so that no loss has to be known: label smoothing, noise or a sum over positions lift both floors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from nbdebug.checks.check import Check, Say, Skip
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.bench import Bench
from nbdebug.checks.preflight.data import BATCH
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import DIFFERENCES, SCALES
from nbdebug.checks.preflight.task import BINARY_LOSSES, Kind
from nbdebug.checks.preflight.trace import LossCall
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.training.aside import copied
from nbdebug.training.modules import roots

SAMPLES, STEPS, GAIN, SHARE = "overfit_samples", "overfit_steps", "overfit_gain", "overfit_seconds_share"
RATES = (1.0, 10.0, 0.1, 100.0)
FEWEST_STEPS = 20
WEIGHTS_A_SAMPLE = 4
RANDOM = frozenset({"randn", "rand", "randn_like", "rand_like", "normal", "uniform", "bernoulli", "randint", "poisson"})
RECKONING = DIFFERENCES | SCALES | frozenset({"add", "radd", "rsub", "rmul", "neg", "lerp", "addcmul", "where"})
WINDOWS = 12
GROWTH = 1e-4  # of the first loss, by which inputs must help more within a quarter of the steps
FARTHEST_STILL = 0.01  # of their norm, that weights may move and count as standing still


def judge(look: Look, say: Say) -> None:
    """Train on a few samples with their inputs and without, at the rate as set; at others only if it does not help."""
    bench = look.experiments
    batch = _few(look, int(say.limit(SAMPLES)))
    _gates(look, batch)
    steps = _affordable(bench, batch, say)
    if steps < FEWEST_STEPS:
        raise Skip("a step takes too long for it: raise the parameter preflight_seconds")
    curves: dict[str, list[float]] = {}
    floor, is_own = _floor(bench, batch), _is_its_own_target(look)
    gain, moved, is_learning, best = -math.inf, 0.0, False, RATES[0]
    for rate in RATES:
        with _blindfolded(look, _count(batch)) if is_own else nullcontext():
            blind, _ = _losses(bench, look, batch if is_own else _blinded(look, batch), steps, rate)
        enough = min(blind) * 0.5 if min(blind) > 0 else None
        seeing, distance = _losses(bench, look, batch, steps, rate, enough=enough)
        moved = max(moved, distance)
        curves[f"inputs, rate × {rate:g}"], curves[f"without, rate × {rate:g}"] = seeing, blind
        is_learning |= rate == RATES[0] and _is_learning(seeing, blind)
        if (reached := _gain(seeing, blind, floor)) > gain:
            gain, best = reached, rate
        if gain > say.limit(GAIN) or bench.seconds_left < 1.0:
            break
    seeing, blind = curves[f"inputs, rate × {best:g}"], curves[f"without, rate × {best:g}"]
    say.note(f"{_runs(steps, batch, best)}: loss {seeing[0]:.3g} → {min(seeing):.3g}, {_told(blind, floor)}")
    if not say.measure("share of the loss that inputs take away when one batch is memorised", gain, GAIN, above=False):
        return
    if is_learning:
        raise Skip(f"inputs tell more with every step still: {steps} steps are too few (raise {STEPS})")
    if moved < FARTHEST_STILL:
        raise Skip("weights hardly move at these rates, as at the beginning of a warm-up")
    if rate != RATES[-1]:
        raise Skip("it did not help at the rates that there was time for: raise the parameter preflight_seconds")
    say.find(
        Cause.CANNOT_OVERFIT_BATCH,
        Severity.WARNING,
        "It can't memorise a single batch",
        f"After {steps} steps on the same {_count(batch)} samples the loss is as high as with inputs that say nothing, "
        "at the learning rate as set, at ten and a hundred times it and at a tenth. A network of this size could learn "
        "these by heart, so what the inputs say does not reach the loss, or gradients don't reach the weights.",
        confidence=0.7,
        pictures=(_picture(curves),),
        remedies=(Remedy("Look at the causes above; else follow one sample through the model by hand."),),
    )


def _gates(look: Look, batch: Any) -> None:
    if look.task.kind is Kind.UNKNOWN or look.task.target is None:
        raise Skip("the loss compares nothing with a target of the batch")
    if _is_drawn(look):
        raise Skip("targets are drawn at random in the step, anew each time: no sample has one to be learnt by heart")
    if len(look.optimizers) > 1:
        raise Skip("several optimizers work against each other, as in a GAN: no loss has to fall")
    if not look.data.inputs:
        raise Skip("no tensor of the batch was seen to reach the model")
    weights = sum(each.numel() for each in look.parameters.values() if each.requires_grad)
    if weights < WEIGHTS_A_SAMPLE * _count(batch):
        raise Skip(f"{weights:,} trainable weights are too few to learn {_count(batch)} samples by heart")
    target = look.task.target
    if _is_constant(look, batch) or (target.numel() > 1 and bool((target == target.reshape(-1)[0]).all())):
        raise Skip("all targets are the same: there is nothing that inputs could tell")


def _is_drawn(look: Look) -> bool:
    """Whether what the loss compares with is random itself, or reckoned from what is, as noise to be predicted."""
    trace, loss = look.trace, look.task.loss or look.task.by_hand
    queue = [(loss.target_number, loss.call.index)] if loss is not None and loss.target_number else []
    seen = set[int]()
    while queue:
        number, call = trace.origin(*queue.pop())
        if call is None or number in seen:
            continue
        seen.add(number)
        name = call.name.strip("_")
        if name in RANDOM:
            return True
        if name in RECKONING:
            queue += [(each, call.index) for each in call.inputs]
    return False


def _few(look: Look, most: int) -> Any:
    """The first samples of the first batch; all of it where its tensors have no samples in common, or these no news."""
    batch = look.batches[0]
    sizes = {len(tensor) for _, tensor in leaves(batch) if tensor.dim()}
    if len(sizes) != 1 or look.task.output is None or len(look.task.output) % next(iter(sizes)):
        return batch
    few = _sliced(batch, most)
    return batch if _is_constant(look, few) else few


def _is_constant(look: Look, batch: Any) -> bool:
    """Whether all samples have the same target."""
    targets = [tensor for name, tensor in leaves(batch, BATCH) if name in look.data.targets and tensor.numel()]
    return bool(targets) and all(bool((each == each.reshape(-1)[0]).all()) for each in targets)


def _sliced(batch: Any, most: int) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch[:most] if batch.dim() else batch
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_sliced(part, most) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_sliced(part, most) for part in batch)
    if isinstance(batch, dict):
        made = copied(batch)
        made.update({key: _sliced(part, most) for key, part in batch.items()})
        return made
    return batch


def _blinded(look: Look, batch: Any) -> Any:
    """The same targets, each input the first sample's: they tell no sample from another."""
    made = copied(batch)
    for name, tensor in leaves(made, BATCH):
        if name in look.data.inputs and name not in look.data.targets and tensor.dim():
            tensor.copy_(tensor[:1].expand_as(tensor).clone())
    return made


def _is_its_own_target(look: Look) -> bool:
    """Whether the loss compares with what the network was given, as an autoencoder's does, or with a part of it."""
    loss = look.task.loss or look.task.by_hand
    if loss is None or loss.target_number is None:
        return False
    made_of = look.trace.sources(loss.target_number, loss.call.index)
    return any(name in made_of for name in look.data.inputs)


@contextmanager
def _blindfolded(look: Look, samples: int) -> Iterator[None]:
    """Within, networks get the first sample for all, and losses what the batch holds."""
    seen = [0]

    def blinded(value: Any) -> Any:
        for _, tensor in leaves(value):
            if tensor.dim() and len(tensor) == samples:
                seen[0] += 1
                tensor.copy_(tensor[:1].expand_as(tensor).clone())
        return value

    def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if any(tensor.requires_grad for _, tensor in leaves((args, kwargs))):
            return None  # what another network made of its own input
        return blinded(copied(args)), blinded(copied(kwargs))

    handles = [
        root.register_forward_pre_hook(hook, with_kwargs=True, prepend=True) for root in roots(look.model).values()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not seen[0]:
        raise Skip("what the network gets can't be taken from it")


def _affordable(bench: Bench, batch: Any, say: Say) -> int:
    with bench.fresh():
        seconds = min(_seconds(bench, batch) for _ in range(3))  # the first may have to warm up
    share = bench.seconds_left * say.limit(SHARE)
    return int(min(say.limit(STEPS), share / max(seconds, 1e-5) / 2))


def _seconds(bench: Bench, batch: Any) -> float:
    began = time.perf_counter()
    bench.loss(batch)
    return time.perf_counter() - began


def _losses(
    bench: Bench, look: Look, batch: Any, steps: int, rate: float, enough: float | None = None
) -> tuple[list[float], float]:
    """The loss before each of so many steps, and how far weights moved in all, of their norm.

    Ends early below ``enough``.
    """
    found = []
    with bench.fresh(), bench.scaled_rates(rate):
        weights = [each for each in look.parameters.values() if each.requires_grad]
        before = [each.detach().clone() for each in weights]
        for _ in range(steps):
            found.append(bench.loss(batch))
            if not math.isfinite(found[-1]) or (enough is not None and found[-1] < enough):
                break
        return found, _distance(before, weights)


def _distance(before: list[torch.Tensor], weights: list[torch.nn.Parameter]) -> float:
    """The root mean square of all changes, of that of the weights."""
    pairs = [(old, new.detach()) for old, new in zip(before, weights, strict=True) if old.shape == new.shape]
    moved = math.hypot(*(float((new - old).abs().float().norm()) for old, new in pairs))
    return moved / max(math.hypot(*(float(old.abs().float().norm()) for old, _ in pairs)), 1e-12)


def _gain(seeing: list[float], blind: list[float], least: float = 0.0) -> float:
    """The share of the blind loss, above the ``least`` one, that inputs take away, as far as it came down itself."""
    best, floor = _settled(seeing), _settled(blind)
    scale = max(abs(floor - least), abs(blind[0] - floor), 1e-12)
    return (floor - best) / scale if math.isfinite(best) and math.isfinite(floor) else 0.0


def _is_learning(seeing: list[float], blind: list[float]) -> bool:
    """Whether inputs help, and more at the end than shortly before, beyond what the curves scatter."""
    width = min(len(seeing), len(blind)) // WINDOWS
    ahead = np.array(blind[: width * WINDOWS]) - np.array(seeing[: width * WINDOWS])
    if width < 2 or not np.isfinite(ahead).all():
        return False
    last = [float(np.median(part)) for part in ahead.reshape(WINDOWS, width)[-3:]]
    noise = float(np.abs(np.diff(ahead[-3 * width :])).std())
    return 0 < last[0] < last[1] < last[2] and last[2] - last[0] > max(3 * noise, GROWTH * abs(blind[0]))


def _floor(bench: Bench, batch: Any) -> float:
    """The least that the loss can be, where targets are shares and it is torch's alone; 0 where it is not known."""
    with bench.fresh():
        trace = bench.trace(batch)
    loss, target = trace.main_loss, trace.main_loss.target if trace.main_loss is not None else None
    if loss is None or target is None or not target.is_floating_point() or loss.weight is not None or not loss.value:
        return 0.0
    if trace.loss is None or not math.isclose(trace.loss, loss.value, rel_tol=1e-4) or loss.input.numel() < 1:
        return 0.0
    entropy = _entropy(loss, target.double())
    shares = target.numel() // (loss.input.shape[1] if loss.name == "cross_entropy" and target.dim() > 1 else 1)
    return entropy / shares if loss.reduction == "mean" and shares else entropy if loss.reduction == "sum" else 0.0


def _entropy(loss: LossCall, target: torch.Tensor) -> float:
    """Of all targets together, in nats."""
    if target.shape != loss.input.shape or bool((target < 0).any()) or bool((target > 1).any()):
        return 0.0
    if loss.name in BINARY_LOSSES:
        return float(-(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target)).sum())
    return float(-torch.xlogy(target, target).sum()) if loss.name == "cross_entropy" else 0.0


def _settled(losses: list[float]) -> float:
    return float(np.median(sorted(losses)[: max(1, len(losses) // 10)]))


def _count(batch: Any) -> int:
    return next((len(tensor) for _, tensor in leaves(batch) if tensor.dim()), 1)


def _runs(steps: int, batch: Any, rate: float) -> str:
    return f"{steps} steps on {_count(batch)} samples" + (f" at {rate:g} times the rate" if rate != 1 else "")


def _told(blind: list[float], floor: float) -> str:
    told = f"with inputs that say nothing {min(blind):.3g}"
    return told + (f", and no less than {floor:.3g} is possible" if floor else "")


def _picture(curves: dict[str, list[float]]) -> Picture:
    width = max(len(curve) for curve in curves.values())
    values = np.full((len(curves), width), np.nan)
    for row, curve in zip(values, curves.values(), strict=True):
        row[: len(curve)] = curve
    return Picture(PictureKind.LINES, "loss on one batch", values, tuple(curves))


CHECK = Check(
    "overfit_one_batch",
    "one batch can be learnt by heart",
    judge,
    (Cause.CANNOT_OVERFIT_BATCH,),
    parameters=(
        Parameter(SAMPLES, 16, "samples of a batch that are to be learnt by heart", 2),
        Parameter(STEPS, 120, "steps that may be taken on them", 20),
        Parameter(GAIN, 0.05, "share of the loss that inputs must take away", 0.0, 1.0),
        Parameter(SHARE, 0.5, "share of the time left that a run of these may take", 0.01, 0.5),
    ),
    source="Karpathy, A Recipe for Training Neural Networks: overfit a single batch; an input-independent baseline",
    passive=False,
    late=True,
)
