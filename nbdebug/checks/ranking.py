"""Which finding comes first: causes before what they bring about, then what matters more and is surer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nbdebug.checks import calibration
from nbdebug.records.findings import Cause, Finding, Severity

C = Cause
SEVERITIES = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}
PLACES = {cause: place for place, cause in enumerate(Cause)}
NO_LEARNING = (
    *(C.PARAMETERS_NOT_UPDATING, C.LOSS_PLATEAU, C.CANNOT_OVERFIT_BATCH, C.NO_BETTER_THAN_BASELINE, C.UPDATE_RATIO),
    *(C.VANISHING_GRADIENT, C.UNDERFITTING, C.LR_TOO_LOW),
)
BLOWS_UP = (
    *(C.EXPLODING_GRADIENT, C.LOSS_DIVERGENCE, C.LOSS_OSCILLATION, C.NAN_LOSS, C.NUMERICAL_INSTABILITY),
    *(C.ACTIVATION_SCALE, C.WEIGHT_GROWTH, C.LR_TOO_HIGH, C.INITIAL_LOSS, C.HALF_PRECISION_OVERFLOW),
)
BAD_LOSS = (*NO_LEARNING, C.INITIAL_LOSS, C.CONSTANT_OUTPUT, C.METRIC_ERROR)

# What a cause brings about, so that it is folded under it where both are found.
EXPLAINS: dict[Cause, frozenset[Cause]] = {
    cause: frozenset(found) - {cause}
    for cause, found in {
        C.NAN_IN_DATA: (*BLOWS_UP, *NO_LEARNING, C.CONSTANT_INPUT, C.UNNORMALIZED_INPUT, C.UNNORMALIZED_TARGET,
                        C.TRAIN_VAL_MISMATCH, C.TARGET_OUTLIERS, C.INITIAL_LOSS, C.LABEL_ENCODING_ERROR),
        C.CONSTANT_INPUT: (*NO_LEARNING, C.MODEL_IGNORES_INPUT, C.INPUT_LABEL_MISMATCH, C.CONSTANT_OUTPUT,
                           C.REPEATED_BATCH, C.UNNORMALIZED_INPUT, C.BAD_INITIALIZATION, C.DEGENERATE_NORMALIZATION),
        C.LABEL_ENCODING_ERROR: (*BAD_LOSS, C.CLASS_IMBALANCE, C.INPUT_LABEL_MISMATCH, C.OUTPUT_ACTIVATION_MISMATCH,
                                 C.UNNORMALIZED_TARGET, C.TOO_FEW_SAMPLES, C.LOSS_SIGN_ERROR, C.USER_ERROR),
        C.REPEATED_BATCH: (C.CLASS_IMBALANCE, C.UNSHUFFLED_DATA, C.TARGET_LEAKAGE, C.TRAIN_VAL_MISMATCH,
                           C.TOO_FEW_SAMPLES),
        C.UNSHUFFLED_DATA: (C.INPUT_LABEL_MISMATCH, C.CLASS_IMBALANCE, C.TRAIN_VAL_MISMATCH, C.LABEL_ENCODING_ERROR,
                            C.TOO_FEW_SAMPLES, C.INITIAL_LOSS, C.LOSS_OSCILLATION, C.NO_BETTER_THAN_BASELINE),
        C.INPUT_LABEL_MISMATCH: (C.NO_BETTER_THAN_BASELINE, C.LOSS_PLATEAU, C.UNDERFITTING, C.OVERFITTING),
        C.UNNORMALIZED_INPUT: (*BLOWS_UP, *NO_LEARNING, C.BAD_INITIALIZATION, C.DEAD_RELU, C.SATURATED_ACTIVATIONS,
                               C.INITIAL_LOSS),
        C.UNNORMALIZED_TARGET: (*BLOWS_UP, *NO_LEARNING, C.INITIAL_LOSS, C.OUTPUT_ACTIVATION_MISMATCH),
        C.TARGET_OUTLIERS: (C.UNNORMALIZED_TARGET, C.INITIAL_LOSS, C.EXPLODING_GRADIENT, C.LOSS_OSCILLATION,
                             C.INPUT_LABEL_MISMATCH),
        C.CLASS_IMBALANCE: (C.NO_BETTER_THAN_BASELINE, C.TOO_FEW_SAMPLES, C.INITIAL_LOSS),
        C.SOFTMAX_BEFORE_CROSS_ENTROPY: (*BAD_LOSS, C.OUTPUT_ACTIVATION_MISMATCH, C.BAD_INITIALIZATION),
        C.SIGMOID_BEFORE_BCE_WITH_LOGITS: (*BAD_LOSS, C.OUTPUT_ACTIVATION_MISMATCH, C.BAD_INITIALIZATION),
        C.NLL_ON_PROBABILITIES: (*BAD_LOSS, C.LOSS_SIGN_ERROR, C.OUTPUT_ACTIVATION_MISMATCH),
        C.SOFTMAX_WRONG_DIM: (*BAD_LOSS, C.NLL_ON_PROBABILITIES, C.TENSOR_LAYOUT_ERROR,
                              C.SOFTMAX_BEFORE_CROSS_ENTROPY, C.SINGLE_CLASS_SOFTMAX),
        C.LOSS_SHAPE_BROADCAST: (*BAD_LOSS, C.USER_ERROR, C.TENSOR_LAYOUT_ERROR, C.MODEL_IGNORES_INPUT,
                                 C.INPUT_LABEL_MISMATCH),
        C.SINGLE_CLASS_SOFTMAX: (*BAD_LOSS, C.USER_ERROR, C.DETACHED_GRAPH, C.MODEL_IGNORES_INPUT,
                                 C.SOFTMAX_BEFORE_CROSS_ENTROPY, C.SOFTMAX_WRONG_DIM, C.LABEL_ENCODING_ERROR),
        C.OUTPUT_ACTIVATION_MISMATCH: (*BAD_LOSS, C.USER_ERROR, C.DEAD_RELU, C.UNNORMALIZED_TARGET),
        C.LOSS_SIGN_ERROR: (*BLOWS_UP, *BAD_LOSS),
        C.LOSS_REDUCTION_SUM: (*BLOWS_UP, C.INITIAL_LOSS),
        C.PADDING_IN_LOSS: (C.CLASS_IMBALANCE, C.INITIAL_LOSS, C.NO_BETTER_THAN_BASELINE),
        C.DETACHED_GRAPH: (*BAD_LOSS, C.FROZEN_PARAMETERS, C.USER_ERROR, C.PARAMETERS_NOT_IN_OPTIMIZER,
                           C.OPTIMIZER_STEP_MISSING, C.MODEL_IGNORES_INPUT),
        C.PARAMETERS_NOT_IN_OPTIMIZER: (*NO_LEARNING, C.OPTIMIZER_STEP_MISSING),
        C.FROZEN_PARAMETERS: (*NO_LEARNING, C.DETACHED_GRAPH),
        C.OPTIMIZER_STEP_MISSING: (*NO_LEARNING, C.ZERO_GRAD_MISSING),
        C.ZERO_GRAD_MISSING: (*BLOWS_UP,),
        C.EVAL_MODE_IN_TRAINING: (*BLOWS_UP, *NO_LEARNING, C.OVERFITTING),
        C.MODEL_IGNORES_INPUT: (*NO_LEARNING, C.INPUT_LABEL_MISMATCH, C.CONSTANT_OUTPUT),
        C.SYMMETRIC_INITIALIZATION: (*NO_LEARNING, C.BAD_INITIALIZATION, C.CONSTANT_OUTPUT, C.MODEL_IGNORES_INPUT,
                                     C.DEAD_RELU, C.INITIAL_LOSS),
        C.BAD_INITIALIZATION: (*BLOWS_UP, *NO_LEARNING, C.SATURATED_ACTIVATIONS, C.DEAD_RELU, C.CONSTANT_OUTPUT,
                               C.MODEL_IGNORES_INPUT, C.NUMERICAL_INSTABILITY),
        C.DEGENERATE_NORMALIZATION: (*NO_LEARNING, C.USER_ERROR, C.CONSTANT_OUTPUT, C.MODEL_IGNORES_INPUT, C.NAN_LOSS,
                                     C.BAD_INITIALIZATION, C.OVERFITTING),
        C.TENSOR_LAYOUT_ERROR: (C.USER_ERROR, C.NO_BETTER_THAN_BASELINE, C.LOSS_PLATEAU, C.CANNOT_OVERFIT_BATCH,
                                C.INPUT_LABEL_MISMATCH, C.UNDERFITTING, C.MODEL_IGNORES_INPUT),
        C.WRONG_GRADIENT: (*NO_LEARNING, *BLOWS_UP),
        C.DROPOUT_TOO_HIGH: (C.CANNOT_OVERFIT_BATCH, C.UNDERFITTING, C.NO_BETTER_THAN_BASELINE),
        C.MISSING_NONLINEARITY: (C.UNDERFITTING, C.NO_BETTER_THAN_BASELINE),
        C.DEAD_RELU: (*NO_LEARNING, C.CONSTANT_OUTPUT, C.MODEL_IGNORES_INPUT),
        C.WEIGHT_DECAY_TOO_HIGH: (*NO_LEARNING, C.WEIGHT_COLLAPSE, C.DEAD_RELU),
        C.LR_TOO_HIGH: (*BLOWS_UP, C.DEAD_RELU, C.UPDATE_RATIO, C.LOSS_PLATEAU, C.MODEL_IGNORES_INPUT,
                        C.CONSTANT_OUTPUT, C.NO_BETTER_THAN_BASELINE),
        C.LR_TOO_LOW: (*NO_LEARNING,),
        C.GRADIENT_CLIP_TOO_LOW: (*NO_LEARNING,),
        C.LR_SCHEDULE_COLLAPSE: (*NO_LEARNING,),
        C.NUMERICAL_INSTABILITY: (C.NAN_LOSS, C.LOSS_DIVERGENCE),
        C.HALF_PRECISION_OVERFLOW: (*NO_LEARNING, C.NAN_LOSS, C.NUMERICAL_INSTABILITY, C.MODEL_IGNORES_INPUT,
                                    C.DEAD_RELU),
        C.GRADIENT_ACCUMULATION_UNSCALED: (*BLOWS_UP,),
        C.CANNOT_OVERFIT_BATCH: (C.NO_BETTER_THAN_BASELINE, C.LOSS_PLATEAU),
        C.EXPLODING_GRADIENT: (C.LOSS_DIVERGENCE, C.NAN_LOSS),
    }.items()
}  # fmt: skip


def ranked(findings: Iterable[Finding], *, ignored: Iterable[Cause] = ()) -> tuple[Finding, ...]:
    """Merge what is found again, fold what another explains under it, and put the most likely cause first.

    What is explained is left in the list, after what stands by itself. Order goes by what rules say of themselves, and
    how sure a finding is then said to be by how often such ones were right.
    """
    left = merged([finding for finding in findings if finding.cause not in set(ignored)])
    roots: list[Finding] = []
    symptoms: list[Finding] = []
    for finding in left:
        above = _explained_by(finding, left)
        (symptoms if above else roots).append(finding)
    folded = {id(root): tuple(each.title for each in symptoms if _explains(root, each)) for root in roots}
    told = [replace(root, folded=folded[id(root)]) for root in roots]
    return tuple(calibrated(each) for each in (*sorted(told, key=_order), *sorted(symptoms, key=_order)))


def calibrated(finding: Finding) -> Finding:
    """As sure as such findings deserve; what its rule said is kept. What merely happened, with no rule, stays."""
    if not finding.source:
        return finding
    stated = _stated(finding)
    return replace(finding, confidence=calibration.shipped()(finding.cause, stated), rule_confidence=stated)


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Of what checks found of one cause, one: the worst and surest, with the layers of all. Events stay apart."""
    by_cause: dict[Cause | int, list[Finding]] = {}
    for place, finding in enumerate(findings):
        by_cause.setdefault(finding.cause if finding.source else place, []).append(finding)
    made = []
    for same in by_cause.values():
        first = min(same, key=_order)
        layers = tuple(dict.fromkeys(layer for each in (first, *same) for layer in each.layers))
        made.append(replace(first, layers=layers) if layers != first.layers else first)
    return made


def _explains(cause: Finding, other: Finding) -> bool:
    return other.cause in EXPLAINS.get(cause.cause, frozenset()) and _order(cause)[0] <= _order(other)[0] + 1


def _explained_by(finding: Finding, others: Sequence[Finding]) -> list[Finding]:
    """Those that explain it, unless it explains them as well and comes before."""
    above = [other for other in others if other is not finding and _explains(other, finding)]
    return [other for other in above if not _explains(finding, other) or _order(other) <= _order(finding)]


def _stated(finding: Finding) -> float:
    """How sure the rule is."""
    return finding.confidence if finding.rule_confidence is None else finding.rule_confidence


def _order(finding: Finding) -> tuple[int, float, int, int]:
    return SEVERITIES[finding.severity], -_stated(finding), PLACES[finding.cause], -finding.step
