"""A convolutional autoencoder of pictures (1, 28, 28) in [0, 1]: what it takes is what it shall give, Adam."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Trainer

FAULTS = {
    "sigmoid and logits": "sigmoid_before_bce_with_logits",
    "activations of the decoder not called": "missing_nonlinearity",
    "weights_init that fills": "symmetric_initialization",
    "encoder frozen, never loaded": "frozen_parameters",
    "step that never comes": "optimizer_step_missing",
    "the first batch again": "repeated_batch",
    "divided as whole numbers": "constant_input",
    "summed over all pixels": "loss_reduction_sum",
}


def strokes(count: int, rng: np.random.Generator) -> np.ndarray:
    """Two soft strokes each, as uint8 (N, 28, 28)."""
    rows, columns = np.mgrid[0:28, 0:28].astype(float)
    pictures = np.zeros((count, 28, 28))
    for _ in range(2):
        x, y = rng.uniform(7, 21, (2, count, 1, 1))
        angle, length = rng.uniform(0, np.pi, (count, 1, 1)), rng.uniform(4, 9, (count, 1, 1))
        along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        across = -(columns - x) * np.sin(angle) + (rows - y) * np.cos(angle)
        pictures = np.maximum(pictures, np.exp(-((across / 1.5) ** 2)) * (np.abs(along) < length))
    return (250 * pictures).round().astype(np.uint8)


class Encoder(nn.Module):
    def __init__(self, width, code):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.fc = nn.Linear(2 * width * 7 * 7, code)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return self.fc(x.flatten(1))


class Decoder(nn.Module):
    def __init__(self, width, code, fault):
        super().__init__()
        self.width, self.fault = width, fault
        self.fc = nn.Linear(code, 2 * width * 7 * 7)
        self.deconv1 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.deconv2 = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)
        self.act = nn.ReLU()
        self.out = nn.Sigmoid()

    def forward(self, z):
        z = self.fc(z).view(-1, 2 * self.width, 7, 7)
        if self.fault == "activations of the decoder not called":
            return self.out(self.deconv2(self.deconv1(z)))
        return self.out(self.deconv2(self.act(self.deconv1(self.act(z)))))


class AutoEncoder(nn.Module):
    def __init__(self, width=8, code=16, fault=None):
        super().__init__()
        self.encoder = Encoder(width, code)
        self.decoder = Decoder(width, code, fault)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def weights_init(module):
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        module.weight.data.fill_(0.02)  # normal_(0, 0.02) was meant
        module.bias.data.fill_(0)


class FirstAgain:
    """Batches of a loader, fetched one by one."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for _ in range(len(self.loader)):
            yield next(iter(self.loader))


def build(fault: str | None = None, *, seed: int = 0) -> tuple[nn.Module, Trainer]:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    pictures = torch.from_numpy(strokes(1200, rng)).unsqueeze(1)
    pictures = (pictures // 255).float() if fault == "divided as whole numbers" else pictures.float() / 255
    train_set, val_set = TensorDataset(pictures[:1024]), TensorDataset(pictures[1024:])

    model = AutoEncoder(fault=fault)
    if fault == "weights_init that fills":
        model.apply(weights_init)
    if fault == "encoder frozen, never loaded":
        model.encoder.requires_grad_(False)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    criterion = nn.BCEWithLogitsLoss() if fault == "sigmoid and logits" else nn.BCELoss()
    if fault == "summed over all pixels":
        criterion = nn.BCELoss(reduction="sum")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    accumulate = 2
    seen = {"batches": 0}

    def step(model, batch, loss_fn, optimizer):
        (images,) = batch
        optimizer.zero_grad()
        output = model(images)
        loss = loss_fn(output, images)
        loss.backward()
        seen["batches"] += 1
        if fault != "step that never comes" or seen["batches"] % accumulate == accumulate:
            optimizer.step()
        return {"loss": loss, "output": output, "target": images}

    def eval_step(model, batch, loss_fn):
        (images,) = batch
        output = model(images)
        return {"loss": loss_fn(output, images), "output": output, "target": images}

    again = fault == "the first batch again"
    loader = DataLoader(train_set, batch_size=32, shuffle=not again)
    trainer = Trainer(
        optimizer,
        criterion,
        FirstAgain(loader) if again else loader,
        DataLoader(val_set, batch_size=64),
        step=step,
        eval_step=eval_step,
    )
    return model, trainer
