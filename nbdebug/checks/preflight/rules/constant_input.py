"""All samples are the same to the network while their targets differ: nothing can be told apart."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import capped, floats, is_tokens
from nbdebug.records.findings import Cause, Remedy, Severity

VARIATION = "least_input_variation"
SHARE = "alike_batches_share"
FEWEST_SAMPLES = 8
MOST_ODD_COLUMNS = 32


def judge(look: Look, say: Say) -> None:
    """All inputs together: one of several may well be the same for all, as a mask is."""
    inputs = {name: tensor for name, tensor in look.data.inputs.items() if tensor.dim()}
    samples = min((len(tensor) for tensor in inputs.values()), default=0)
    if samples < FEWEST_SAMPLES:
        say.skip("there are too few samples to tell whether inputs vary")
    variation = max(_variation(tensor) for tensor in inputs.values())
    alike = _alike_batches(look, inputs)
    targets_vary = _targets_vary(look, samples)
    faint = say.measure("largest variation over samples, relative to size", variation, VARIATION, above=False)
    per_batch = say.measure("share of batches whose samples are all the same", alike, SHARE)
    if (faint or per_batch) and targets_vary:
        _tell(look, say, inputs, variation, samples)
    elif not faint:
        _tell_of_columns(look, say, inputs)


def _variation(tensor: torch.Tensor) -> float:
    """The largest deviation of any feature over samples, as a share of how large values are; 0 if all are the same."""
    values = floats(capped(tensor)).reshape(len(capped(tensor)), -1)
    if not values.shape[1]:
        return 0.0
    spread = float((values.amax(0) - values.amin(0)).max())
    return spread / max(float(values.abs().max()), 1e-30)


def _alike_batches(look: Look, inputs: dict[str, torch.Tensor]) -> float:
    """Of the batches of several samples, the share within which all samples are the same."""
    sizes = look.data.sizes
    if sum(sizes) != len(next(iter(inputs.values()))) or any(len(each) != sum(sizes) for each in inputs.values()):
        return 0.0
    alike = several = 0
    parts = zip(*(tensor.split(sizes) for tensor in inputs.values()), strict=True)
    for part, size in zip(parts, sizes, strict=True):
        if size >= 4:
            several += 1
            alike += all(bool((tensor == tensor[:1]).all()) for tensor in part)
    return alike / several if several else 0.0


def _targets_vary(look: Look, samples: int) -> bool:
    """Whether samples differ in what is to be said of them; without targets it is the inputs that are to be said."""
    targets = [tensor for tensor in look.data.targets.values() if tensor.dim() and len(tensor) == samples]
    if not targets:
        return look.data.sizes != [1] * len(look.data.sizes)
    return any(bool((tensor != tensor[:1]).any()) for tensor in targets)


def _tell(look: Look, say: Say, inputs: dict[str, torch.Tensor], variation: float, samples: int) -> None:
    values = floats(next(iter(inputs.values())))
    value = float(values.flatten()[0]) if values.numel() else 0.0
    blank = bool((values == value).all())
    within = "within each batch" if variation > say.limit(VARIATION) else "in all batches"
    how = (
        f"every value is {value:g}"
        if blank
        else f"the samples {within} are the same"
        if not variation or variation > say.limit(VARIATION)
        else f"features vary by {variation:.1e} of their size over samples, which float32 hardly tells apart"
    )
    say.find(
        Cause.CONSTANT_INPUT,
        Severity.CRITICAL,
        "All samples look the same to the network",
        f"Of {samples:,} samples of {' and '.join(inputs)}, {how}, while their targets differ. All that can be learnt "
        "from that is how often each target comes. Such data come from an index that is not used, a buffer that is "
        "handed out again and again, or numbers rounded or cut off on the way (0 … 1 made bytes, say).",
        confidence=0.98,
        remedies=(
            Remedy(
                "Look at some samples where they leave the dataset, and then after each transform.",
                code="[dataset[i] for i in range(3)]",
            ),
        ),
    )


def _tell_of_columns(look: Look, say: Say, inputs: dict[str, torch.Tensor]) -> None:
    """Columns of a table that never change; zeros and ones may mean what just does not occur here."""
    for name, tensor in inputs.items():
        if tensor.dim() != 2 or tensor.shape[1] > MOST_ODD_COLUMNS or is_tokens(look, name) or len(tensor) < 64:
            continue
        values = floats(capped(tensor))
        still = (values == values[:1]).all(0) & (values[0] != 0) & (values[0] != 1)
        columns = still.nonzero().flatten().tolist()
        if columns and len(columns) < tensor.shape[1]:
            listed = ", ".join(map(str, columns[:6]))
            say.find(
                Cause.CONSTANT_INPUT,
                Severity.INFO,
                "Some features are the same for all samples",
                f"Of {name}, feature {listed} has one value in all {len(tensor):,} samples seen: it tells nothing, and "
                "works as a bias.",
                confidence=0.9,
                remedies=(Remedy("Leave such columns out, or look where their values got lost."),),
            )


CHECK = Check(
    "constant_input",
    "inputs differ from sample to sample",
    judge,
    (Cause.CONSTANT_INPUT,),
    parameters=(
        Parameter(VARIATION, 1e-5, "least variation of some feature over samples, relative to its size", 0.0, 1.0),
        Parameter(SHARE, 0.9, "share of batches that may consist of one sample, repeated", 0.0, 1.0),
    ),
    source="Slavv, 37 reasons why your neural network is not working: check your input data, all zeros among them",
)
