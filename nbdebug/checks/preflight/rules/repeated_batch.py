"""The same samples come again and again within an epoch: the network sees a fraction of the data."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import fingerprints, is_blank, is_rich, labels
from nbdebug.records.findings import Cause, Remedy, Severity

Marks = np.ndarray[Any, np.dtype[np.int64]]
TIMES = "sample_repetitions"
BATCHES = "same_batches_share"
FEWEST_SAMPLES, FEWEST_BATCHES = 16, 3


def judge(look: Look, say: Say) -> None:
    """Within the first epoch seen, in the order of the loader. A stream that never ends may go round on purpose."""
    if look.epoch_length is None:
        say.skip("the loader has no length and its end was not seen: it may go through the data again and again")
    count = min(look.of_one_epoch, look.epoch_length)
    sizes = look.data.sizes[:count]
    samples = sum(sizes)
    inputs = [each for each in look.data.inputs.values() if each.dim() and len(each) == sum(look.data.sizes)]
    if not inputs or samples < FEWEST_SAMPLES or count < FEWEST_BATCHES or look.data.cut:
        say.skip("there are too few samples, or of unlike form, to look for the same ones")
    inputs = [tensor[:samples] for tensor in inputs]
    marks = fingerprints(inputs)
    if not is_rich(inputs, samples**2):
        say.skip("samples are of so few kinds that the same ones come by themselves")
    targets = [tensor[:samples] for tensor in look.data.targets.values() if tensor.dim() and len(tensor) >= samples]
    _judge_batches(fingerprints([*inputs, *targets]), sizes, say)
    if not say.findings:
        _judge_samples(look, marks, is_blank(inputs), samples, say)


def _judge_batches(marks: Marks, sizes: list[int], say: Say) -> None:
    """One batch over and over, or each one several times in a row."""
    if min(sizes[:-1]) < 2:
        return
    ends = np.cumsum(sizes)[:-1]
    batches = [tuple(part.tolist()) for part in np.split(marks, ends)]
    again = sum(a == b for a, b in pairwise(batches)) / (len(batches) - 1)
    if len(set(batches[0])) > 1 and say.measure("share of batches that are the one before once more", again, BATCHES):
        times = max(Counter(batches).values())
        what = (
            f"Of {len(batches)} batches in the epoch, {len(set(batches))} differ; one comes {times} times. This is "
            "what next(iter(loader)) in a loop does, which begins anew each time, and a stream that seeds its random "
            "numbers again, or gives the same to each worker."
        )
        _tell(say, what, "for batch in loader: ...", 0.98)


def _judge_samples(look: Look, marks: Marks, blank: torch.Tensor, samples: int, say: Say) -> None:
    kept = ~blank.cpu().numpy()
    if kept.sum() < FEWEST_SAMPLES:
        return
    groups = [marks[kept]]
    found = labels(look)
    if found is not None and len(found.values) >= samples:
        classes = found.values[:samples].cpu().numpy()[kept]
        groups = [marks[kept][classes == each] for each in np.unique(classes)]
        groups = [group for group in groups if len(group) >= FEWEST_SAMPLES // 2] or [marks[kept]]
    times = min(len(group) / len(np.unique(group)) for group in groups)
    if say.measure("how often each sample comes, in the class where it is least", times, TIMES):
        different = len(np.unique(marks[kept]))
        what = (
            f"Of {int(kept.sum()):,} samples in the part of the epoch that was seen, only {different:,} differ: each "
            f"comes {times:.0f} times and more. Look at the dataset's __getitem__ and __len__, and at the sampler."
        )
        _tell(say, what, "len({dataset[i][0].numpy().tobytes() for i in range(len(dataset))})", 0.9)


def _tell(say: Say, what: str, code: str, sure: float) -> None:
    say.find(
        Cause.REPEATED_BATCH,
        Severity.WARNING if sure < 0.95 else Severity.CRITICAL,
        "The same samples come again and again",
        f"{what} The training loss will fall, on those few.",
        confidence=sure,
        remedies=(Remedy("Go through the whole data once an epoch.", code=code),),
    )


CHECK = Check(
    "repeated_batch",
    "an epoch's samples differ",
    judge,
    (Cause.REPEATED_BATCH,),
    parameters=(
        Parameter(TIMES, 3.0, "how often the same sample may come within an epoch", 1.0),
        Parameter(BATCHES, 0.4, "share of batches that may be the one before once more", 0.0, 1.0),
    ),
    source="Slavv, 37 reasons why your neural network is not working: the same batch fed over and over",
)
