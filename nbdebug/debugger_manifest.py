"""What a run is made of, read off model, trainer and surroundings: the manifest that the journal keeps.

Written on the training thread before a run's first step. Reads only: nothing is drawn from the data, no random state
moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from nbdebug.journal import provenance
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Run
from nbdebug.training.knobs import Knobs
from nbdebug.training.modules import Model, device_of, named_modules, named_parameters
from nbdebug.training.trainer import Trainer, length

HASHED_BYTES = 1 << 20
MOST_LAYERS = 2_000
PLAIN = (bool, int, float, str, type(None))


def writer(model: Model, trainer: Trainer, knobs: Callable[[], Knobs]) -> Callable[[Run], Manifest]:
    """A function that writes manifests. Call this on the user's thread, in the cell that makes the debugger."""
    versions = {**provenance.versions(), "torch": torch.__version__}
    source = provenance.cell_sources({"model": model, "trainer": trainer})
    git: dict[str, str] = {}
    seed = torch.initial_seed()

    def describe(run: Run) -> Manifest:
        if not git:
            git.update(provenance.git_facts(Path.cwd()) or {"commit": ""})
        return Manifest(
            run=run.name,
            hyper_parameters=_hyper_parameters(trainer, knobs()),
            model=_summary(model),
            versions=versions,
            device=str(device_of(model)),
            seeds={"torch": seed, "torch at this run's start": torch.initial_seed(), "run": run.seed},
            data={"train": _data(trainer.train_loader), "val": _data(trainer.val_loader)},
            git={key: value for key, value in git.items() if value},
            source=source,
        )

    return describe


def _hyper_parameters(trainer: Trainer, knobs: Knobs) -> dict[str, Any]:
    return {
        "optimizers": {
            name: {
                "type": type(optimizer).__name__,
                "groups": [
                    {**_plain({k: v for k, v in group.items() if k != "params"}), "parameters": len(group["params"])}
                    for group in optimizer.param_groups
                ],
            }
            for name, optimizer in trainer.optimizers.items()
        },
        "schedulers": {
            name: {"type": type(scheduler).__name__, **_plain(scheduler.state_dict())}
            for name, scheduler in trainer.schedulers.items()
        },
        "scheduler_interval": trainer.scheduler_interval if trainer.schedulers else "",
        "loss": _loss(trainer),
        "metrics": list(trainer.metrics),
        "step": _called(trainer.step) if trainer.step else "",
        "knobs": str(knobs.all_asked()),
    }


def _summary(model: Model) -> dict[str, Any]:
    parameters = named_parameters(model)
    sizes = {name: p.numel() for name, p in parameters.items() if not torch.nn.parameter.is_lazy(p)}
    layers = [
        {"name": name, "type": type(module).__name__, "options": module.extra_repr(), "parameters": _own(module)}
        for name, module in named_modules(model).items()
        if not any(True for _ in module.children())
    ]
    return {
        "type": type(model).__name__,
        "parameters": sum(sizes.values()),
        "trainable": sum(sizes[name] for name, p in parameters.items() if p.requires_grad and name in sizes),
        "bytes": sum(sizes[name] * parameters[name].element_size() for name in sizes),
        "layers": layers[:MOST_LAYERS],
    }


def _own(module: torch.nn.Module) -> int:
    own = module.parameters(recurse=False)
    return sum(p.numel() for p in own if not torch.nn.parameter.is_lazy(p))


def _data(loader: Any) -> dict[str, Any]:
    """A loader's settings, and a fingerprint of what it goes through as far as that lies in memory."""
    if loader is None:
        return {}
    dataset = loader.dataset if isinstance(loader, DataLoader) else loader
    facts: dict[str, Any] = {"type": type(loader).__name__, "batches": length(loader)}
    if isinstance(loader, DataLoader):
        facts |= {
            "dataset": type(dataset).__name__,
            "samples": length(dataset),
            "batch_size": loader.batch_size,
            "sampler": type(loader.sampler).__name__,
            "workers": loader.num_workers,
            "drop_last": loader.drop_last,
        }
    digest = hashlib.sha256()
    held = list(_arrays(dataset))
    for name, array in held:
        digest.update(f"{name}{array.dtype}{tuple(array.shape)}".encode())
        digest.update(_some_bytes(array))
    return {**facts, "fingerprint": digest.hexdigest()[:16] if held else "", "arrays": len(held)}


def _arrays(holder: Any, name: str = "", depth: int = 4) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors and numpy arrays that a dataset holds, as deep."""
    if isinstance(holder, torch.Tensor):
        if holder.layout is torch.strided:
            yield name, holder.detach()
    elif type(holder).__name__ == "ndarray" and holder.dtype.kind in "biuf":
        yield name, torch.from_numpy(holder)
    elif depth and isinstance(holder, list | tuple):
        for index, part in enumerate(holder[:64]):
            yield from _arrays(part, f"{name}[{index}]", depth - 1)
    elif depth and hasattr(holder, "__dict__") and not isinstance(holder, type | torch.nn.Module):
        for key, part in vars(holder).items():
            yield from _arrays(part, f"{name}.{key}", depth - 1)


def _some_bytes(array: torch.Tensor) -> bytes:
    """A megabyte of an array at most, taken from all over it."""
    flat = array.reshape(-1)
    stride = max(1, flat.numel() * flat.element_size() // HASHED_BYTES)
    return bytes(flat[::stride].cpu().contiguous().view(torch.uint8).numpy().tobytes())


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; what it can't is told by its text."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return f"{value!r:.200}"


def _loss(trainer: Trainer) -> Any:
    parts = trainer.loss_parts
    return _called(trainer.loss_fn) if parts is None else {name: _called(part) for name, part in parts.parts.items()}


def _called(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function).splitlines()[0][:200]
