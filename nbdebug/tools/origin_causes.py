"""Describes an operation that made something not finite: its module, line, inputs and samples. Training thread only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from nbdebug.records.stops import Phase, Range
from nbdebug.tools.origin_frames import Site, Spot, code_line
from nbdebug.tools.origin_marks import Cause, Maker, Marks, bad_part
from nbdebug.tools.origin_nodes import Node
from nbdebug.tools.origin_ops import Call, Operation
from nbdebug.tools.origin_sources import Kind, Source, Sources
from nbdebug.tools.origin_values import bad_samples, newly_bad, value_range
from nbdebug.tools.origin_words import of_node, plain, spoken

OUTSIDE = "a tensor made outside the step"
LABELS = {"self": "input", "mat1": "input", "mat2": "other", "grad_output": "gradient", "tensors": "input"}
MOST_RANGES = 16


@dataclass(frozen=True, slots=True)
class Event:
    """One operation, just run, with outputs that are not finite. ``overwritten`` is what its inputs in place were."""

    order: int
    operation: Operation
    call: Call
    overwritten: dict[str, Range]
    outputs: list[torch.Tensor]
    phase: Phase
    site: Site
    node: Node | None
    batch_size: int
    repeats: int

    @property
    def kind(self) -> str:
        """Of its outputs together."""
        kinds = {bad_part(tensor) for tensor in self.outputs}
        return "nan" if "nan" in kinds else "inf"

    @property
    def reduces(self) -> bool:
        """Whether fewer values come out than go in."""
        most = max((tensor.numel() for _, tensor in self.call.read), default=0)
        return max(tensor.numel() for tensor in self.outputs) < most

    @property
    def has_infinite_constant(self) -> bool:
        """Whether the code gave it one."""
        return any(math.isinf(number) for number in self.call.scalars)

    def is_bad(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether an input was not finite when it ran."""
        before = self.overwritten.get(name)
        return bool(before.nans or before.infs) if before is not None else bool(bad_part(tensor))

    def at(self, maker: Maker) -> Event:
        """The same for what reserved the memory that was read before it was written."""
        operation = Operation(maker.operation, (), frozenset(), (0,), False)
        return replace(self, operation=operation, phase=maker.phase, site=maker.site, node=None)


def cause_of_event(event: Event, sources: Sources, marks: Marks, *, wanted: bool = False) -> Cause:
    """Where it ran, on what, and what that was made by."""
    home = _home(event, sources)
    spot, inner = _spots(event)
    return Cause(
        order=event.order,
        phase=event.phase,
        kind=event.kind,
        operation=_word(event, home.type),
        wanted=wanted,
        reduced=wanted and event.reduces,
        module=home.name,
        module_type=home.type,
        spot=spot,
        inner=inner,
        functional=_forward_site(event).functional,
        inputs=_input_ranges(event, sources, marks),
        parameters=_parameter_ranges(home.module, home.name),
        samples=_samples(event, home.module),
        makers=_makers(event, marks),
        dtype=_dtype(event.outputs),
        repeats=event.repeats,
        bad_constant=any(not math.isfinite(number) for number in event.call.scalars),
    )


def source_cause(event: Event, tensor: torch.Tensor, sources: Sources, marks: Marks) -> Cause:
    """The same for an input that was not finite before the step; the operation is the first that read it."""
    source = sources.of(tensor)
    cause = cause_of_event(event, sources, marks)
    cause.phase = Phase.BEFORE
    cause.kind = bad_part(tensor)
    if source is None:
        cause.source, cause.wanted, cause.samples = OUTSIDE, cause.kind == "inf", ()
        return cause
    cause.source, cause.wanted = source.name, cause.kind == "inf" and source.wanted
    if source.kind is Kind.BATCH:
        cause.samples = bad_samples(~torch.isfinite(source.tensor), event.batch_size)
    else:
        _settle(cause, source, sources)
    return cause


def _settle(cause: Cause, source: Source, sources: Sources) -> None:
    """A parameter or buffer is at home in its module, wherever it is read."""
    cause.samples = ()
    module = sources.modules.get(source.module or "")
    if source.module is not None and module is not None:
        cause.module, cause.module_type = source.module, type(module).__name__
        cause.parameters = _parameter_ranges(module, source.module)


@dataclass(frozen=True, slots=True)
class _Home:
    """The module an event belongs to: its name, empty outside of all, and its class or that of the loss function."""

    name: str = ""
    type: str = ""
    module: nn.Module | None = None


def _home(event: Event, sources: Sources) -> _Home:
    modules = _forward_site(event).modules
    for module in modules:
        name = sources.name_of(module)
        if name is not None:
            return _Home(name, type(module).__name__, module)
    owner = _owner(event, sources) if event.phase in (Phase.OPTIMIZER, Phase.CLIPPING, Phase.BACKWARD) else None
    if owner is not None and (not modules or event.phase is not Phase.BACKWARD):
        module = sources.modules[owner]
        return _Home(owner, type(module).__name__, module)
    return _Home("", type(modules[-1]).__name__) if modules else _Home()


def _owner(event: Event, sources: Sources) -> str | None:
    """The module whose parameter is written, or whose gradient."""
    if event.node is not None and event.node.variable is None:
        return None
    tensors = [*event.outputs, *(tensor for _, tensor in event.call.read)]
    if event.node is not None and event.node.variable is not None:
        tensors.insert(0, event.node.variable)
    found = sources.owner(tensors)
    return found[1] if found is not None and found[1] in sources.modules else None


def _forward_site(event: Event) -> Site:
    """Where the forward call was that the event belongs to."""
    return event.node.site if event.node is not None else event.site


def _spots(event: Event) -> tuple[Spot | None, Spot | None]:
    """The user's line, and that of his own backward code."""
    node = event.node
    if node is None:
        return event.site.spot, None
    forward = node.site.called_at if node.function and node.site.function == node.function else node.site.spot
    return forward or event.site.spot, event.site.inner


def _word(event: Event, module_type: str) -> str:
    node, site = event.node, _forward_site(event)
    name = event.operation.name
    if node is not None and node.function:
        return node.function
    if node is not None and node.operation and event.site.inner is None:
        name = node.operation
        if "Backward" in name:
            return of_node(name)
    line = code_line(site.spot)
    return spoken(name, module_type=module_type, code=line.code if line else "", functional=site.functional)


def _label(event: Event, name: str, tensor: torch.Tensor, sources: Sources, marks: Marks) -> str:
    source = sources.of(tensor)
    if source is not None and tuple(sorted(source.tensor.shape)) == tuple(sorted(tensor.shape)):
        return source.name
    now = sources.name_now(tensor) if event.phase in (Phase.OPTIMIZER, Phase.CLIPPING) else None
    if now is not None:
        return now
    if event.operation.name.strip("_").endswith("addcdiv"):
        return {"tensor1": "numerator", "tensor2": "denominator"}.get(name, name)
    if event.phase is Phase.BACKWARD:
        maker = marks.maker_of(tensor)
        if maker is not None and maker.phase is Phase.BACKWARD:
            return "gradient" if name in ("self", "grad_output", "grad") else name
    return LABELS.get(name, name)


def _input_ranges(event: Event, sources: Sources, marks: Marks) -> tuple[Range, ...]:
    found = []
    for name, tensor in event.call.read[:MOST_RANGES]:
        label = _label(event, name, tensor, sources, marks)
        before = event.overwritten.get(name)
        found.append(replace(before, name=label) if before is not None else value_range(label, tensor))
    return tuple(found)


def _parameter_ranges(module: nn.Module | None, name: str) -> tuple[Range, ...]:
    if module is None:
        return ()
    start = f"{name}." if name else ""
    own = {**module._parameters, **module._buffers}
    held = [(key, value) for key, value in own.items() if value is not None and not nn.parameter.is_lazy(value)]
    return tuple(value_range(start + key, value) for key, value in held[:MOST_RANGES])


def _samples(event: Event, module: nn.Module | None) -> tuple[int, ...]:
    if event.phase in (Phase.OPTIMIZER, Phase.CLIPPING) or (event.node is not None and event.node.variable is not None):
        return ()
    candidates = [*event.outputs, *(tensor for name, tensor in event.call.read if name not in event.overwritten)]
    for tensor in candidates:
        if (
            not bad_part(tensor)
            or tensor.layout is not torch.strided
            or (event.phase is Phase.BACKWARD and _is_like_a_weight(tensor, module))
        ):
            continue
        found = bad_samples(_bad(tensor, event), event.batch_size, **_folding(tensor, event, module))
        if found:
            return found
    return ()


def _bad(tensor: torch.Tensor, event: Event) -> torch.Tensor:
    """Which values of an output, or of an input, are not finite through this operation."""
    inputs = [given for name, given in event.call.read if name not in event.overwritten and given is not tensor]
    new = newly_bad(tensor, [given for given in inputs if bad_part(given)])
    return new if new is not None and bool(new.any()) else ~torch.isfinite(tensor)


def _is_like_a_weight(tensor: torch.Tensor, module: nn.Module | None) -> bool:
    """Whether its shape is a parameter's, so that its rows need not be samples."""
    shape = tuple(tensor.shape)
    held = [] if module is None else [held for held in module._parameters.values() if held is not None]
    own = [tuple(parameter.shape) for parameter in held if not nn.parameter.is_lazy(parameter)]
    return shape in own or (len(shape) > 1 and shape[::-1] in own)


def _folding(tensor: torch.Tensor, event: Event, module: nn.Module | None) -> dict[str, bool]:
    """Whether the batch shares the first dimension with another one: with time in linear layers, with heads."""
    given = _forward_site(event).given
    if isinstance(module, nn.MultiheadAttention):
        return {"folded": True, "rows_first": tensor.dim() == 3}
    folded = isinstance(module, nn.Linear) and tensor.dim() == 2 and len(given) > 2
    return {"folded": folded, "rows_first": folded and given[0] == event.batch_size}


def _makers(event: Event, marks: Marks) -> dict[str, str]:
    makers = {name: marks.maker_of(tensor) for name, tensor in event.call.read}
    return {name: plain(maker.operation) for name, maker in makers.items() if maker is not None}


def _dtype(outputs: list[torch.Tensor]) -> str:
    kinds = [tensor.dtype for tensor in outputs if tensor.is_floating_point() or tensor.is_complex()]
    return str(kinds[0]).removeprefix("torch.") if kinds else ""
