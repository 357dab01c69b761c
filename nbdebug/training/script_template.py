# mypy: ignore-errors
"""The fixed parts of an exported script; :mod:`nbdebug.training.script` takes from here what a run needs.

Its siblings are :mod:`nbdebug.training.script_template_hand` and :mod:`nbdebug.training.script_template_start`.
A line that ends in ``#: words`` is kept where the run has all of these features (``#: not word``: where it has not).
Names in capitals are written by the exporter. Without types and error classes of ours, since a script is to be read and
run by someone who does not have nbdebug.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nbdebug.training.accumulation import Accumulation
from nbdebug.training.batches import PAIRS, move, samples
from nbdebug.training.script_template_hand import Updates, rates_of
from nbdebug.training.script_template_start import (
    Batches,
    named_modules,
    named_parameters,
    named_roots,
    random_sources,
    read_start,
    restore_generators,
    restore_loader_states,
    restore_modules,
    restore_optimizer,
    set_random_state,
    stateful_parts,
)

THREADS = 1
DEVICE = "cpu"
INTERVAL = "epoch"
FIRST = LAST = (0, 0)
NEEDED: list[str] = []
BATCHES = ARGUMENTS = INITIAL = begin = intervene = None


def train(
    model,
    optimizer,
    loss_fn,
    train_loader,
    val_loader=None,  #: val
    *,
    scheduler=None,  #: schedule
    metrics=None,  #: metrics
    step=None,  #: step
    eval_step=None,  #: eval_step
    state=None,  #: state
    device=None,
):
    """Train from the run's start to its end. The weights are then the run's own, bit for bit."""
    roots = named_roots(model, loss_fn)
    if device is not None:
        for root in roots.values():
            root.to(device)
    device = torch.device(device) if device is not None else next(iter(named_parameters(roots).values())).device
    optimizers = {"": optimizer}  #: one_optimizer
    optimizers = dict(optimizer)  #: not_one_optimizer
    schedulers = {"": scheduler}  #: schedule one_schedule
    schedulers = dict(scheduler)  #: schedule not_one_schedule
    schedulers = {}  #: schedules not_schedule
    given = dict(schedulers)  # noqa: F841  #: given
    schedule = SimpleNamespace(interval=INTERVAL)  #: schedules
    averages = []  #: averages
    sources = random_sources(train_loader, val_loader, roots)  #: sources val
    sources = random_sources(train_loader, None, roots)  #: sources not_val
    parts = stateful_parts(train_loader, val_loader)  #: stateful val
    parts = stateful_parts(train_loader, None)  #: stateful not_val
    batches = Batches(train_loader, sources)  #: restart sources
    batches = Batches(train_loader)  #: restart not_sources
    start = read_start()
    for name, each in schedulers.items():  #: schedule
        each.load_state_dict(start.schedulers[name])  #: schedule
    for name, each in optimizers.items():
        restore_optimizer(each, start.optimizers[name])
    restore_modules(start.modules, roots, optimizers)
    for name, each in state.items():  #: state
        each.load_state_dict(start.state[name])  #: state
    rates = rates_of(optimizers)  #: rates
    updates = Updates(  # noqa: F841  #: hooks
        optimizers,  #: hooks
        rates=rates,  #: hooks factor
        model=model,  #: hooks layers
        kept=start.knobs.update,  #: hooks noise
    )  #: hooks
    kept = start.knobs.update  #: accumulate
    accumulation = Accumulation(kept.accumulate, kept.group, kept.done)  #: accumulate
    step_number, epoch = FIRST
    modules = named_modules(roots)  # noqa: F841  #: modules
    random_states = start.about["random"]  # noqa: F841  #: states
    begin(INITIAL)  #: initial
    restore_loader_states(parts, start.data.states)  #: stateful
    batches.go_to(start.data)  #: midway
    restore_generators(sources, start.data.generators)  #: sources
    set_random_state(start.random)
    losses = [tuple(pair) for pair in start.epoch_losses]
    intervene(step_number, epoch, ARGUMENTS)  #: changes
    optimizer = optimizers[""]  #: swaps one_optimizer
    optimizer = optimizers  #: swaps not_one_optimizer
    for epoch in range(FIRST[1], LAST[1] + 1):
        if (step_number, epoch) == LAST:
            return averages  #: averages
            return  #: not_averages
        for batch in BATCHES:
            batch = move(batch, device)
            result = step(model, batch, loss_fn, optimizer)  #: step
            loss, output, target = parts_of(result)  #: step
            loss, output, target = train_step(model, batch, loss_fn, optimizer)  #: not_step not_accumulate
            loss, output, target = train_step(model, batch, loss_fn, optimizer, accumulation)  #: accumulate
            step_schedulers(schedulers, float(loss))  #: batch_schedule plateau
            step_schedulers(schedulers)  #: batch_schedule not_plateau
            if schedule.interval == "batch":  #: schedules
                step_schedulers(schedulers, float(loss))  #: schedules plateau
                step_schedulers(schedulers)  #: schedules not_plateau
            for average in averages:  #: averages
                average.update(named_roots(model, None))  #: averages
            with torch.no_grad():  #: metrics
                for metric in metrics.values() if output is not None else ():  #: metrics
                    metric(output, target)  #: metrics
            losses.append((float(loss), samples(batch, target)))
            step_number += 1
            intervene(step_number, epoch, ARGUMENTS)  #: changes
            optimizer = optimizers[""]  #: swaps one_optimizer
            if (step_number, epoch) == LAST:
                return averages  #: averages
                return  #: not_averages
        measure = weighted_mean(losses)
        print(f"epoch {epoch + 1}, step {step_number}: training loss {measure:.6g}")
        measure = validate(  #: val
            model,  #: val
            loss_fn,  #: val
            val_loader,  #: val
            device,  #: val
            metrics,  #: val metrics
            eval_step,  #: val eval_step
        )  #: val
        print(f"    validation loss {measure:.6g}")  #: val
        step_schedulers(schedulers, measure)  #: epoch_schedule plateau
        step_schedulers(schedulers)  #: epoch_schedule not_plateau
        if schedule.interval == "epoch":  #: schedules
            step_schedulers(schedulers, measure)  #: schedules plateau
            step_schedulers(schedulers)  #: schedules not_plateau
        losses.clear()
        intervene(step_number, epoch + 1, ARGUMENTS)  #: changes
        optimizer = optimizers[""]  #: swaps one_optimizer
    raise RuntimeError(
        f"came past the run's end, {LAST[0]} steps and {LAST[1]} whole epochs, without meeting it: {step_number} steps "
        "were taken. The training data has another number of batches than in the run"
    )


def train_step(
    model,
    batch,
    loss_fn,
    optimizer,
    accumulation,  #: accumulate
):
    """One batch, one update."""  #: not_accumulate
    """One batch; an update at the end of its group."""  #: accumulate
    inputs, target = split(batch)
    if accumulation.begin():  #: accumulate
        optimizer.zero_grad()  #: accumulate
    optimizer.zero_grad()  #: not_closure not_accumulate
    output = model(inputs)  #: not_closure
    loss = loss_fn(output, target)  #: not_closure
    if accumulation.backward(loss):  #: accumulate
        optimizer.step()  #: accumulate
    loss.backward()  #: not_closure not_accumulate
    optimizer.step()  #: not_closure not_accumulate
    return loss.detach(), detached(output), target  #: not_closure
    output = None  #: closure

    def closure():  #: closure
        nonlocal output  #: closure
        optimizer.zero_grad()  #: closure
        output = model(inputs)  #: closure
        loss = loss_fn(output, target)  #: closure
        loss.backward()  #: closure
        return loss  #: closure

    loss = optimizer.step(closure)  #: closure
    return detached(loss), detached(output), target  #: closure


def validate(
    model,
    loss_fn,
    val_loader,
    device,
    metrics,  #: metrics
    eval_step,  #: eval_step
):
    """The mean loss over the validation data, in evaluation mode; afterwards each module has its own mode again."""
    roots = [model] if isinstance(model, nn.Module) else list(model.values())
    modes = {module: module.training for root in roots for module in root.modules()}
    for root in roots:
        root.eval()
    losses = []
    with torch.no_grad():
        for batch in val_loader:
            batch = move(batch, device)
            loss, output, target = parts_of(eval_step(model, batch, loss_fn))  #: eval_step
            inputs, target = split(batch)  #: not_eval_step
            output = model(inputs)  #: not_eval_step
            loss = loss_fn(output, target)  #: not_eval_step
            losses.append((float(loss), samples(batch, target)))
            for metric in metrics.values() if output is not None else ():  #: metrics
                metric(output, target)  #: metrics
    for module, mode in modes.items():
        module.training = mode
    return weighted_mean(losses)


def step_schedulers(
    schedulers,
    measure,  #: plateau
):
    """Step each schedule."""
    for scheduler in schedulers.values():
        if isinstance(scheduler, ReduceLROnPlateau):  #: plateau
            scheduler.step(measure)  #: plateau
            continue  #: plateau
        scheduler.step()


def weighted_mean(values):
    """The mean of values, each with its number of samples."""
    weight = sum(count for _, count in values)
    return sum(value * count for value, count in values) / weight if weight else float("nan")


def split(batch):
    """Input and target of a batch."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    for a, b in PAIRS if isinstance(batch, Mapping) else ():
        if a in batch and b in batch:
            return batch[a], batch[b]
    raise TypeError(f"the loader is not the run's: it yielded a {type(batch).__name__} that is not (input, target)")


def parts_of(result):
    """Loss, output and target of what a step returned; without output, no metric is computed."""
    if not isinstance(result, Mapping):
        return detached(result), None, None
    both = "output" in result and "target" in result
    return detached(result["loss"]), detached(result["output"]) if both else None, result.get("target")


def detached(value):
    """Without its graph."""
    return value.detach() if isinstance(value, torch.Tensor) else value


def main():
    """Take what is to be trained from a Python file, train it, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setup", type=Path, help=f"a Python file that makes {', '.join(NEEDED)}")
    parser.add_argument("--out", type=Path, default="weights.safetensors", help="where the weights go")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)  # sums are split among threads; another number gives other last bits
    sys.path.insert(0, str(arguments.setup.resolve().parent))
    setup = importlib.import_module(arguments.setup.stem)
    missing = [name for name in NEEDED if not hasattr(setup, name)]
    if missing:
        parser.error(f"{arguments.setup} does not define {', '.join(missing)}, which the run was made with")
    options = {name: getattr(setup, name) for name in NEEDED}
    options["device"] = getattr(setup, "device", None)  #: not_device
    options["device"] = getattr(setup, "device", DEVICE)  #: device
    train(**options)  #: not_averages
    averages = train(**options)  #: averages
    roots = named_roots(setup.model, None)
    weights = {
        f"{prefix}.{name}" if prefix else name: tensor.detach().cpu().clone().contiguous()
        for prefix, root in roots.items()
        for name, tensor in root.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }
    save_file(weights, arguments.out)
    for average in averages:  #: averages
        held = {name: tensor.cpu().clone().contiguous() for name, tensor in average.tensors().items()}  #: averages
        save_file(held, arguments.out.with_suffix(".average.safetensors"))  #: averages
