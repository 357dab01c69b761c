"""A small ResNet that tells ten textures apart, pictures as in CIFAR-10: (3, 32, 32), SGD with momentum."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nbdebug import Trainer

MEAN, STD = torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1), torch.tensor([0.25, 0.25, 0.25]).view(3, 1, 1)
FAULTS = {
    "softmax in a helper": "softmax_before_cross_entropy",
    "step schedule per batch": "lr_schedule_collapse",
    "functional dropout": "missing_eval_mode",
    "plain convolutions initialised with randn": "bad_initialization",
}


def textures(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Stripes in one of five directions and two colours, as uint8 (N, 32, 32, 3), and their classes."""
    labels = rng.integers(0, 10, count)
    angle = (labels % 5) * np.pi / 5 + rng.normal(0, 0.08, count)
    rows, columns = np.mgrid[0:32, 0:32]
    wave = rows * np.sin(angle)[:, None, None] + columns * np.cos(angle)[:, None, None]
    stripes = np.sin(0.9 * wave + rng.uniform(0, 2 * np.pi, (count, 1, 1)))
    tint = np.where((labels < 5)[:, None], [1.0, 0.6, 0.3], [0.3, 0.6, 1.0])
    pictures = 127 + 55 * stripes[..., None] * tint[:, None, None, :] + rng.normal(0, 30, (count, 32, 32, 3))
    return pictures.clip(0, 255).astype(np.uint8), labels


class Pictures(Dataset):
    def __init__(self, pictures, labels, *, train: bool):
        self.pictures, self.labels, self.train = pictures, labels, train

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        picture = torch.from_numpy(self.pictures[index]).permute(2, 0, 1)
        picture = (picture.float() / 255 - MEAN) / STD
        if self.train:
            top, left = torch.randint(0, 5, (2,)).tolist()
            picture = F.pad(picture, (2, 2, 2, 2))[:, top : top + 32, left : left + 32]
        return picture, int(self.labels[index])


class BasicBlock(nn.Module):
    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, num_classes=10, *, normalise_scores=False, drop=False):
        super().__init__()
        self.normalise_scores, self.drop = normalise_scores, drop
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = BasicBlock(8, 8)
        self.layer2 = BasicBlock(8, 16, stride=2)
        self.layer3 = BasicBlock(16, 32, stride=2)
        self.linear = nn.Linear(32, num_classes)

    def scores(self, features):
        logits = self.linear(features)
        if self.normalise_scores:  # "so that predict() gives probabilities"
            shifted = logits - logits.amax(dim=-1, keepdim=True)
            return shifted.exp() / shifted.exp().sum(dim=-1, keepdim=True)
        return logits

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)
        if self.drop:
            out = F.dropout(out, 0.3)
        return self.scores(out)


class PlainNet(nn.Module):
    """Before it had norms and shortcuts."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in [(3, 8), (8, 8), (8, 16), (16, 32)])
        self.linear = nn.Linear(32, num_classes)
        for conv in self.convs:
            conv.weight = nn.Parameter(torch.randn_like(conv.weight))

    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(F.relu(conv(x)), 2)
        return self.linear(x.mean(dim=(2, 3)))


def accuracy(output, target):
    return (output.argmax(1) == target).float().mean().item()


def build(fault: str | None = None, *, seed: int = 0) -> tuple[nn.Module, Trainer]:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    pictures, labels = textures(1280, rng)
    train_set = Pictures(pictures[:1024], labels[:1024], train=True)
    val_set = Pictures(pictures[1024:], labels[1024:], train=False)

    model: nn.Module = ResNet(normalise_scores=fault == "softmax in a helper", drop=fault == "functional dropout")
    if fault == "plain convolutions initialised with randn":
        model = PlainNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    interval, step = "epoch", None
    if fault == "step schedule per batch":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1)  # "ten epochs each"
        interval = "manual"

        def step(model, batch, loss_fn, optimizer):
            images, targets = batch
            optimizer.zero_grad()
            outputs = model(images)
            loss = loss_fn(outputs, targets)
            loss.backward()
            optimizer.step()
            scheduler.step()
            return {"loss": loss, "output": outputs, "target": targets}

    trainer = Trainer(
        optimizer,
        nn.CrossEntropyLoss(),
        DataLoader(train_set, batch_size=32, shuffle=True),
        DataLoader(val_set, batch_size=64),
        scheduler=scheduler,
        scheduler_interval=interval,
        metrics={"accuracy": accuracy},
        step=step,
    )
    return model, trainer
