"""Drawing new weights: the standard schemes, layer by layer, in place, from a seed of their own.

Frozen parameters stay, tied ones are drawn once, norm layers and their buffers are reset, biases become zero (except
under PyTorch's own default). Runs on the training thread at a safe point; the run's random state is left alone.

Sources: Glorot & Bengio 2010 (xavier), He et al. 2015 (kaiming), LeCun et al. 1998 (lecun), Saxe et al. 2014
(orthogonal); gates of recurrent layers and the three projections of attention are drawn each for itself, as in Keras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.records.commands import InitScheme
from nbdebug.training.modules import Model, named_modules, own_parameters
from nbdebug.training.rng import preserved

DRAW: dict[InitScheme, Callable[[torch.Tensor], Any]] = {
    InitScheme.XAVIER_UNIFORM: nn.init.xavier_uniform_,
    InitScheme.XAVIER_NORMAL: nn.init.xavier_normal_,
    InitScheme.KAIMING_UNIFORM: lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    InitScheme.KAIMING_NORMAL: lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    InitScheme.LECUN_UNIFORM: lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="linear"),
    InitScheme.LECUN_NORMAL: lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="linear"),
    InitScheme.ORTHOGONAL: nn.init.orthogonal_,
}
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
COMPUTED = ("_g", "_v", "_orig")
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Redrawn:
    """What a re-initialisation did: the parameters drawn anew, and the layers it had to leave, each with its reason."""

    parameters: tuple[nn.Parameter, ...]
    layers: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


def reinitialize(model: Model, scheme: InitScheme, seed: int, layers: Sequence[str] = ()) -> Redrawn:
    """Draw new weights for the named layers (all when empty), in place. The same seed gives the same weights."""
    drawn: dict[nn.Parameter, None] = {}
    done: list[str] = []
    left: list[tuple[str, str]] = []
    with preserved(), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in _in_order(model, layers):
            own = list(own_parameters(module).values())
            learning = [p for p in own if p.requires_grad]
            if own and not learning:
                left.append((name, "frozen"))
                continue
            fresh = [p for p in learning if p not in drawn]
            reason = _redraw(module, scheme, fresh, partial=len(fresh) < len(own))
            if reason:
                left.append((name, reason))
            elif fresh or not own:
                done.append(name)
                drawn.update(dict.fromkeys(fresh))
    return Redrawn(tuple(drawn), tuple(done), tuple(left))


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


def _redraw(module: nn.Module, scheme: InitScheme, fresh: list[nn.Parameter], *, partial: bool) -> str:
    """Draw one layer; returns why not, if it can't."""
    if hasattr(module, "parametrizations") or any(key.endswith(COMPUTED) for key in own_parameters(module)):
        return "its weight is computed from other parameters (weight norm, spectral norm, pruning)"
    if any(isinstance(p, UninitializedTensorMixin) for p in fresh):
        return "lazy: its shape is not known before the first step"
    if isinstance(module, NORMS) or scheme is InitScheme.DEFAULT or isinstance(module, EMBEDDINGS):
        return _reset(module, fresh, partial=partial)
    weights = _weights(module)
    if weights is None:
        return f"{type(module).__name__} has parameters of its own kind, which no scheme knows"
    wanted: set[torch.Tensor] = set(fresh)
    for parameter, blocks in weights:
        if parameter in wanted:
            for block in blocks:
                DRAW[scheme](block)
            wanted.discard(parameter)
    for parameter in wanted:
        parameter.zero_()
    return ""


def _reset(module: nn.Module, fresh: list[nn.Parameter], *, partial: bool) -> str:
    """PyTorch's own initialisation; what must not change (frozen, tied and drawn already) is put back."""
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is None:
        return f"{type(module).__name__} has no reset_parameters"
    keep = [(p, p.clone()) for p in module.parameters() if p not in set(fresh)] if partial else []
    reset()
    for parameter, before in keep:
        parameter.copy_(before)
    return ""


def _weights(module: nn.Module) -> list[tuple[torch.Tensor, list[torch.Tensor]]] | None:
    """The weight matrices of a layer, each as the blocks to draw for themselves; ``None`` for an unknown layer."""
    if isinstance(module, _ConvTransposeNd):
        return [(module.weight, [module.weight.transpose(0, 1)])]
    if isinstance(module, nn.RNNBase):
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        matrices = [(name, p) for name, p in module.named_parameters() if p.dim() == 2]
        return [(p, list(p.chunk(1 if "weight_hr" in name else gates))) for name, p in matrices]
    if isinstance(module, nn.modules.rnn.RNNCellBase):
        gates = 4 if isinstance(module, nn.LSTMCell) else 3 if isinstance(module, nn.GRUCell) else 1
        return [(p, list(p.chunk(gates))) for p in (module.weight_ih, module.weight_hh)]
    if isinstance(module, nn.MultiheadAttention):
        packed = module.in_proj_weight
        if packed is not None:
            return [(packed, list(packed.chunk(3)))]
        return [(p, [p]) for p in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)]
    own = own_parameters(module)
    weight = own.get("weight")
    others = [p for name, p in own.items() if name not in ("weight", "bias")]
    if weight is None or weight.dim() < 2 or others:
        return None
    return [(weight, [weight.view(weight.shape) if weight.is_contiguous() else weight])]
