"""Drawing new weights: the standard schemes, layer by layer, in place, from a seed of their own.

Frozen parameters stay, tied ones are drawn once, norm layers and their buffers are reset, biases become zero (except
under PyTorch's own default). First a plan is made, a list of small operations; it is carried out on the training thread
at a safe point, the run's random state being left alone, or printed into a script.

Sources: Glorot & Bengio 2010 (xavier), He et al. 2015 (kaiming), LeCun et al. 1998 (lecun), Saxe et al. 2014
(orthogonal); gates of recurrent layers and the three projections of attention are drawn each for itself, as in Keras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.records.commands import InitScheme
from nbdebug.training.modules import Model, named_modules, own_parameters
from nbdebug.training.rng import preserved


@dataclass(frozen=True, slots=True)
class Function:
    """A function of ``torch.nn.init``, with the nonlinearity that it is told of, if any."""

    name: str
    nonlinearity: str = ""

    def __call__(self, tensor: torch.Tensor) -> None:
        """Fill the tensor."""
        options = {"nonlinearity": self.nonlinearity} if self.nonlinearity else {}
        getattr(nn.init, self.name)(tensor, **options)


DRAW = {
    InitScheme.XAVIER_UNIFORM: Function("xavier_uniform_"),
    InitScheme.XAVIER_NORMAL: Function("xavier_normal_"),
    InitScheme.KAIMING_UNIFORM: Function("kaiming_uniform_", "relu"),
    InitScheme.KAIMING_NORMAL: Function("kaiming_normal_", "relu"),
    InitScheme.LECUN_UNIFORM: Function("kaiming_uniform_", "linear"),
    InitScheme.LECUN_NORMAL: Function("kaiming_normal_", "linear"),
    InitScheme.ORTHOGONAL: Function("orthogonal_"),
}
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
COMPUTED = ("_g", "_v", "_orig")
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw a parameter: as a whole, in so many equal blocks of rows, or with its first two dimensions swapped.

    ``copied`` draws into a tensor of plain layout and copies that, for a function that takes no other.
    """

    layer: str
    parameter: str
    function: Function
    blocks: int = 1
    transposed: bool = False
    copied: bool = False

    def apply(self, module: nn.Module) -> None:
        """On the layer."""
        weight = module.get_parameter(self.parameter)
        for block in weight.chunk(self.blocks) if self.blocks > 1 else [weight]:
            target = block.transpose(0, 1) if self.transposed else block
            drawn = target.contiguous() if self.copied else target
            self.function(drawn)
            if self.copied:
                target.copy_(drawn)


@dataclass(frozen=True, slots=True)
class Zero:
    """Set a parameter to zero."""

    layer: str
    parameter: str

    def apply(self, module: nn.Module) -> None:
        """On the layer."""
        module.get_parameter(self.parameter).zero_()


@dataclass(frozen=True, slots=True)
class Reset:
    """Call a layer's own initialisation; the parameters ``kept`` (frozen, or tied and drawn already) are put back."""

    layer: str
    method: str
    kept: tuple[str, ...]

    def apply(self, module: nn.Module) -> None:
        """On the layer."""
        before = {name: module.get_parameter(name).clone() for name in self.kept}
        getattr(module, self.method)()
        for name, value in before.items():
            module.get_parameter(name).copy_(value)


Operation: TypeAlias = Draw | Zero | Reset


@dataclass(frozen=True)
class Redrawn:
    """What a re-initialisation did: the parameters drawn anew, and the layers it had to leave, each with its reason."""

    parameters: tuple[nn.Parameter, ...]
    layers: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Plan:
    """What a re-initialisation will do. ``names`` are the parameters drawn anew, each by its layer and its own name."""

    operations: tuple[Operation, ...]
    names: tuple[tuple[str, str], ...]
    redrawn: Redrawn


def reinitialize(model: Model, scheme: InitScheme, seed: int, layers: Sequence[str] = ()) -> Redrawn:
    """Draw new weights for the named layers (all when empty), in place. The same seed gives the same weights."""
    planned = plan(model, scheme, layers)
    modules = named_modules(model)
    with preserved(), torch.no_grad():
        torch.manual_seed(seed)
        for operation in planned.operations:
            operation.apply(modules[operation.layer])
    return planned.redrawn


def plan(model: Model, scheme: InitScheme, layers: Sequence[str] = ()) -> Plan:
    """What :func:`reinitialize` would do, in order; nothing is changed."""
    drawn: dict[nn.Parameter, tuple[str, str]] = {}
    operations: list[Operation] = []
    done: list[str] = []
    left: list[tuple[str, str]] = []
    for layer, module in _in_order(model, layers):
        own = own_parameters(module)
        learning = {name: p for name, p in own.items() if p.requires_grad}
        if own and not learning:
            left.append((layer, "frozen"))
            continue
        fresh = {name: p for name, p in learning.items() if p not in drawn}
        found = _operations(layer, module, scheme, fresh, partial=len(fresh) < len(own))
        if isinstance(found, str):
            left.append((layer, found))
        elif fresh or not own:
            done.append(layer)
            operations += found
            drawn.update({parameter: (layer, name) for name, parameter in fresh.items()})
    return Plan(tuple(operations), tuple(drawn.values()), Redrawn(tuple(drawn), tuple(done), tuple(left)))


def redrawable(model: Model) -> tuple[str, ...]:
    """Names of the layers that :func:`reinitialize` can draw."""
    return tuple(name for name, module in named_modules(model).items() if _owns_state(module) and _knows(module))


def _in_order(model: Model, layers: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """Layers with something to draw, in the model's order, so that the default scheme draws as the constructors did.

    Last come an embedding whose weight is tied, to be drawn as the head that it is tied to, and attention, which sets
    a bias of its child.
    """
    every = named_modules(model)
    chosen = [(name, m) for name, m in every.items() if _owns_state(m) and (not layers or name in layers)]
    owners = Counter(id(p) for m in every.values() for p in own_parameters(m).values())

    def comes_last(pair: tuple[str, nn.Module]) -> bool:
        tied = isinstance(pair[1], EMBEDDINGS) and owners[id(pair[1].weight)] > 1
        return tied or isinstance(pair[1], nn.MultiheadAttention)

    yield from sorted(chosen, key=comes_last)


def _owns_state(module: nn.Module) -> bool:
    return bool(own_parameters(module)) or (isinstance(module, _NormBase) and module.track_running_stats)


def _knows(module: nn.Module) -> bool:
    return hasattr(module, "reset_parameters") or hasattr(module, "_reset_parameters") or _weights(module) is not None


def _operations(
    layer: str, module: nn.Module, scheme: InitScheme, fresh: dict[str, nn.Parameter], *, partial: bool
) -> list[Operation] | str:
    """How to draw the ``fresh`` parameters of one layer, or why it can't be done."""
    if hasattr(module, "parametrizations") or any(key.endswith(COMPUTED) for key in own_parameters(module)):
        return "its weight is computed from other parameters (weight norm, spectral norm, pruning)"
    if any(isinstance(p, UninitializedTensorMixin) for p in fresh.values()):
        return "lazy: its shape is not known before the first step"
    if isinstance(module, NORMS) or scheme is InitScheme.DEFAULT or isinstance(module, EMBEDDINGS):
        return _reset(layer, module, fresh, partial=partial)
    weights = _weights(module)
    if weights is None:
        return f"{type(module).__name__} has parameters of its own kind, which no scheme knows"
    transposed = isinstance(module, _ConvTransposeNd)
    draws = []
    for name, blocks in weights.items():
        if name in fresh:
            plain = fresh[name].is_contiguous() and not transposed
            copied = scheme is InitScheme.ORTHOGONAL and not plain
            draws.append(Draw(layer, name, DRAW[scheme], blocks, transposed, copied))
    return [*draws, *(Zero(layer, name) for name in fresh if name not in weights)]


def _reset(layer: str, module: nn.Module, fresh: dict[str, nn.Parameter], *, partial: bool) -> list[Operation] | str:
    """PyTorch's own initialisation."""
    method = next((name for name in ("reset_parameters", "_reset_parameters") if hasattr(module, name)), None)
    if method is None:
        return f"{type(module).__name__} has no reset_parameters"
    wanted = set(fresh.values())
    kept = [name for name, p in module.named_parameters() if p not in wanted] if partial else []
    return [Reset(layer, method, tuple(kept))]


def _weights(module: nn.Module) -> dict[str, int] | None:
    """The weight matrices of a layer by name, each with the number of blocks to draw; ``None`` for an unknown layer."""
    if isinstance(module, nn.RNNBase):
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        matrices = [name for name, p in module.named_parameters() if p.dim() == 2]
        return {name: 1 if "weight_hr" in name else gates for name in matrices}
    if isinstance(module, nn.modules.rnn.RNNCellBase):
        gates = 4 if isinstance(module, nn.LSTMCell) else 3 if isinstance(module, nn.GRUCell) else 1
        return {"weight_ih": gates, "weight_hh": gates}
    if isinstance(module, nn.MultiheadAttention):
        if module.in_proj_weight is not None:
            return {"in_proj_weight": 3}
        return dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"), 1)
    own = own_parameters(module)
    weight = own.get("weight")
    others = [name for name in own if name not in ("weight", "bias")]
    if isinstance(module, _ConvTransposeNd):
        return {"weight": 1}
    return None if weight is None or weight.dim() < 2 or others else {"weight": 1}
