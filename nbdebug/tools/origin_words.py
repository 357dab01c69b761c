"""What the user calls an operation that torch runs under another name. Pure."""

from __future__ import annotations

import re

WORDS = {
    "_to_copy": "to",
    "_local_scalar_dense": "item",
    "convolution": "conv",
    "nll_loss2d": "nll_loss",
    "linalg_vector_norm": "norm",
    "rsub": "sub",
    "true_divide": "div",
    "weight_norm_interface": "weight_norm",
    "scalar_tensor": "tensor",
    "lift_fresh": "tensor",
    "fused_rms_norm": "rms_norm",
    "amp_foreach_non_finite_check_and_unscale": "unscale",
    "batch_norm_legit": "batch_norm",
    "batch_norm_legit_no_training": "batch_norm",
    "batch_norm_legit_functional": "batch_norm",
    "safe_softmax": "softmax",
    "thnn_fused_lstm_cell": "lstm",
    "thnn_fused_gru_cell": "gru",
    "index_put_impl": "index_put",
    "_index_put_impl": "index_put",
}
PREFIXES = ("native_", "cudnn_", "miopen_", "mkldnn_", "foreach_", "fused_", "linalg_", "thnn_")
SUFFIXES = ("_forward", "_ex", "_out")
PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot", "addbmm"})
AS_WRITTEN = ("linear", "einsum", "baddbmm", "addmm", "bilinear", "tensordot", "outer", "dot")
RECURRENT = frozenset({"RNN", "LSTM", "GRU"})
WITHIN_LOSS = frozenset({"sum", "mean", "neg", "mul", "div", "add", "sub", "nll_loss"})


def spoken(name: str, *, module_type: str = "", code: str = "", functional: str = "") -> str:
    """The user's word for ``name`` as in torch's schemas, such as ``"softmax"`` for ``"aten::_softmax"``.

    The module at work, the user's line, and the function of ``torch.nn.functional`` that he called help to find it.
    """
    word = plain(name)
    if word in PRODUCTS:
        return _product(module_type, code)
    if module_type in RECURRENT and word in ("clone", "rnn_layer", "rnn"):
        return module_type.lower()
    if word == "batch_norm" and "InstanceNorm" in module_type:
        return "instance_norm"
    if functional == "cross_entropy" and word in WITHIN_LOSS:
        return "cross_entropy"
    return word


def plain(name: str) -> str:
    """Without what tells one implementation from another."""
    word = name.rpartition("::")[2].strip("_")
    if word.startswith("scaled_dot_product"):
        return "scaled_dot_product_attention"
    before = ""
    while word != before:
        before = word
        word = WORDS.get(word, WORDS.get(f"_{word}", word))
        for prefix in PREFIXES:
            word = word.removeprefix(prefix)
        for suffix in SUFFIXES:
            word = word.removesuffix(suffix)
        word = word.strip("_")
    return word


def of_node(name: str) -> str:
    """The forward operation of a node of autograd, by the node's name, such as ``"SqrtBackward0"``."""
    word = re.sub(r"Backward\d*$", "", name.rpartition("::")[2])
    return plain(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower())


def _product(module_type: str, code: str) -> str:
    if module_type.endswith("Linear"):
        return "linear"
    return next((word for word in AS_WRITTEN if re.search(rf"\b{word}\(", code)), "matmul")
