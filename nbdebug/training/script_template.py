# mypy: ignore-errors
"""The fixed parts of an exported script; :mod:`nbdebug.training.script` takes from here what a run needs.

A line that ends in ``#: words`` is kept where the run has all of these features (``#: not word``: where it has not).
Names in capitals are written by the exporter. Without types and error classes of ours, since a script is to be read and
run by someone who does not have nbdebug.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nbdebug.training.batches import PAIRS, move, samples
from nbdebug.training.data import _random_sources, _seed, _set_state, _state_of, _stateful_parts

START_FILE = Path()
THREADS = 1
DEVICE = "cpu"
FIRST = LAST = (0, 0)
NEEDED: list[str] = []
RATES: list[dict] = []
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
    updates = Updates(optimizers, rates)  #: hooks factor
    updates = Updates(optimizers)  # noqa: F841  #: hooks not_factor
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
    for epoch in range(FIRST[1], LAST[1] + 1):
        if (step_number, epoch) == LAST:
            return
        for batch in BATCHES:
            batch = move(batch, device)
            result = step(model, batch, loss_fn, optimizer)  #: step
            loss, output, target = parts_of(result)  #: step
            loss, output, target = train_step(model, batch, loss_fn, optimizer)  #: not_step
            step_schedulers(schedulers, float(loss))  #: batch_schedule plateau
            step_schedulers(schedulers)  #: batch_schedule not_plateau
            with torch.no_grad():  #: metrics
                for metric in metrics.values() if output is not None else ():  #: metrics
                    metric(output, target)  #: metrics
            losses.append((float(loss), samples(batch, target)))
            step_number += 1
            intervene(step_number, epoch, ARGUMENTS)  #: changes
            if (step_number, epoch) == LAST:
                return
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
        losses.clear()
        intervene(step_number, epoch + 1, ARGUMENTS)  #: changes
    raise RuntimeError(
        f"came past the run's end, {LAST[0]} steps and {LAST[1]} whole epochs, without meeting it: {step_number} steps "
        "were taken. The training data has another number of batches than in the run"
    )


def train_step(model, batch, loss_fn, optimizer):
    """One batch, one update."""
    inputs, target = split(batch)
    optimizer.zero_grad()  #: not_closure
    output = model(inputs)  #: not_closure
    loss = loss_fn(output, target)  #: not_closure
    loss.backward()  #: not_closure
    optimizer.step()  #: not_closure
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
    if isinstance(batch, (tuple, list)):
        inputs, target = batch
        return inputs, target
    return next((batch[a], batch[b]) for a, b in PAIRS if a in batch and b in batch)


def parts_of(result):
    """Loss, output and target of what a step returned; without output, no metric is computed."""
    if not isinstance(result, Mapping):
        return detached(result), None, None
    both = "output" in result and "target" in result
    return detached(result["loss"]), detached(result["output"]) if both else None, result.get("target")


def detached(value):
    """Without its graph."""
    return value.detach() if isinstance(value, torch.Tensor) else value


# -- what is set by hand ----------------------------------------------------------------------------------------------


class Updates:
    """What is set by hand and acts around each update of the weights."""

    def __init__(
        self,
        optimizers,
        rates,  #: factor
    ):
        self.rates = rates  #: factor
        self.clip_norm = None  #: norm
        self.clip_value = None  #: value
        for optimizer in optimizers.values():
            optimizer.register_step_pre_hook(self.before)
            optimizer.register_step_post_hook(self.after)  #: factor

    def before(self, optimizer, args, kwargs):
        """Gradients are complete, or a closure will compute them."""
        for rate in self.rates:  #: factor
            if any(group is rate.group for group in optimizer.param_groups):  #: factor
                rate.put_factor_on()  #: factor
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  #: closures clip
        if callable(closure):  #: closures clip
            evaluate = partial(self.evaluate, optimizer, closure)  #: closures clip
            if len(args) > 1:  #: closures clip
                return (args[0], evaluate, *args[2:]), kwargs  #: closures clip
            return args, {**kwargs, "closure": evaluate}  #: closures clip
        self.clip(optimizer)  #: clip
        return None  #: closures clip

    def evaluate(self, optimizer, closure):  #: closures clip
        """What the closure gives, with its gradients clipped."""  #: closures clip
        loss = closure()  #: closures clip
        self.clip(optimizer)  #: closures clip
        return loss  #: closures clip

    def after(self, optimizer, args, kwargs):  #: factor
        """The update is done."""  #: factor
        for rate in self.rates:  #: factor
            if any(group is rate.group for group in optimizer.param_groups):  #: factor
                rate.take_factor_off()  #: factor

    def clip(self, optimizer):  #: clip
        """Clip the gradients in place; by norm only finite ones."""  #: clip
        held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]  #: clip
        scale = getattr(optimizer, "grad_scale", None)  # that of a gradient scaler  #: scaler clip
        scale = 1.0 if scale is None else scale  #: scaler clip
        with torch.no_grad():  #: clip
            if self.clip_value is not None:  #: value
                limit = self.clip_value * float(scale)  #: value scaler
                limit = self.clip_value  #: value not_scaler
                for parameter in held:  #: value
                    if parameter.grad.is_sparse:  #: value sparse
                        parameter.grad.data = parameter.grad.coalesce()  #: value sparse
                    numbers_of(parameter.grad).clamp_(-limit, limit)  #: value sparse
                    parameter.grad.clamp_(-limit, limit)  #: value not_sparse
            if self.clip_norm is not None and held:  #: norm
                limit = self.clip_norm * scale  #: norm scaler
                limit = self.clip_norm  #: norm not_scaler
                whole = [p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in held]  #: norm sparse
                whole = [p.grad for p in held]  #: norm not_sparse
                norm = torch.nn.utils.get_total_norm(whole)  #: norm
                if torch.isfinite(norm):  #: norm
                    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)  #: norm
                    for parameter in held:  #: norm
                        numbers_of(parameter.grad).mul_(factor.to(parameter.device))  #: norm sparse
                        parameter.grad.mul_(factor.to(parameter.device))  #: norm not_sparse


def numbers_of(gradient):
    """The numbers of a gradient, also of a sparse one."""
    return gradient._values() if gradient.is_sparse else gradient


class Rate:
    """The learning rate of a parameter group. Under a schedule, what is set by hand is a factor on it."""

    def __init__(
        self,
        group,
        scheduled=False,  #: factor
        peak=False,  #: factor
        first=None,  #: factor
        factor=1.0,  #: factor
    ):
        self.group = group
        self.scheduled, self.peak, self.first, self.factor = scheduled, peak, first, factor  #: factor
        self.share = 1.0
        if isinstance(group["lr"], torch.Tensor):  #: tensor_lr
            group["lr"] = group["lr"].clone()  #: tensor_lr

    @property  #: factor
    def base(self):  #: factor
        """What the schedule scales: its peak where it has one, else its start."""  #: factor
        start = self.group.get("initial_lr", self.first)  #: factor
        return float(self.group.get("max_lr", start) if self.peak else start)  #: factor

    @property
    def asked(self):
        """The rate as it was asked for."""
        return self.base * self.factor if self.scheduled else float(self.group["lr"])  #: factor
        return float(self.group["lr"])  #: not_factor

    def ask(self, lr):
        """Ask for another rate."""
        if self.scheduled:  #: factor
            self.factor = lr / self.base  #: factor
            return  #: factor
        write_lr(self.group, lr)

    def put_factor_on(self):  #: factor
        """For the length of an update."""  #: factor
        lr = self.group["lr"]  #: factor
        self.kept = lr.clone() if isinstance(lr, torch.Tensor) else lr  #: factor
        write_lr(self.group, self.kept * self.factor)  #: factor

    def take_factor_off(self):  #: factor
        """So that the schedule never sees it."""  #: factor
        write_lr(self.group, self.kept)  #: factor


def write_lr(group, lr):
    """Write the learning rate of a parameter group."""
    if isinstance(group["lr"], torch.Tensor):  #: tensor_lr
        group["lr"].fill_(lr)  #: tensor_lr
        return  #: tensor_lr
    group["lr"] = lr


def rates_of(optimizers):
    """The rates of all parameter groups, in their order."""
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    return [Rate(group, **options) for group, options in zip(groups, RATES, strict=True)]  #: factor
    return [Rate(group) for group in groups]  #: not_factor


def set_lr(rates, lr):
    """Set the learning rate of all parameter groups; they keep their ratio to the first."""
    asked = [rate.asked for rate in rates]
    for rate, before in zip(rates, asked, strict=True):
        rate.share = before / asked[0] if asked[0] > 0 else rate.share
        rate.ask(lr * rate.share if rate.share != 1.0 else lr)


def forget(optimizers, parameters):
    """Clear what the optimizers remember of parameters that were drawn anew."""
    for optimizer in optimizers.values():
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}  #: lbfgs
        if isinstance(optimizer, torch.optim.LBFGS) and held & set(map(id, parameters)):  #: lbfgs
            optimizer.state.clear()  # LBFGS keeps what it knows of all under its first parameter  #: lbfgs
        for parameter in parameters:
            optimizer.state.pop(parameter, None)


# -- random numbers and data ------------------------------------------------------------------------------------------


def random_state():
    """The states of all random generators."""
    return SimpleNamespace(
        torch_cpu=torch.get_rng_state(),
        numpy=np.random.get_state(),
        python=random.getstate(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  #: cuda
    )


def set_random_state(state):
    """Set all random generators."""
    torch.set_rng_state(state.torch_cpu)
    np.random.set_state(state.numpy)
    random.setstate(state.python)
    if state.cuda:  #: cuda
        torch.cuda.set_rng_state_all([each.cpu() for each in state.cuda])  #: cuda


def seed_all(seed):
    """Seed all random generators."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_sources(train_loader, val_loader, roots):
    """The random generators that loaders and modules hold."""
    holders = (train_loader, val_loader, *named_modules(roots).values())
    return list({id(source): source for holder in holders for source in _random_sources(holder)}.values())


def generator_states(sources):
    """Their states."""
    return [_state_of(source) for source in sources]


def restore_generators(sources, states):
    """Set the random generators that loaders and modules hold."""
    for source, state in zip(sources, states, strict=True):
        _set_state(source, state)


def seed_generators(sources, seed):
    """Seed the random generators that loaders and modules hold, each in its own way."""
    for number, source in enumerate(sources, seed + 1):
        _seed(source, number)


class Batches:
    """The batches of an epoch, which can be begun anew and passed over up to the present one."""

    def __init__(
        self,
        loader,
        sources,  #: sources
    ):
        self.loader = loader
        self.sources = sources  #: sources
        self.iterator = None
        self.seen = 0

    def __iter__(self):
        return self

    def __next__(self):
        """The next batch of this epoch."""
        if self.iterator is None:
            self.iterator = iter(self.loader)
        try:
            batch = next(self.iterator)
        except StopIteration:
            self.iterator, self.seen = None, 0
            raise
        self.seen += 1
        return batch

    def begin_anew(self, seen):
        """An epoch that begins with the present random numbers, its first ``seen`` batches left out."""
        if getattr(self.loader, "persistent_workers", False):
            self.loader._iterator = None
        self.iterator, self.seen = None, 0
        kept = random_state()
        kept_generators = generator_states(self.sources)  #: sources
        for _ in range(seen):
            next(self)
        restore_generators(self.sources, kept_generators)  #: sources
        set_random_state(kept)

    def go_to(self, data):  #: midway
        """The place in the data where the run began."""  #: midway
        set_random_state(data.epoch_random)  #: midway
        restore_generators(self.sources, data.epoch_generators)  #: midway sources
        self.begin_anew(data.batch)  #: midway


def stateful_parts(train_loader, val_loader):
    """What of the loaders keeps its place by itself, in a ``state_dict``."""
    return [part for loader in (train_loader, val_loader) for part in _stateful_parts(loader)]


def restore_loader_states(parts, states):
    """Set them to their places."""
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(state)


# -- the start --------------------------------------------------------------------------------------------------------


def named_roots(model, loss_fn):
    """What is trained, by name: the model or models, and the loss where it is a module."""
    roots = {"": model} if isinstance(model, nn.Module) else dict(model)
    return {**roots, "loss_fn": loss_fn} if isinstance(loss_fn, nn.Module) else roots


def named_modules(roots):
    """Every module once, by its dotted name."""
    seen = set()
    return {
        name: module for prefix, root in roots.items() for name, module in root.named_modules(memo=seen, prefix=prefix)
    }


def named_parameters(roots):
    """Every parameter once, by its dotted name; tied ones by their first."""
    found = {}
    for prefix, root in roots.items():
        for name, parameter in root.named_parameters(prefix=prefix):
            if not any(parameter is known for known in found.values()):
                found[name] = parameter
    return found


def read_start():
    """All that training depends on, as it was when the run began."""
    with safe_open(START_FILE, framework="pt") as file:
        content = json.loads(file.metadata()["nbdebug"])
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    start = decode(content["snapshot"], tensors)
    start.about = decode(content["about"], tensors)  #: states
    return start


def restore_modules(kept, roots, optimizers):
    """Weights, gradients, buffers and modes of all modules."""
    parameters, modules = named_parameters(roots), named_modules(roots)
    unlike = sorted(kept.parameters.keys() ^ parameters.keys()) or sorted(
        name for name, parameter in parameters.items() if parameter.shape != kept.parameters[name].shape
    )
    if unlike:
        raise SystemExit(f"the model is not the run's: other parameters are {', '.join(unlike[:5])}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(kept.parameters[name])
            parameter.requires_grad_(kept.learning[name])
            gradient = kept.gradients.get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        held = [p for o in optimizers.values() for group in o.param_groups for p in group["params"]]  #: others
        inside = {id(parameter) for parameter in parameters.values()}  #: others
        others = [parameter for parameter in held if id(parameter) not in inside]  #: others
        for parameter, value in zip(others, kept.others, strict=True):  #: others
            parameter.copy_(value)  #: others
        for (name, key), (_, value) in kept.buffers.items():
            present = modules[name]._buffers.get(key)
            if value is not None and present is not None and present.shape == value.shape:
                present.copy_(value)
            else:
                modules[name]._buffers[key] = value
    for (name, key), value in kept.attributes.items():  #: attributes
        setattr(modules[name], key, value)  #: attributes
    for name, mode in kept.modes.items():
        modules[name].training = mode
    for name, value in kept.extra.items():  #: extra
        modules[name].set_extra_state(value)  #: extra


def restore_optimizer(optimizer, kept):
    """The options of its parameter groups, and its state for each parameter."""
    if isinstance(kept, dict):  # an optimizer with a state_dict of its own  #: own_state_dict
        optimizer.load_state_dict(kept)  #: own_state_dict
        return  #: own_state_dict
    options, states, sizes = kept
    if [len(group["params"]) for group in optimizer.param_groups] != sizes:
        raise SystemExit(f"the optimizer is not the run's: its groups had {sizes} parameters")
    for group, values in zip(optimizer.param_groups, options, strict=True):
        group.update(values)
    optimizer.state.clear()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, state in zip(parameters, states, strict=True):
        if state is not None:
            optimizer.state[parameter] = state


def decode(value, tensors):
    """A value of the start file: JSON in which ``{"$tuple": [1, 2]}`` stands for a tuple, and so on."""
    if isinstance(value, list):
        return [decode(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: decode(part, tensors) for key, part in value.items()}
    content = decode(value[tag], tensors)
    return decode_tensor(content, tensors) if tag == "$tensor" else MAKERS[tag](content)


def decode_tensor(stored, tensors):
    """A tensor in its dtype, shape and layout, where it was."""
    tensor = tensors[stored["key"]].reshape(-1).view(getattr(torch, stored["dtype"])).reshape(stored["shape"])
    if "stride" in stored:
        tensor = torch.empty_strided(tensor.shape, stored["stride"], dtype=tensor.dtype).copy_(tensor)
    if "device" in stored:  #: cuda
        tensor = tensor.to(stored["device"])  #: cuda
    return nn.Parameter(tensor, bool(stored.get("learns"))) if stored.get("parameter") else tensor


def make_defaultdict(content):
    """From the name of its factory and its pairs."""
    factories = {kind.__name__: kind for kind in (int, float, bool, str, list, dict, tuple, set)}
    return defaultdict(factories.get(content[0]), content[1])


def make_sparse(stored):
    """A sparse tensor."""
    parts = stored["indices"], stored["values"], stored["shape"]
    return torch.sparse_coo_tensor(*parts, is_coalesced=stored["coalesced"], check_invariants=True)


def make_array(stored):
    """An array of numpy's."""
    content = stored["content"].numpy().tobytes()
    return np.ndarray(stored["shape"], stored["dtype"], content, order=stored["order"]).copy(stored["order"])


MAKERS = {
    "$record": lambda content: SimpleNamespace(**content[1]),  #: $record
    "$enum": lambda content: content[1],  #: $enum
    "$tuple": tuple,  #: $tuple
    "$dict": dict,  #: $dict
    "$set": set,  #: $set
    "$frozenset": frozenset,  #: $frozenset
    "$OrderedDict": OrderedDict,  #: $OrderedDict
    "$Counter": lambda pairs: Counter(dict(pairs)),  #: $Counter
    "$defaultdict": make_defaultdict,  #: $defaultdict
    "$deque": lambda content: deque(content[0], content[1]),  #: $deque
    "$float": float,  #: $float
    "$int": lambda digits: int(digits, 16),  #: $int
    "$complex": lambda parts: complex(*parts),  #: $complex
    "$bytes": lambda content: content.numpy().tobytes(),  #: $bytes
    "$bytearray": lambda content: bytearray(content.numpy().tobytes()),  #: $bytearray
    "$dtype": lambda name: getattr(torch, name),  #: $dtype
    "$device": torch.device,  #: $device
    "$size": torch.Size,  #: $size
    "$sparse": make_sparse,  #: $sparse
    "$array": make_array,  #: $array
    "$numpy": lambda array: array[()],  #: $numpy
}


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
    train(**options, device=getattr(setup, "device", None))  #: not_device
    train(**options, device=getattr(setup, "device", DEVICE))  #: device
    roots = named_roots(setup.model, None)
    weights = {
        f"{prefix}.{name}" if prefix else name: tensor.detach().cpu().clone().contiguous()
        for prefix, root in roots.items()
        for name, tensor in root.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }
    save_file(weights, arguments.out)
