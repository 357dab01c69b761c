"""A batch as it is shown: which samples, as what, in which words; and that looking leaves no trace."""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nbdebug.records.stops import BatchView
from nbdebug.tools.batch_view import batch_view, sample_losses
from nbdebug.training.rng import RandomState

NAN, INF = math.nan, math.inf
Pair = namedtuple("Pair", "seen wanted")


@dataclass
class Held:
    x: torch.Tensor
    y: torch.Tensor


def ramp(*shape: int) -> torch.Tensor:
    """0, 1, 2, … in that shape."""
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)


@pytest.mark.parametrize(
    ("tensor", "kind", "form"),
    [
        (torch.rand(5, 3, 8, 8), "pictures", (5, 8, 8, 3)),
        (torch.rand(5, 1, 28, 28), "pictures", (5, 28, 28, 3)),
        (torch.rand(5, 4, 8, 8), "pictures", (5, 8, 8, 3)),
        (torch.rand(5, 8, 9, 3), "pictures", (5, 8, 9, 3)),
        (torch.rand(5, 8, 9, 1), "pictures", (5, 8, 9, 3)),
        (torch.rand(5, 28, 20), "pictures", (5, 28, 20, 3)),
        (torch.rand(5, 3, 64, 64), "pictures", (5, 64, 64, 3)),
        (torch.rand(5, 3, 65, 32), "pictures", (5, 33, 16, 3)),
        (torch.rand(2, 3, 224, 300), "pictures", (2, 45, 60, 3)),
        (torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "pictures", (5, 8, 8, 3)),
        (torch.rand(5, 3, 8, 8).half(), "pictures", (5, 8, 8, 3)),
        (torch.rand(5, 3, 8, 8).bfloat16(), "pictures", (5, 8, 8, 3)),
        (torch.rand(5, 3, 8, 8).to(torch.float8_e4m3fn), "other", None),
        (torch.rand(5, 7), "table", (5, 7)),
        (torch.rand(5), "table", (5, 1)),
        (torch.rand(5, 100), "table", (5, 64)),
        (torch.rand(5, 7) > 0.5, "table", (5, 7)),
        (torch.zeros(5, 7, dtype=torch.int64), "sequence", (5, 7)),
        (torch.zeros(5, 7, dtype=torch.uint16), "sequence", (5, 7)),
        (torch.zeros(5, dtype=torch.int64), "sequence", (5, 1)),
        (torch.rand(5, 30, 4), "sequence", (5, 30)),
        (torch.rand(5, 7, 30), "sequence", (5, 7)),
        (torch.rand(5, 16, 8, 8), "other", None),
        (torch.rand(5, 3, 4, 8, 8), "other", None),
        (torch.rand(5, 3, 1, 1), "other", None),
        (torch.zeros(5, 30, 4, dtype=torch.int64), "other", None),
        (torch.rand(5, 7, dtype=torch.complex64), "other", None),
        (torch.rand(5, 7).to_sparse(), "other", None),
        (torch.rand(5, 7, device="meta"), "other", None),
        (torch.rand(0, 7), "other", None),
        (torch.rand(5, 0), "other", None),
    ],
    ids=lambda value: f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else None,
)
def test_a_tensor_is_shown_as_what_it_looks_like(tensor: torch.Tensor, kind: str, form: tuple[int, ...] | None) -> None:
    view = batch_view((tensor, torch.zeros(len(tensor), dtype=torch.int64)))
    shown = view.pictures if kind == "pictures" else view.rows
    assert view.kind == kind and (None if shown is None else shown.shape) == form
    assert view.samples == tuple(range(len(tensor))) and view.targets == ("0",) * len(tensor)
    assert len(view.summary) == 2 and view.losses is None
    assert len(view.columns) == (0 if view.rows is None else view.rows.shape[1])


def test_pictures_go_from_black_to_white_over_those_shown() -> None:
    view = batch_view(torch.cat([ramp(1, 1, 4, 4) - 5, torch.full((9, 1, 4, 4), 99.0)]), most=1)
    assert view.pictures is not None and view.pictures.dtype == np.uint8
    assert view.pictures[0, ..., 0].ravel().tolist() == [round(17 * value) for value in range(16)]
    assert (view.pictures[..., 0] == view.pictures[..., 2]).all()
    assert view.note == "−5 is drawn black, 10 white"


def test_colours_stay_in_their_places_whichever_side_the_channels_are_on() -> None:
    picture = ramp(2, 3, 8, 5)
    first, last = batch_view(picture), batch_view(picture.permute(0, 2, 3, 1).contiguous())
    assert first.pictures is not None and last.pictures is not None
    assert first.pictures.tolist() == last.pictures.tolist()
    expected = np.rint(picture.permute(0, 2, 3, 1).double().numpy() / (2 * 3 * 8 * 5 - 1) * 255)
    assert (first.pictures == expected).all()


def test_nan_is_magenta_infinities_are_extremes_and_sameness_is_grey() -> None:
    picture = torch.zeros(1, 3, 4, 4)
    picture[0, 1, 0, 0], picture[0, :, 0, 1], picture[0, :, 0, 2], picture[0, :, 0, 3] = NAN, INF, -INF, 1.0
    shown = batch_view(picture).pictures
    assert shown is not None
    assert shown[0, 0].tolist() == [[255, 0, 255], [255] * 3, [0] * 3, [255] * 3] and shown[0, 1].max() == 0
    for same in (torch.full((1, 3, 4, 4), 7.0), torch.full((1, 1, 4, 4), INF)):
        grey = batch_view(same).pictures
        assert grey is not None and (grey == 128).all()
    lost = batch_view(torch.full((1, 1, 4, 4), NAN)).pictures
    assert lost is not None and (lost == (255, 0, 255)).all()


def test_extremes_that_differ_by_more_than_any_number() -> None:
    picture = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    picture[0, 0, 0, 0], picture[0, 0, 0, 1] = -1.7e308, 1.7e308
    shown = batch_view(picture).pictures
    assert shown is not None and shown[0, 0, :3, 0].tolist() == [0, 255, 128]


def test_large_pictures_are_thinned() -> None:
    view = batch_view(ramp(1, 1, 100, 130))
    assert view.pictures is not None and view.pictures.shape == (1, 34, 44, 3)
    assert view.note.endswith("every 3. pixel")
    assert view.pictures[0, 1, 1, 0] == round((3 * 130 + 3) / (100 * 130 - 1) * 255)


def test_rows_are_the_values_and_what_is_left_out_is_said() -> None:
    view = batch_view((ramp(3, 70), torch.tensor([0.5, -1.25, 3.0])), most=2)
    assert view.rows is not None and view.rows.tolist() == ramp(3, 70)[:2, :64].tolist()
    assert view.columns == tuple(str(place) for place in range(64)) and view.note == "the first 64 of 70 columns"
    assert view.targets == ("0.5", "−1.25")
    view = batch_view(ramp(2, 5, 3))
    assert view.rows is not None and view.rows.tolist() == ramp(2, 5, 3)[..., 0].tolist()
    assert view.note == "the first of 3 features"


def test_the_worst_come_first_and_nan_above_all() -> None:
    losses = [0.1, NAN, 5.0, INF, 0.1, -INF, NAN]
    view = batch_view((ramp(7, 2), torch.arange(7)), losses=losses, most=6)
    assert view.samples == (1, 6, 3, 2, 0, 4) and view.targets == ("1", "6", "3", "2", "0", "4")
    assert view.losses is not None and view.rows is not None
    np.testing.assert_array_equal(view.losses, [NAN, NAN, INF, 5.0, 0.1, 0.1])
    assert view.rows[:, 0].tolist() == [2, 12, 6, 4, 0, 8]


def test_losses_of_the_first_samples_only() -> None:
    view = batch_view(ramp(9, 2), losses=[1.0, 2.0])
    assert view.samples == (1, 0) and view.note == "losses are known of the first 2"
    for useless in ([], [1.0] * 10):
        assert batch_view(ramp(9, 2), losses=useless).losses is None


@pytest.mark.parametrize("most", [0, -1])
def test_no_samples_at_all(most: int) -> None:
    view = batch_view((ramp(3, 2), torch.arange(3)), losses=[1.0, 2.0, 3.0], most=most)
    assert view.samples == () and view.targets == () and view.kind == "other" and len(view.summary) == 2


@pytest.mark.parametrize(
    ("batch", "names"),
    [
        ((ramp(3, 2), torch.arange(3)), ["batch[0]", "batch[1]"]),
        ([ramp(3, 2), torch.arange(3)], ["batch[0]", "batch[1]"]),
        ({"x": ramp(3, 2), "y": torch.arange(3)}, ['batch["x"]', 'batch["y"]']),
        ({"input_ids": ramp(3, 2), 5: {"deep": [torch.arange(3)]}}, ['batch["input_ids"]', 'batch["5"]["deep"][0]']),
        (Held(ramp(3, 2), torch.arange(3)), ["batch.x", "batch.y"]),
        (Pair(ramp(3, 2), torch.arange(3)), ["batch[0]", "batch[1]"]),
        (ramp(3, 2), ["batch"]),
        ((ramp(3, 2), torch.arange(3), torch.rand(3)), ["batch[0]", "batch[1]", "batch[2]"]),
        (((ramp(3, 2), torch.rand(3, 4)), torch.arange(3)), ["batch[0][0]", "batch[0][1]", "batch[1]"]),
        ((nn.Parameter(ramp(3, 2)), None), ["batch[0]"]),
    ],
)
def test_a_batch_may_be_held_by_anything(batch: Any, names: list[str]) -> None:
    view = batch_view(batch)
    assert [line.split(" (")[0] for line in view.summary] == names
    assert view.kind == "table" and view.rows is not None and view.rows.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("batch", [None, (), {}, "text", 5, [1, 2, 3], ({}, []), object(), nn.Linear(1, 1), Held])
def test_nothing_to_show(batch: Any) -> None:
    assert batch_view(batch) == BatchView("other", (), (), (), note="there is no tensor in it")


def test_a_batch_that_holds_itself_ends() -> None:
    batch: list[Any] = [ramp(3, 2)]
    batch.append(batch)
    assert batch_view(batch).kind == "table"


@pytest.mark.parametrize(
    ("tensor", "line"),
    [
        (torch.tensor([[-2.1, 0], [2.6, 1]]), "batch (2, 2) float32, −2.1 to 2.6"),
        (torch.tensor([1.0, NAN, INF, -INF, NAN]), "batch (5,) float32, 1 to 1, 2 NaN, 2 inf"),
        (torch.tensor([NAN]), "batch (1,) float32, 1 NaN"),
        (torch.tensor([[1, 5, 3], [2, 5, 3]]), "batch (2, 3) int64, 1 to 5, constant columns 1, 2"),
        (torch.tensor([[1.0, NAN], [1.0, NAN]]), "batch (2, 2) float32, 1 to 1, 2 NaN, constant column 0"),
        (torch.zeros(2, 10), f"batch (2, 10) float32, 0 to 0, constant columns {', '.join('01234567')} and 2 more"),
        (torch.zeros(1, 10), "batch (1, 10) float32, 0 to 0"),
        (torch.tensor([True, False]), "batch (2,) bool, 0 to 1"),
        (torch.tensor([3 + 4j, 0j]), "batch (2,) complex64, sizes 0 to 5"),
        (torch.tensor([2**40]), "batch (1,) int64, 1,099,511,627,776 to 1,099,511,627,776"),
        (torch.tensor(2.0), "batch () float32, 2 to 2"),
        (torch.rand(0, 7), "batch (0, 7) float32, empty"),
        (torch.eye(2).to_sparse(), "batch (2, 2) float32, sparse coo: values not shown"),
        (torch.rand(2, device="meta"), "batch (2,) float32, on the meta device: values not shown"),
        (torch.tensor([1, 2], dtype=torch.uint16), "batch (2,) uint16, 1 to 2"),
        (torch.tensor([1.0, NAN]).to(torch.float8_e4m3fn), "batch (2,) float8_e4m3fn, quantized: values not shown"),
        (torch.tensor([1.0, NAN]).bfloat16(), "batch (2,) bfloat16, 1 to 1, 1 NaN"),
    ],
    ids=str,
)
def test_a_line_sums_up_a_tensor(tensor: torch.Tensor, line: str) -> None:
    assert batch_view(tensor).summary == (line,)


class Labelled(torch.Tensor):
    """One that says itself what can be done with it, like those of torchvision."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.isfinite, torch.aminmax, torch.Tensor.__getitem__)
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def test_a_tensor_of_a_class_of_its_own_is_shown_like_any() -> None:
    view = batch_view((ramp(2, 3).as_subclass(Labelled), torch.tensor([4, 5]).as_subclass(Labelled)))
    assert view.kind == "table" and view.targets == ("4", "5")
    assert view.summary[0] == "batch[0] (2, 3) float32, 0 to 5"


def test_a_nested_tensor_is_named_and_no_more() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    view = batch_view((nested, torch.arange(2)))
    assert view.kind == "other" and view.summary == ("batch[0] nested float32", "batch[1] (2,) int64, 0 to 1")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.tensor([3, 12345]), ("3", "12,345")),
        (torch.tensor([[3], [-4]]), ("3", "−4")),
        (torch.tensor([0.123456, 1e-9]), ("0.1235", "1e−09")),
        (torch.tensor([True, False]), ("True", "False")),
        (torch.tensor([[0, 1, 1], [0, 0, 0]]), ("1, 2", "none")),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), ("1", "0")),
        (torch.tensor([[0.5, 2], [1, 0]]), ("0.5, 2", "1, 0")),
        (torch.arange(20).reshape(2, 10), ("0, 1, 2, 3, 4, 5, 6, 7, … (10)", "10, 11, 12, 13, 14, 15, 16, 17, … (10)")),
        (torch.zeros(2, 16, 16), ("(16, 16) map",) * 2),
        (torch.zeros(2, 1, 16, 16), ("(1, 16, 16) map",) * 2),
        (torch.tensor([1 + 2j, 0j]), ("1+2j", "0+0j")),
        (torch.tensor([NAN, INF]), ("nan", "inf")),
        (torch.zeros(3), ("", "")),
        (torch.tensor(1.0), ("", "")),
        (torch.zeros(2, 3).to_sparse(), ("", "")),
        (torch.zeros(2, 0), ("", "")),
        (None, ()),
        (
            {"labels": torch.tensor([3, 4]), "area": torch.tensor([0.5, 1])},
            ("labels: 3; area: 0.5", "labels: 4; area: 1"),
        ),
        ((torch.tensor([3, 4]), torch.tensor([5, 6])), ("3; 5", "4; 6")),
        (["cat", "dog" * 20], ("cat", ("dog" * 20)[:39] + "…")),
        ([{"boxes": torch.zeros(3, 4)}, {}], ("dict of 1", "dict of 0")),
        ([5, 0.25], ("5", "0.25")),
    ],
    ids=str,
)
def test_a_target_in_words(target: Any, words: tuple[str, ...]) -> None:
    assert batch_view((ramp(2, 3), target)).targets == words


def test_looking_changes_nothing_and_keeps_no_graph() -> None:
    held = ramp(4, 3).requires_grad_()
    source, target = held * 1, torch.arange(4)
    before, version = RandomState.capture(), source._version
    view = batch_view((source, target), losses=[1.0, 2.0, 3.0, 4.0])
    assert view.rows is not None
    view.rows[:] = -1  # a copy
    assert source._version == version and source.detach().equal(ramp(4, 3))
    assert torch.equal(torch.get_rng_state(), before.torch_cpu) and held.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_of_each_sample_alone(dtype: torch.dtype) -> None:
    output, target = torch.randn(6, 4, dtype=dtype).requires_grad_(), torch.tensor([0, 1, 2, 3, 0, 1])
    losses = sample_losses(functional.cross_entropy, output, target)
    expected = functional.cross_entropy(output, target, reduction="none")
    assert losses is not None and np.allclose(losses, expected.tolist(), rtol=1e-2 if dtype is torch.bfloat16 else 1e-5)
    assert sample_losses(nn.CrossEntropyLoss(), output, target, most=2) == losses[:2]
    assert output.grad is None


@pytest.mark.parametrize(
    ("loss_fn", "losses"),
    [
        (lambda output, target: float((output - target).sum()), [0.0, 0.0]),
        (lambda output, target: (output - target).sum(dim=1), [0.0, 0.0]),
        (lambda output, target: (output - target).sum().long(), [0.0, 0.0]),
        (lambda output, target: output.sum() * NAN, [NAN, NAN]),
        (lambda output, target: output - target, None),
        (lambda output, target: {"loss": output.sum()}, None),
        (lambda output, target: None, None),
        (lambda output, target: output.sum() * 1j, None),
        (lambda output, target: output[1] - target, None),  # needs a second sample
        (lambda output, target: nn.BatchNorm1d(3)(output).sum(), None),
    ],
)
def test_a_loss_that_gives_one_number_or_not(loss_fn: Any, losses: list[float] | None) -> None:
    found = sample_losses(loss_fn, ramp(2, 3), ramp(2, 3))
    assert (found is None) is (losses is None)
    if found is not None:
        np.testing.assert_array_equal(found, losses)


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (ramp(3, 2), ramp(2, 2)),
        (ramp(0, 2), ramp(0, 2)),
        (torch.tensor(1.0), torch.tensor(1.0)),
        ({"logits": ramp(2, 2)}, ramp(2, 2)),
        (ramp(2, 2), None),
        (ramp(2, 2), [1, 2]),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged), ramp(2, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_output_and_target_without_samples_in_common(output: Any, target: Any) -> None:
    assert sample_losses(lambda output, target: torch.tensor(0.0), output, target) is None


class Remembering(nn.Module):
    """A loss that draws, keeps count, spoils what it is given, and needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        self.seen += 1
        self.calls += 1
        np.random.rand()
        return output.add_(torch.rand(())).sum() + target.mul_(0).sum()


def test_a_loss_on_the_side_leaves_no_trace() -> None:
    loss_fn, output, target = Remembering(), ramp(4, 2), ramp(4, 2)
    before = RandomState.capture()
    assert sample_losses(loss_fn, output, target) is not None
    after = RandomState.capture()
    assert torch.equal(before.torch_cpu, after.torch_cpu) and before.python == after.python
    assert all(np.array_equal(one, other) for one, other in zip(before.numpy, after.numpy, strict=True))
    assert output.equal(ramp(4, 2)) and target.equal(ramp(4, 2)) and not output.requires_grad
    assert loss_fn.calls == 0 and loss_fn.seen == 0 and torch.is_grad_enabled()


def test_the_loss_of_one_sample_keeps_no_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    recorded: list[bool] = []

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        recorded.append((output * weight).requires_grad)
        return (output * weight).sum()

    assert sample_losses(loss_fn, ramp(2, 2), ramp(2, 2)) == [1.0, 5.0] and recorded == [False, False]


def test_what_the_user_interrupts_is_not_hidden() -> None:
    def interrupted(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_losses(interrupted, ramp(2, 2), ramp(2, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_a_gpu_and_only_what_is_shown_copied() -> None:
    source, target = torch.rand(64, 3, 128, 128, device="cuda"), torch.arange(64, device="cuda")
    view = batch_view((source, target), losses=list(range(64)), most=4)
    assert view.pictures is not None and view.pictures.shape == (4, 64, 64, 3)
    assert view.targets == ("63", "62", "61", "60")
    output = torch.randn(64, 5, device="cuda")
    losses = sample_losses(functional.cross_entropy, output, target % 5)
    assert losses is not None and len(losses) == 64
