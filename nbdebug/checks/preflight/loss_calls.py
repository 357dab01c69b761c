"""What a loss is: torch's own, by name, and the calls by which hand-written ones compare. Copies what they compared.

Pure; training thread.
"""

from __future__ import annotations

from typing import Any

import torch

from nbdebug.checks.preflight.leaves import first_part, leaves
from nbdebug.checks.preflight.numbering import Numbering
from nbdebug.checks.preflight.trace import Call, LossCall

LOSSES = frozenset(
    {
        *("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"),
        *("l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss", "gaussian_nll_loss", "ctc_loss"),
        *("soft_margin_loss", "multilabel_soft_margin_loss", "multi_margin_loss", "multilabel_margin_loss"),
        *("hinge_embedding_loss",),
    }
)  # fmt: skip
WEIGHTED = frozenset({"cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"})
MEETINGS = frozenset(
    {
        *("sub", "__rsub__", "subtract", "rsub", "mul", "multiply", "gather", "take_along_dim", "__getitem__", "where"),
        *("dist", "pairwise_distance", "cosine_similarity", "dot", "__rmul__", "xlogy"),
        *("masked_select", "masked_fill", "index_select"),
    }
)  # where hand-written losses compare
Compared = tuple[Any, Any, Any]  # input, target, weight


def compared(args: Any, kwargs: Any, name: str) -> Compared:
    """What one of torch's losses was given: input, target, and the weights of classes or samples."""
    given = args[0] if args else kwargs.get("input")
    target = args[1] if len(args) > 1 else kwargs.get("target")
    third = args[2] if len(args) > 2 and name in WEIGHTED else None
    given_weights = (third, kwargs.get("weight"), kwargs.get("pos_weight"))
    weight = next((each for each in given_weights if isinstance(each, torch.Tensor)), None)
    return given, target, weight


def met(args: Any, kwargs: Any, numbering: Numbering) -> Compared | None:
    """What learns, and what comes from the batch without learning, if a call gets one of each."""
    given = [tensor for _, tensor in leaves([args, kwargs])]
    learning = [tensor for tensor in given if tensor.requires_grad]
    data = [tensor for tensor in given if numbering.is_data(tensor)]
    return (learning[0], data[0], None) if learning and data else None


def loss_call(call: Call, seen: Compared, result: Any, numbering: Numbering) -> LossCall | None:
    """A loss, or a meeting, with copies of what it compared; ``None`` where that is no tensor."""
    given, target, weight = seen
    if not isinstance(given, torch.Tensor):
        return None
    value = float(result.detach()) if isinstance(result, torch.Tensor) and result.numel() == 1 else None
    return LossCall(
        call.name,
        first_part(given),
        first_part(target) if isinstance(target, torch.Tensor) else None,
        call,
        first_part(weight) if isinstance(weight, torch.Tensor) else None,
        value,
        numbering.number(given),
        numbering.number(target) if isinstance(target, torch.Tensor) else None,
    )
