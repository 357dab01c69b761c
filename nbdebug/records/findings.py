"""What the debugger has to say about a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nbdebug.records import finding_text
from nbdebug.records.commands import Command
from nbdebug.records.frames import Floats
from nbdebug.records.stops import CodeLine, Origin


class Severity(StrEnum):
    """How much a finding matters: told for completeness, worth a look, or the run is broken."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Cause(StrEnum):
    """Why a finding was made: what is wrong with a training program, its symptoms, and what befell the debugger."""

    # the optimizer and its settings
    LR_TOO_HIGH = "lr_too_high"
    LR_TOO_LOW = "lr_too_low"
    LR_SCHEDULE_COLLAPSE = "lr_schedule_collapse"
    GRADIENT_CLIP_TOO_LOW = "gradient_clip_too_low"
    GRADIENT_ACCUMULATION_UNSCALED = "gradient_accumulation_unscaled"
    WEIGHT_DECAY_TOO_HIGH = "weight_decay_too_high"
    DROPOUT_TOO_HIGH = "dropout_too_high"
    ZERO_GRAD_MISSING = "zero_grad_missing"
    OPTIMIZER_STEP_MISSING = "optimizer_step_missing"
    PARAMETERS_NOT_IN_OPTIMIZER = "parameters_not_in_optimizer"
    FROZEN_PARAMETERS = "frozen_parameters"
    DETACHED_GRAPH = "detached_graph"
    WRONG_GRADIENT = "wrong_gradient"
    EVAL_MODE_IN_TRAINING = "eval_mode_in_training"
    MISSING_EVAL_MODE = "missing_eval_mode"
    # the loss
    LOSS_REDUCTION_SUM = "loss_reduction_sum"
    LOSS_SIGN_ERROR = "loss_sign_error"
    LOSS_PART_DROPPED = "loss_part_dropped"
    SOFTMAX_BEFORE_CROSS_ENTROPY = "softmax_before_cross_entropy"
    SIGMOID_BEFORE_BCE_WITH_LOGITS = "sigmoid_before_bce_with_logits"
    NLL_ON_PROBABILITIES = "nll_on_probabilities"
    SOFTMAX_WRONG_DIM = "softmax_wrong_dim"
    LOSS_SHAPE_BROADCAST = "loss_shape_broadcast"
    SINGLE_CLASS_SOFTMAX = "single_class_softmax"
    OUTPUT_ACTIVATION_MISMATCH = "output_activation_mismatch"
    PADDING_IN_LOSS = "padding_in_loss"
    METRIC_ERROR = "metric_error"
    # the network
    DEAD_RELU = "dead_relu"
    BAD_INITIALIZATION = "bad_initialization"
    SYMMETRIC_INITIALIZATION = "symmetric_initialization"
    MISSING_NONLINEARITY = "missing_nonlinearity"
    DEGENERATE_NORMALIZATION = "degenerate_normalization"
    TENSOR_LAYOUT_ERROR = "tensor_layout_error"
    NUMERICAL_INSTABILITY = "numerical_instability"
    HALF_PRECISION_OVERFLOW = "half_precision_overflow"
    MODEL_IGNORES_INPUT = "model_ignores_input"
    # the data
    UNNORMALIZED_INPUT = "unnormalized_input"
    UNNORMALIZED_TARGET = "unnormalized_target"
    TARGET_OUTLIERS = "target_outliers"
    INPUT_LABEL_MISMATCH = "input_label_mismatch"
    LABEL_ENCODING_ERROR = "label_encoding_error"
    UNSHUFFLED_DATA = "unshuffled_data"
    CLASS_IMBALANCE = "class_imbalance"
    TOO_FEW_SAMPLES = "too_few_samples"
    CONSTANT_INPUT = "constant_input"
    REPEATED_BATCH = "repeated_batch"
    NAN_IN_DATA = "nan_in_data"
    TARGET_LEAKAGE = "target_leakage"
    TRAIN_VAL_MISMATCH = "train_val_mismatch"
    OVERFITTING = "overfitting"
    UNDERFITTING = "underfitting"
    # symptoms
    PARAMETERS_NOT_UPDATING = "parameters_not_updating"
    VANISHING_GRADIENT = "vanishing_gradient"
    EXPLODING_GRADIENT = "exploding_gradient"
    LOSS_DIVERGENCE = "loss_divergence"
    LOSS_PLATEAU = "loss_plateau"
    LOSS_OSCILLATION = "loss_oscillation"
    INITIAL_LOSS = "initial_loss"
    CANNOT_OVERFIT_BATCH = "cannot_overfit_batch"
    NO_BETTER_THAN_BASELINE = "no_better_than_baseline"
    NAN_LOSS = "nan_loss"
    SATURATED_ACTIVATIONS = "saturated_activations"
    CONSTANT_OUTPUT = "constant_output"
    ACTIVATION_SCALE = "activation_scale"
    WEIGHT_GROWTH = "weight_growth"
    WEIGHT_COLLAPSE = "weight_collapse"
    UPDATE_RATIO = "update_ratio"
    BATCH_TOO_SMALL = "batch_too_small"
    # what happened to the run or to the debugger
    EARLY_STOP = "early_stop"
    BREAKPOINT_DISABLED = "breakpoint_disabled"
    CHECK_DISABLED = "check_disabled"
    MODEL_EDITED = "model_edited"
    USER_ERROR = "user_error"
    WATCHING_DISABLED = "watching_disabled"
    NOT_REPRODUCIBLE = "not_reproducible"
    SNAPSHOTS = "snapshots"
    JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A measured value, beside what it is held against: it speaks for a fault where it is above (or not) ``threshold``.

    ``parameter`` is the threshold's name in the table of parameters, empty for a value that only illustrates.
    """

    name: str
    value: float
    parameter: str = ""
    threshold: float | None = None
    above: bool = True

    @property
    def speaks_for_a_fault(self) -> bool:
        """Whether the value is on the wrong side of the threshold."""
        if self.threshold is None:
            return False
        return self.value > self.threshold if self.above else self.value < self.threshold


class PictureKind(StrEnum):
    """How a picture's rows are drawn: bars side by side, curves, or shades of a matrix."""

    BARS = "bars"
    LINES = "lines"
    MATRIX = "matrix"


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture: ``values`` ``(rows, columns)``, with a name for each row (a series) and each column."""

    kind: PictureKind
    title: str
    values: Floats
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would mend it, in words; a ``command`` where the debugger can do it, ``code`` where only the user can."""

    text: str
    command: Command | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause, found at a step of a run, with the evidence; ``detail`` may hold a traceback.

    ``origin`` says where a value that is not finite came from. ``confidence`` is between 0 and 1. ``layers`` are those
    it is about, ``line`` the user's code, ``remedies`` in the order to try them, ``source`` who says so. ``folded`` are
    the titles of what this one explains. ``first_step`` is where it was first seen, if that was before it was told;
    ``check`` the live check that found it, and may find it gone again.
    """

    cause: Cause
    severity: Severity
    run: str
    step: int
    title: str
    why: str
    detail: str = ""
    origin: Origin | None = None
    confidence: float = 1.0
    layers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    pictures: tuple[Picture, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    line: CodeLine | None = None
    source: str = ""
    folded: tuple[str, ...] = ()
    rule_confidence: float | None = None
    first_step: int | None = None
    check: str = ""

    @property
    def since(self) -> int:
        """The step at which it was first seen."""
        return self.step if self.first_step is None else self.first_step

    @property
    def by(self) -> str:
        """Who found it: the live check, or whose advice it follows; empty for what merely happened."""
        return self.check or self.source

    def __str__(self) -> str:
        return "\n".join(finding_text.lines(self))

    def _repr_html_(self) -> str:
        return finding_text.html(self)


@dataclass(frozen=True, slots=True)
class Gone:
    """A cause is found no more after ``step`` steps of ``run``, ``by`` who had found it; last seen at ``last_step``."""

    run: str
    step: int
    cause: Cause
    by: str
    last_step: int


@dataclass(frozen=True, slots=True)
class Spell:
    """A stretch of steps over which something was found: from ``first`` to ``last``, in ``run`` from its beginning on.

    ``gone`` is the step, in ``gone_run``, from which on it counts as gone; all three are ``None`` while it stands.
    """

    run: str
    first: int
    last: int | None = None
    gone: int | None = None
    gone_run: str | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a finding along a run and those that it came from: its spells, oldest first.

    ``finding`` is as it was last told.
    """

    finding: Finding
    spells: tuple[Spell, ...]

    @property
    def stands(self) -> bool:
        """Whether it is found still."""
        return self.spells[-1].gone is None

    @property
    def first_step(self) -> int:
        """Where it was first seen."""
        return self.spells[0].first

    def __str__(self) -> str:
        """``since step 40 · gone at 120 · back at 200``."""
        words = []
        for place, spell in enumerate(self.spells):
            words.append(f"{'back at' if place else 'since step'} {spell.first:,}")
            words += [] if spell.gone is None else [f"gone at {spell.gone:,}"]
        return " · ".join(words)
