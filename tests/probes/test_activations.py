"""Activation histograms against the full tensors, and samples that do not line up with their layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.probes.activations import BINS
from nbdebug.probes.sampling import strided_sample


def watched(model: nn.Module, data, step=None) -> Debugger:
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    return Debugger(model, Trainer(optimizer, F.mse_loss, data, step=step), budget=None)


def test_counts_are_those_of_numpy_on_a_range_of_powers_of_two() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 1))
    x = torch.randn(100, 4)
    debugger = watched(model, [(x, torch.zeros(100, 1))])
    debugger.step()
    outputs = {"0": model[0](x), "1": model[1](model[0](x)), "2": model(x)}
    for layer, output in outputs.items():
        values = output.detach().flatten().numpy()
        _, counts, limits = debugger.history[f"activations/{layer}"]
        assert limits[-1] == 2.0 ** np.ceil(np.log2(np.abs(values).max()))
        expected, _ = np.histogram(values, bins=BINS, range=(-limits[-1], limits[-1]))
        assert counts[-1].sum() == values.size
        assert np.abs(counts[-1] - expected).sum() <= 4, "only values on a border may fall to the other side"
    debugger.close()


def test_an_in_place_activation_after_it_does_not_change_what_is_seen() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(inplace=True), nn.Linear(30, 1))
    debugger = watched(model, [(torch.randn(50, 4), torch.zeros(50, 1))])
    debugger.step()
    counts = {layer: debugger.history[f"activations/{layer}"].counts[-1] for layer in "01"}
    assert counts["0"][: BINS // 2].sum() > 500
    assert counts["1"][: BINS // 2].sum() == 0
    debugger.close()


def test_non_finite_outputs_are_counted_apart() -> None:
    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.cat([x * self.weight, torch.full((4,), float("nan")), torch.full((4,), float("inf"))])

    model = nn.Sequential(Bad())
    debugger = watched(model, [torch.ones(8)], step=lambda m, b, *a: m(b)[0].item())
    debugger.step()
    activations = debugger._view(10).activations
    assert activations is not None
    assert activations.non_finite[0] == pytest.approx(0.5)
    assert activations.counts[0].sum() == 8
    assert activations.mean[0] == 1.0
    debugger.close()


def test_tuples_shared_layers_and_recomputation() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 4)

        def forward(self, x):
            out, _ = self.lstm(x)
            out = torch.utils.checkpoint.checkpoint(self.head, out, use_reentrant=False)
            return self.head(out)[:, -1, :1]

    model = Model()
    debugger = watched(model, [(torch.randn(5, 6, 3), torch.zeros(5, 1))])
    debugger.step()
    assert debugger.history["activations/lstm"].counts[-1].sum() == 5 * 6 * 4
    assert debugger.history["activations/head"].counts[-1].sum() == 2 * 5 * 6 * 4
    assert not debugger.findings
    debugger.close()


def test_a_probe_that_breaks_is_switched_off_and_training_goes_on() -> None:
    class Strange(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if "detach" in getattr(func, "__name__", ""):
                raise TypeError("no detaching here")
            return super().__torch_function__(func, types, args, kwargs)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return (x * self.weight).as_subclass(Strange)

    def step(model, batch, loss_fn, optimizer):
        model(batch)
        return 1.0

    debugger = watched(Model(), [torch.ones(3)], step)
    debugger.run(steps=3)
    assert [finding.cause for finding in debugger.findings] == ["watching_disabled"]
    assert "no detaching here" in debugger.findings[0].detail
    assert debugger.status.step == 3
    debugger.close()


@pytest.mark.parametrize("shape", [(64, 32, 32, 32), (128, 4096), (256, 256), (16, 3, 224, 224), (100_003,)])
def test_samples_see_every_index_of_every_dimension_alike(shape: tuple[int, ...]) -> None:
    for axis, extent in enumerate(shape):
        index = torch.arange(extent, dtype=torch.float32).view([-1 if a == axis else 1 for a in range(len(shape))])
        sample = strided_sample(index.expand(shape).contiguous(), turn=3)
        assert 3500 <= len(sample) <= 4096
        if extent <= 64:
            shares = torch.bincount(sample.long(), minlength=extent) / len(sample)
            assert (shares - 1 / extent).abs().max() < 5 * (1 / extent / len(sample)) ** 0.5 + 1e-3
        assert sample.mean().item() == pytest.approx((extent - 1) / 2, rel=0.06)


def test_a_sample_moves_with_the_turn_and_draws_nothing() -> None:
    tensor = torch.arange(100_000.0)
    state = torch.get_rng_state()
    assert not torch.equal(strided_sample(tensor, 1), strided_sample(tensor, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_formats_other_than_contiguous() -> None:
    tensor = torch.randn(8, 4, 6, 6).to(memory_format=torch.channels_last)
    for view in (tensor, tensor.transpose(1, 3), tensor[:, ::2]):
        sample = strided_sample(view, 0)
        assert torch.equal(sample.sort().values, view.flatten().sort().values)
