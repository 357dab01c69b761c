"""What only the whole battery can tell of data: pairs that don't belong together, outputs that see their own target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nbdebug import Debugger
from nbdebug.checks.preflight.registry import checks
from nbdebug.records.checks import CheckOutcome, CheckResult
from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, told_apart

N = 480
CAUSES = {"input_label_mismatch": "input_label_mismatch", "future_leakage": "target_leakage"}


def checked(rule: str, model: Any, trainer: Trainer) -> CheckResult:
    """What one rule comes to in the battery, on a debugger of its own."""
    debugger = Debugger(model, trainer, journal=None)
    try:
        report = debugger.preflight(skip=[check.name for check in checks() if check.name != rule])
    finally:
        debugger.close()
    result = next(each for each in report.results if each.name == rule)
    assert result.outcome is not CheckOutcome.BROKE, result.findings[0].detail
    return result


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def program(model: nn.Module, loss: Any, data: Any, batch: int = 32) -> Program:
    return model, Trainer(SGD(model.parameters(), 1e-3), loss, DataLoader(data, batch, shuffle=True))


def blobs(size: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.randint(4, (size,))
    return torch.randn(size, 8) + 2 * torch.randn(4, 8)[y], y


def shapes(size: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright stripe across or down, somewhere."""
    y, place = torch.randint(2, (size,)), torch.randint(8, (size,))
    x = 0.3 * torch.randn(size, 1, 8, 8)
    for i in range(size):
        x[i, 0].select(int(y[i]), int(place[i])).add_(2)
    return x, y


class Lines(Dataset[Any]):
    """Pairs of two files, the second read some lines further on."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, shift: int) -> None:
        self.x, self.y, self.shift = x, y, shift

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return {"image": self.x[index], "label": int(self.y[(index + self.shift) % len(self)])}


# -- input_label_mismatch -----------------------------------------------------------------------------------------


def pictures_shuffled_apart() -> Program:
    x, y = shapes()
    return program(mlp(64, 2), nn.CrossEntropyLoss(), TensorDataset(x, y[torch.randperm(N)]))


def clouds_shuffled_apart() -> Program:
    x, y = blobs()
    return program(mlp(8, 4), nn.CrossEntropyLoss(), TensorDataset(x, y[torch.randperm(N)]))


def two_lines_off() -> Program:
    return program(mlp(8, 4), nn.CrossEntropyLoss(), Lines(*blobs(), shift=2))


def targets_sorted_by_themselves() -> Program:
    x = torch.randn(N, 8)
    return program(mlp(8, 1), nn.MSELoss(), TensorDataset(x, x.sum(1, keepdim=True).sort(0).values))


def many_clouds_shuffled_apart() -> Program:
    x, y = blobs(3_000)
    return program(mlp(8, 4), nn.CrossEntropyLoss(), TensorDataset(x, y[torch.randperm(3_000)]))


def many_lines_one_off() -> Program:
    return program(mlp(8, 4), nn.CrossEntropyLoss(), Lines(*blobs(3_000), shift=1))


def clouds() -> Program:
    return program(mlp(8, 4), nn.CrossEntropyLoss(), TensorDataset(*blobs()))


def stripes_anywhere() -> Program:
    return program(mlp(64, 2), nn.CrossEntropyLoss(), TensorDataset(*shapes()))


def two_in_three_labels_wrong() -> Program:
    x, y = blobs()
    wrong = torch.rand(N) < 0.66
    return program(mlp(8, 4), nn.CrossEntropyLoss(), TensorDataset(x, torch.where(wrong, torch.randint(4, (N,)), y)))


def exclusive_or_of_two_among_four() -> Program:
    x = torch.randn(N, 4)
    return program(mlp(4, 2), nn.CrossEntropyLoss(), TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long()))


def parity_of_bits() -> Program:
    x = torch.randint(2, (N, 40)).float()
    return program(mlp(40, 2), nn.CrossEntropyLoss(), TensorDataset(x, x.sum(1).long() % 2))


def next_to_nothing_but_noise() -> Program:
    x = torch.randn(N, 8)
    return program(mlp(8, 1), nn.MSELoss(), TensorDataset(x, 0.05 * x[:, :1] + torch.randn(N, 1)))


def a_ring_around_a_cloud() -> Program:
    y = torch.randint(2, (N,))
    x = F.normalize(torch.randn(N, 4), dim=1) * (1 + 2 * y[:, None]) + 0.2 * torch.randn(N, 4)
    return program(mlp(4, 2), nn.CrossEntropyLoss(), TensorDataset(x, y))


def brackets_that_match() -> Program:
    words = torch.randint(2, (N, 12))
    model = nn.Sequential(nn.Embedding(2, 8), mlp(96, 2))
    return program(model, nn.CrossEntropyLoss(), TensorDataset(words, words[:, 3] ^ words[:, 8]))


def too_few_to_tell() -> Program:
    x, y = blobs(120)
    return program(mlp(8, 4), nn.CrossEntropyLoss(), TensorDataset(x, y[torch.randperm(120)]))


# -- future_leakage -----------------------------------------------------------------------------------------------


class Language(nn.Module):
    """An encoder over tokens, with a head for the next one."""

    def __init__(self, *, causal: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=dropout, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 20)
        self.causal = causal

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) if self.causal else None
        out: torch.Tensor = self.head(self.blocks(self.embed(tokens), mask=mask))
        return out


def flat(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


def text(size: int = 128) -> torch.Tensor:
    return torch.randint(1, 20, (size, 13))


def pairs(model: nn.Module, loss: Any = flat, *, by: int = 1) -> Program:
    tokens = text()
    data = TensorDataset(tokens[:, : 13 - by], tokens[:, by:])
    return program(model, loss, data)


def no_mask() -> Program:
    return pairs(Language(causal=False))


def convolution_padded_on_both_sides() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.conv = nn.Embedding(20, 8), nn.Conv1d(8, 20, 3, padding=1)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.conv(self.embed(tokens).transpose(1, 2))
            return out

    return pairs(Net(), nn.CrossEntropyLoss())


def shifted_within_an_own_step() -> Program:
    model = Language(causal=False)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        tokens = batch["tokens"]
        optimizer.zero_grad()
        loss = flat(model(tokens)[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader([{"tokens": row} for row in text()], 16)  # type: ignore[arg-type]
    return model, Trainer(SGD(model.parameters(), 1e-2), None, loader, step=step)


class Steps(nn.Module):
    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.rnn = nn.GRU(2, 16, batch_first=True, bidirectional=both)
        self.head = nn.Linear(32 if both else 16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(x)[0])
        return out


def forecast(both: bool) -> Program:
    series = torch.randn(128, 13, 2)
    return program(Steps(both=both), nn.MSELoss(), TensorDataset(series[:, :-1], series[:, 1:]))


def a_forecast_in_both_directions() -> Program:
    return forecast(True)


def the_target_is_not_shifted() -> Program:
    return pairs(Language(), by=0)


def a_causal_mask() -> Program:
    return pairs(Language(dropout=0.3))


def a_forecast_in_one_direction() -> Program:
    return forecast(False)


def tags_by_both_sides() -> Program:
    tokens = text()
    return program(Language(causal=False), flat, TensorDataset(tokens, (tokens * 7) % 19))


def words_masked_and_asked_for() -> Program:
    tokens = text()
    asked = torch.rand(tokens.shape) < 0.2
    data = TensorDataset(tokens.masked_fill(asked, 0), torch.where(asked, tokens, -100))
    return program(Language(causal=False), flat, data)


def an_autoencoder_of_texts() -> Program:
    return pairs(Language(causal=False), by=0)


def an_autoencoder_of_tables() -> Program:
    x = torch.randn(128, 6)
    return program(mlp(6, 6), nn.MSELoss(), TensorDataset(x, x.clone()))


class Remembers(nn.Module):
    """A recurrent language model that takes up where the last batch ended."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(20, 8), nn.GRU(8, 16, batch_first=True), nn.Linear(16, 20)
        self.state: torch.Tensor | None = None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out, state = self.rnn(self.embed(tokens), self.state)
        self.state = state.detach()
        scores: torch.Tensor = self.head(out)
        return scores


def a_state_that_is_carried_on() -> Program:
    return pairs(Remembers())


FAULTS: dict[str, tuple[Callable[[], Program], ...]] = {
    "input_label_mismatch": (
        *(pictures_shuffled_apart, clouds_shuffled_apart, two_lines_off, targets_sorted_by_themselves),
        *(many_clouds_shuffled_apart, many_lines_one_off),
    ),
    "future_leakage": (
        *(no_mask, convolution_padded_on_both_sides, shifted_within_an_own_step, a_forecast_in_both_directions),
        the_target_is_not_shifted,
    ),
}
HEALTHY: dict[str, tuple[Callable[[], Program], ...]] = {
    "input_label_mismatch": (
        *(clouds, stripes_anywhere, two_in_three_labels_wrong, exclusive_or_of_two_among_four, parity_of_bits),
        *(next_to_nothing_but_noise, a_ring_around_a_cloud, brackets_that_match, too_few_to_tell),
    ),
    "future_leakage": (
        *(a_causal_mask, a_forecast_in_one_direction, tags_by_both_sides, words_masked_and_asked_for),
        *(an_autoencoder_of_texts, an_autoencoder_of_tables, a_state_that_is_carried_on, clouds),
    ),
}


TESTS = told_apart(FAULTS, HEALTHY, judge=checked, causes=CAUSES, fault_seeds=[0])
test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = TESTS


def test_by_how_many_lines_labels_are_off_is_said() -> None:
    torch.manual_seed(0)
    finding = checked("input_label_mismatch", *two_lines_off()).findings[0]
    assert finding.remedies[0].code.startswith("y = y.roll(2)")
    y = torch.arange(N)
    as_read = torch.tensor([Lines(y, y, 2)[index]["label"] for index in range(N)])
    assert torch.equal(as_read.roll(2), y)  # what the advice does to what the dataset reads


def test_targets_sorted_alone_are_told_from_unrelated_ones() -> None:
    torch.manual_seed(0)
    assert checked("input_label_mismatch", *targets_sorted_by_themselves()).findings[0].severity == "critical"
    assert checked("input_label_mismatch", *clouds_shuffled_apart()).findings[0].severity == "warning"
