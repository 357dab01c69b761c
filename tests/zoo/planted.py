"""What makes a fault a fault, said of the program itself: true of each planted one, and not of its healthy twin.

Each function gets a program and says whether the condition holds. None of them asks nbdebug.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nbdebug.training.batches import split
from tests.zoo.plain import ACTIVATIONS, Seen, first_step, step
from tests.zoo.program import Program

SEED = 0


def made(program: Program) -> tuple[Any, Any]:
    return program.build(SEED)


def pairs(loader: Any) -> tuple[Tensor, Tensor]:
    """All inputs and targets of one pass over a loader."""
    inputs, targets = zip(*(batch_pair(batch) for batch in loader), strict=True)
    return torch.cat(inputs).float(), torch.cat(targets)


def batch_pair(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, dict) and "text" in batch:
        return batch["text"], batch["labels"]
    return split(batch)


def output_of(program: Program) -> Tensor:
    model, trainer = made(program)
    given, _ = batch_pair(next(iter(trainer.train_loader)))
    model.eval()
    with torch.no_grad():
        return model(given)


# -- the loss's input ------------------------------------------------------------------------------------------------


def is_distribution_before_cross_entropy(program: Program) -> bool:
    *_, seen = first_step(lambda: made(program))
    given = seen.of("cross_entropy")[0].args[0]
    rows = given if given.dim() == 2 else given.movedim(1, -1)
    return bool((given >= 0).all() and torch.allclose(rows.sum(-1), torch.ones(()), atol=1e-4))


def is_squashed_before_logits(program: Program) -> bool:
    *_, seen = first_step(lambda: made(program))
    given = seen.of("binary_cross_entropy_with_logits")[0].args[0]
    return bool((given >= 0).all() and (given <= 1).all())


def is_no_log_probability(program: Program) -> bool:
    *_, seen = first_step(lambda: made(program))
    given = seen.of("nll_loss", "nll_loss_nd")[0].args[0]
    return not torch.allclose(given.exp().sum(1), torch.ones(()), atol=1e-3)


def sums_to_one_along_something_else(program: Program) -> bool:
    *_, seen = first_step(lambda: made(program))
    call = seen.of("softmax", "log_softmax")[-1]
    dim = call.argument(1, "dim")
    return bool(dim % call.args[0].dim() != call.args[0].dim() - 1)


def is_softmax_over_one(program: Program) -> bool:
    *_, seen = first_step(lambda: made(program))
    return any(call.args[0].shape[1] == 1 for call in seen.of("softmax", "cross_entropy") if call.args[0].dim() == 2)


def doubles_with_the_batch(program: Program) -> bool:
    model, trainer = made(program)
    x, y = batch_pair(next(iter(trainer.train_loader)))
    once, twice = trainer.loss_fn(model(x), y), trainer.loss_fn(model(torch.cat([x, x])), torch.cat([y, y]))
    return bool(twice / once > 1.5)


def others_targets_move_a_sample(program: Program) -> bool:
    """The gradient of the first prediction depends on the targets of others."""
    model, trainer = made(program)
    met: list[Tensor] = []

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        met[:] = [output.detach(), target]
        return own(output, target)

    own, trainer.loss_fn = trainer.loss_fn, loss_fn
    step(model, trainer, next(iter(trainer.train_loader)))
    output, target = met
    gradients = []
    for goal in (target, torch.cat([target[:1], 3 - 2 * target[1:]])):
        given = output.clone().requires_grad_(True)
        own(given, goal).backward()
        assert given.grad is not None
        gradients.append(given.grad[0])
    return not torch.allclose(*gradients)


def range_misses_targets(program: Program) -> bool:
    """What the loss gets comes straight out of a relu or a sigmoid, and targets are below zero."""
    model, trainer = made(program)
    x, target = batch_pair(next(iter(trainer.train_loader)))
    with Seen() as seen:
        output = model(x)
    last = [call for call in seen.of("relu", "sigmoid") if torch.equal(call.result, output)]
    return bool(last and (target < 0).float().mean() > 0.2)


def padding_moves_the_loss(program: Program) -> bool:
    model, trainer = made(program)
    x, y = next(iter(trainer.train_loader))
    output = model(x).detach().requires_grad_(True)
    trainer.loss_fn(output, y).backward()
    assert output.grad is not None
    at_padding = output.grad[y == 0]
    assert (y == 0).float().mean() > 0.5
    return bool(at_padding.abs().max() > 0)


# -- what is trained -------------------------------------------------------------------------------------------------


def leaves(loss: Tensor) -> set[int]:
    """The ids of all leaves that the loss hangs on."""
    found, waiting, known = set(), [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return found


def leaf_that_no_optimizer_has(program: Program) -> bool:
    model, trainer = made(program)
    x, y = batch_pair(next(iter(trainer.train_loader)))
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    return bool(leaves(trainer.loss_fn(model(x), y)) - held)


def held_but_frozen(program: Program) -> bool:
    _, trainer = made(program)
    return any(not p.requires_grad for group in trainer.optimizer.param_groups for p in group["params"])


def parameter_without_path(program: Program) -> bool:
    model, trainer = made(program)
    x, y = batch_pair(next(iter(trainer.train_loader)))
    trainer.loss_fn(model(x), y).backward()
    return any(p.grad is None for p in model.parameters())


def output_stays_the_same(program: Program) -> bool:
    model, trainer = made(program)
    x, _ = batch_pair(next(iter(trainer.train_loader)))
    model.eval()
    with torch.no_grad():
        return torch.allclose(model(x), model(x.roll(1, 0)), atol=1e-3)


# -- how it starts, how it is built ----------------------------------------------------------------------------------


def far_from_its_twin(program: Program) -> bool:
    """Some weight's scale is several times the healthy twin's, or a fraction of it."""
    ours, theirs = (dict(made(each)[0].named_parameters()) for each in (program, twin(program)))
    scales = [(float(ours[n].std()), float(theirs[n].std())) for n in ours if ours[n].dim() > 1]
    return any(not 0.2 < a / b < 5 for a, b in scales)


def rows_are_alike(program: Program) -> bool:
    model, _ = made(program)
    return any(bool((p[1:] == p[:1]).all()) for p in model.parameters() if p.dim() > 1 and len(p) > 1)


def fewer_activations(program: Program) -> bool:
    counts = [len(first_step(lambda each=each: made(each))[3].of(*ACTIVATIONS)) for each in (program, twin(program))]
    return counts[0] < counts[1]


def twin(program: Program) -> Program:
    from tests.zoo.collection import named

    return program if program.name.endswith("_healthy") else named(f"{program.name}_healthy")


def drops_nearly_all(program: Program) -> bool:
    *_, seen = first_step(lambda: made(program))
    return any(call.argument(1, "p", 0.5) > 0.85 for call in seen.of("dropout"))


def others_change_a_sample(program: Program) -> bool:
    model, trainer = made(program)
    x, _ = batch_pair(next(iter(trainer.train_loader)))
    model.eval()
    with torch.no_grad():
        whole = model(x)
        first = model(torch.cat([x[:1], x[1:2].expand_as(x[1:])]))[0]  # the others are copies of one of them
        last = model(torch.cat([x[:1].expand_as(x[1:]), x[-1:]]))[-1]
    return not (torch.allclose(whole[0], first, atol=1e-5) and torch.allclose(whole[-1], last, atol=1e-5))


# -- data ------------------------------------------------------------------------------------------------------------


def far_from_unit_input(program: Program) -> bool:
    x, _ = pairs(made(program)[1].train_loader)
    return bool(x.mean().abs() > 5 or x.std() > 5)


def far_from_unit_target(program: Program) -> bool:
    _, y = pairs(made(program)[1].train_loader)
    return bool(y.mean().abs() > 50 or y.std() > 50)


def never_varies(program: Program) -> bool:
    x, _ = pairs(made(program)[1].train_loader)
    return bool((x == x[0]).all())


def not_finite(program: Program) -> bool:
    return not all(part.isfinite().all() for part in pairs(made(program)[1].train_loader))


def labels_off(program: Program) -> bool:
    """Off the range, a class that never comes, rows of zeros, or nearly all left out."""
    _, y = pairs(made(program)[1].train_loader)
    output = output_of(program)
    if y.is_floating_point():
        is_row = y.dim() == 2 and y.shape[1] > 1
        return bool(y.min() < 0 or y.max() > 1 or (is_row and (y.sum(1) == 0).any()))
    kept = y[y != -100]
    return bool(
        len(kept) < 0.5 * y.numel() or kept.max() >= output.shape[-1] or kept.unique().numel() < output.shape[-1]
    )


def labels_unlike_the_twins(program: Program) -> bool:
    ours, theirs = (by_input(made(each)[1]) for each in (program, twin(program)))
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 100
    return sum(ours[key] == theirs[key] for key in shared) < 0.6 * len(shared)


def by_input(trainer: Any) -> dict[bytes, Any]:
    x, y = pairs(trainer.train_loader)
    return {sample.numpy().tobytes(): label.tolist() for sample, label in zip(x, y, strict=True)}


def batches_of_one_class(program: Program) -> bool:
    _, trainer = made(program)
    counts = [batch_pair(batch)[1].unique().numel() for batch in trainer.train_loader]
    return sum(count == 1 for count in counts) > 0.6 * len(counts)


def rare_class(program: Program) -> bool:
    _, y = pairs(made(program)[1].train_loader)
    return bool(y.long().flatten().bincount().min() < 0.05 * len(y))


def few_distinct_samples(program: Program) -> bool:
    x, _ = pairs(made(program)[1].train_loader)
    return len({sample.numpy().tobytes() for sample in x}) < 0.2 * len(x)


def target_is_given(program: Program) -> bool:
    """A feature (or the last time step) is the target, or the prediction of a word depends on words after it."""
    model, trainer = made(program)
    x, y = pairs(trainer.train_loader)
    if program.task == "language model":
        words = next(iter(trainer.train_loader))[0]
        later = words.clone()
        later[:, -1] = 1 + (later[:, -1] + 3) % 19
        model.eval()
        with torch.no_grad():
            return not torch.allclose(model(words)[:, 0], model(later)[:, 0], atol=1e-5)
    features = x.flatten(1)
    together = torch.corrcoef(torch.cat([features, y.float().view(-1, 1)], 1).T)
    return bool(together[-1, :-1].abs().max() > 0.98)


def splits_differ(program: Program) -> bool:
    """In their moments by more than half a deviation, in their classes, or in that samples are in both."""
    _, trainer = made(program)
    (x, y), (vx, vy) = pairs(trainer.train_loader), pairs(trainer.val_loader)
    apart = (x.mean() - vx.mean()).abs() > 0.5 * x.std()
    shared = {s.numpy().tobytes() for s in x} & {s.numpy().tobytes() for s in vx}
    classes = not y.is_floating_point() and set(y.unique().tolist()) != set(vy.unique().tolist())
    return bool(apart or classes or len(shared) > 0.5 * len(vx))


CONDITIONS: dict[str, Callable[[Program], bool]] = {
    "softmax_before_cross_entropy": is_distribution_before_cross_entropy,
    "sigmoid_before_bce_with_logits": is_squashed_before_logits,
    "nll_on_probabilities": is_no_log_probability,
    "softmax_wrong_dim": sums_to_one_along_something_else,
    "single_class_softmax": is_softmax_over_one,
    "loss_reduction_sum": doubles_with_the_batch,
    "loss_shape_broadcast": others_targets_move_a_sample,
    "output_activation_mismatch": range_misses_targets,
    "padding_in_loss": padding_moves_the_loss,
    "parameters_not_in_optimizer": leaf_that_no_optimizer_has,
    "frozen_parameters": held_but_frozen,
    "detached_graph": parameter_without_path,
    "model_ignores_input": output_stays_the_same,
    "bad_initialization": far_from_its_twin,
    "symmetric_initialization": rows_are_alike,
    "missing_nonlinearity": fewer_activations,
    "degenerate_normalization": output_stays_the_same,
    "dropout_too_high": drops_nearly_all,
    "tensor_layout_error": others_change_a_sample,
    "unnormalized_input": far_from_unit_input,
    "unnormalized_target": far_from_unit_target,
    "constant_input": never_varies,
    "nan_in_data": not_finite,
    "label_encoding_error": labels_off,
    "input_label_mismatch": labels_unlike_the_twins,
    "unshuffled_data": batches_of_one_class,
    "class_imbalance": rare_class,
    "repeated_batch": few_distinct_samples,
    "target_leakage": target_is_given,
    "train_val_mismatch": splits_differ,
}
