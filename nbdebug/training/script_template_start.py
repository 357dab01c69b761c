# mypy: ignore-errors
"""The parts of an exported script that put the run's start in place: the file, random numbers, the place in the data.

Marked and used like :mod:`nbdebug.training.script_template`, which says how.
"""

from __future__ import annotations

import json
import random
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from nbdebug.training.batch_size import Regrouping, size_at
from nbdebug.training.data import _seed, _stateful_parts, generator_state, generators_in, set_generator

START_FILE = Path()


def named_roots(model, loss_fn):
    """What is trained, by name: the model or models, and the loss where it is a module."""
    roots = {"": model} if isinstance(model, nn.Module) else dict(model)
    if isinstance(loss_fn, nn.Module):
        return {**roots, "loss_fn": loss_fn}
    parts = dict(loss_fn or {}).items()  #: parts
    return {**roots, **{f"loss_fn.{name}": part for name, part in parts if isinstance(part, nn.Module)}}  #: parts
    return roots  #: not_parts


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
        for parameter, gradient in zip(others, kept.other_gradients, strict=True):  #: others
            parameter.grad = None if gradient is None else gradient.to(parameter.device)  #: others
        for (name, key), (_, value) in kept.buffers.items():
            present = modules[name]._buffers.get(key)
            if value is not None and present is not None and present.shape == value.shape:
                present.copy_(value)
            else:
                modules[name]._buffers[key] = value
    for (name, key), value in kept.plain.items():  #: plain
        present = vars(modules[name]).get(key)  #: plain
        if type(present) is not type(value) or present != value:  #: plain
            setattr(modules[name], key, value)  #: plain
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
    return list({id(source): source for holder in holders for source in generators_in(holder)}.values())


def generator_states(sources):
    """Their states."""
    return [generator_state(source) for source in sources]


def restore_generators(sources, states):
    """Set the random generators that loaders and modules hold."""
    for source, state in zip(sources, states, strict=True):
        set_generator(source, state)


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
        self.regrouping = Regrouping(loader)  #: sizes
        self.sizes = []  # of the batches seen  #: sizes

    def __iter__(self):
        return self

    def __next__(self):
        """The next batch of this epoch."""
        if self.iterator is None:
            self.iterator = iter(self.loader)  #: not_sizes
            self.iterator = self.regrouping.epoch()  #: sizes
            self.sizes = []  #: sizes
        size = self.regrouping.size  #: sizes
        try:
            batch = next(self.iterator)
        except StopIteration:
            self.iterator, self.seen = None, 0
            raise
        self.seen += 1
        self.sizes.append(size)  #: sizes
        return batch

    def begin_anew(self, seen):
        """An epoch that begins with the present random numbers, its first ``seen`` batches left out."""
        if getattr(self.loader, "persistent_workers", False):
            self.loader._iterator = None
        self.iterator, self.seen = None, 0
        kept = random_state()
        kept_generators = generator_states(self.sources)  #: sources
        for _ in range(seen):  #: not_sizes
            next(self)  #: not_sizes
        asked = self.regrouping.asked  #: sizes
        for size in list(self.sizes[:seen]):  #: sizes
            self.regrouping.asked = size  #: sizes
            next(self)  #: sizes
        self.regrouping.asked = asked  #: sizes
        restore_generators(self.sources, kept_generators)  #: sources
        set_random_state(kept)

    def go_to(self, data):  #: midway
        """The place in the data where the run began."""  #: midway
        set_random_state(data.epoch_random)  #: midway
        restore_generators(self.sources, data.epoch_generators)  #: midway sources
        self.sizes = [size_at(batch, data.sizes) for batch in range(data.batch)]  #: midway sizes
        self.begin_anew(data.batch)  #: midway


def stateful_parts(train_loader, val_loader):
    """What of the loaders keeps its place by itself, in a ``state_dict``."""
    return [part for loader in (train_loader, val_loader) for part in _stateful_parts(loader)]


def restore_loader_states(parts, states):
    """Set them to their places."""
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(state)
