"""Sound programs whose way of training looks wrong at first sight: schedules, losses, steps, what is frozen."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import Cnn, Gpt, Recurrent, ResNet, TextTransformer, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
suspicious = SHELF.suspicious


def pretrained(model, x, y, steps=80, lr=1e-2):
    """The model after some training of its own, as if its weights had been downloaded."""
    optimizer = Adam(model.parameters(), lr)
    for _ in range(steps):
        chosen = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model


# -- what is frozen, what is fine-tuned ------------------------------------------------------------------------------


@suspicious(family="resnet", task="classification")
def fine_tuned_head_on_a_frozen_backbone() -> Made:
    model = pretrained(ResNet(width=12), *data.pictures(400), steps=40)
    for parameter in model.parameters():
        parameter.requires_grad = False
    x, y = data.pictures()
    model.fc = nn.Linear(12, 2)
    return model, Trainer(Adam(model.fc.parameters(), 1e-2), nn.CrossEntropyLoss(), *data.loaders(x, (y >= 2).long()))


@suspicious(family="cnn", task="classification")
def frozen_pretrained_layers_still_in_the_optimizer() -> Made:
    x, y = data.digits(1200)
    model = pretrained(Cnn(classes=10), x[:400], y[:400])
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("conv2", "bn2", "fc"))
    model.fc = nn.Linear(model.fc.in_features, 10)
    return model, Trainer(Adam(model.parameters(), 2e-3), nn.CrossEntropyLoss(), *data.loaders(x[400:], y[400:]))


@suspicious(family="cnn", task="classification")
def batch_norm_frozen_in_eval_mode() -> Made:
    x, y = data.pictures(800)
    model = pretrained(Cnn(), x[:300], y[:300], steps=20)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, 4)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(x[300:], y[300:]))


@suspicious(family="mlp", task="classification")
def smaller_rates_for_pretrained_layers() -> Made:
    x, y = data.digits(1200)
    model = pretrained(nn.Sequential(nn.Flatten(), mlp(64, 64, 32, 10)), x[:400], y[:400])
    model.append(nn.Sequential(nn.ReLU(), nn.Linear(10, 2)))
    groups = [{"params": model[1].parameters(), "lr": 1e-5}, {"params": model[2].parameters(), "lr": 2e-2}]
    return model, Trainer(AdamW(groups), nn.CrossEntropyLoss(), *data.loaders(x[400:], y[400:] % 2))


class Lora(nn.Module):
    """A frozen linear layer with a trainable product of two small matrices beside it, the second zero at first."""

    def __init__(self, base, rank=4):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + 2.0 * (x @ self.a.T @ self.b.T)


@suspicious(family="mlp", task="classification")
def lora_beside_frozen_layers() -> Made:
    x, y = data.digits(1200)
    net = pretrained(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), x[:400], y[:400], steps=15
    )
    net[1], net[3] = Lora(net[1]), Lora(net[3])
    trainable = [p for p in net.parameters() if p.requires_grad]
    mirrored = x[400:].flip(-1)
    return net, Trainer(AdamW(trainable, 2e-2), nn.CrossEntropyLoss(), *data.loaders(mirrored, y[400:]))


@suspicious(family="mlp", task="classification")
def second_head_for_later() -> Made:
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(10, 48), nn.ReLU())
            self.class_head = nn.Linear(48, 4)
            self.value_head = nn.Linear(48, 1)  # trained in the second phase

        def forward(self, x, want_value=False):
            h = self.body(x)
            return self.value_head(h) if want_value else self.class_head(h)

    model = TwoHeads()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(*data.blobs()))


# -- schedules and optimizers ----------------------------------------------------------------------------------------


@suspicious(family="resnet", task="classification")
def one_cycle_from_a_tiny_rate() -> Made:
    x, y = data.pictures()
    model = ResNet()
    train, val = data.loaders(x, y)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = OneCycleLR(optimizer, max_lr=0.2, epochs=5, steps_per_epoch=len(train))
    loss_fn = nn.CrossEntropyLoss()
    return model, Trainer(optimizer, loss_fn, train, val, scheduler=schedule, scheduler_interval="batch")


@suspicious(family="transformer", task="language model", steps=60)
def warm_up_from_zero() -> Made:
    text = data.sentences()
    model = Gpt(layers=2)
    optimizer = AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = LambdaLR(optimizer, lambda step: min(1.0, step / 30))  # the first step's rate is zero

    def loss_fn(logits, target):
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    batches = data.loader(text[:, :-1], text[:, 1:])
    return model, Trainer(optimizer, loss_fn, batches, scheduler=schedule, scheduler_interval="batch")


@suspicious(family="mlp", task="regression", steps=8)
def lbfgs_on_all_of_it() -> Made:
    x, y = data.table(200)
    model = mlp(8, 16, 1, activation=nn.Tanh)
    optimizer = LBFGS(model.parameters(), lr=0.5, max_iter=10)
    return model, Trainer(optimizer, nn.MSELoss(), [(x, y[:, None])])


@suspicious(family="gru", task="regression")
def rate_that_waits_for_a_plateau() -> Made:
    x, y = data.forecasts()
    model = Recurrent(nn.GRU, outputs=1)
    optimizer = RMSprop(model.parameters(), 3e-3)
    train, val = data.loaders(x, y[:, None])
    return model, Trainer(optimizer, nn.SmoothL1Loss(), train, val, scheduler=ReduceLROnPlateau(optimizer, patience=2))


@suspicious(family="cnn", task="classification")
def strong_decay_and_momentum_as_in_papers() -> Made:
    x, y = data.digits(800)
    model = Cnn(classes=10)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    train, val = data.loaders(x, y, batch=64)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), train, val, scheduler=CosineAnnealingLR(optimizer, 20))


# -- steps of one's own ----------------------------------------------------------------------------------------------


@suspicious(family="transformer", task="classification", steps=120)
def accumulated_over_four_batches() -> Made:
    words, y = data.texts()
    model = TextTransformer()
    done = {"batches": 0}

    def step(model, batch, loss_fn, optimizer):
        text, label = batch
        loss = loss_fn(model(text), label) / 4
        loss.backward()
        done["batches"] += 1
        if done["batches"] % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss * 4

    optimizer = AdamW(model.parameters(), 4e-3)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), data.loader(words, y, batch=8), step=step)


@suspicious(family="gru", task="classification", steps=80)
def clipped_in_the_step() -> Made:
    x, y = data.waves()
    model = Recurrent(nn.GRU)

    def step(model, batch, criterion, optimizer):
        sequence, label = batch
        optimizer.zero_grad()
        loss = criterion(model(sequence), label)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss.item()

    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), data.loader(x, y), step=step)


@suspicious(family="cnn", task="classification")
def autocast_to_bfloat16() -> Made:
    x, y = data.pictures()
    model = Cnn()

    def step(model, batch, loss_fn, optimizer):
        image, label = batch
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(image)
            loss = loss_fn(output, label)
        loss.backward()
        optimizer.step()
        return {"loss": loss, "output": output.float(), "target": label}

    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), data.loader(x, y), step=step)


@suspicious(family="mlp", task="regression")
def activations_recomputed() -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
            self.last = nn.Linear(64, 1)

        def forward(self, x):
            return self.last(checkpoint(self.first, x, use_reentrant=False))

    x, y = data.table()
    model = Net()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), *data.loaders(x, y.unsqueeze(1)))


@suspicious(family="mlp", task="classification")
def mixed_up_samples_and_targets() -> Made:
    x, y = data.digits()
    model = nn.Sequential(nn.Flatten(), mlp(64, 96, 10))

    def step(model, batch, loss_fn, optimizer):
        image, label = batch
        target = F.one_hot(label, 10).float()
        share = torch.distributions.Beta(0.4, 0.4).sample()
        other = torch.randperm(len(image))
        image, target = share * image + (1 - share) * image[other], share * target + (1 - share) * target[other]
        loss = loss_fn(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), data.loader(x, y), step=step)


@suspicious(family="mlp", task="classification")
def student_of_a_frozen_teacher() -> Made:
    x, y = data.digits(1200)
    teacher = pretrained(nn.Sequential(nn.Flatten(), mlp(64, 96, 10)), x[:500], y[:500]).eval().requires_grad_(False)
    student = nn.Sequential(nn.Flatten(), mlp(64, 32, 10))

    def step(model, batch, loss_fn, optimizer):
        image, label = batch
        with torch.no_grad():
            soft = F.softmax(teacher(image) / 2, dim=1)
        scores = model(image)
        loss = 4 * loss_fn(F.log_softmax(scores / 2, dim=1), soft) + 0.3 * F.cross_entropy(scores, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    loss_fn = nn.KLDivLoss(reduction="batchmean")
    return student, Trainer(Adam(student.parameters(), 3e-3), loss_fn, data.loader(x[500:], y[500:]), step=step)


@suspicious(family="gan", task="generation", steps=60, falls=False)
def generator_and_discriminator() -> Made:
    generator = mlp(8, 32, 32, 2, activation=nn.ReLU)
    critic = mlp(2, 32, 32, 1, activation=lambda: nn.LeakyReLU(0.2))
    real, _ = data.moons(1000)
    loss_fn = nn.BCEWithLogitsLoss()

    def step(models, batch, loss_fn, optimizers):
        (points,) = batch
        ones, zeros = torch.ones(len(points), 1), torch.zeros(len(points), 1)
        fake = models["generator"](torch.randn(len(points), 8))
        d_loss = loss_fn(models["critic"](points), ones) + loss_fn(models["critic"](fake.detach()), zeros)
        optimizers["critic"].zero_grad()
        d_loss.backward()
        optimizers["critic"].step()
        g_loss = loss_fn(models["critic"](fake), ones)
        optimizers["generator"].zero_grad()
        g_loss.backward()
        optimizers["generator"].step()
        return d_loss.detach() + g_loss.detach()

    optimizers = {
        "generator": Adam(generator.parameters(), 2e-4, betas=(0.5, 0.999)),
        "critic": Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999)),
    }
    loader = DataLoader(TensorDataset(real), 50, shuffle=True)
    return {"generator": generator, "critic": critic}, Trainer(optimizers, loss_fn, loader, step=step)


@suspicious(family="mlp", task="representation", steps=60)
def target_network_follows_slowly() -> Made:
    class Byol(nn.Module):
        def __init__(self):
            super().__init__()
            self.online = mlp(10, 48, 16)
            self.predictor = mlp(16, 32, 16)
            self.target = copy.deepcopy(self.online).requires_grad_(False)

    x, _ = data.blobs()
    model = Byol()

    def step(model, batch, loss_fn, optimizer):
        (x,) = batch
        one, two = x + 0.2 * torch.randn_like(x), x + 0.2 * torch.randn_like(x)
        with torch.no_grad():
            goal = F.normalize(model.target(two), dim=1)
        loss = 2 - 2 * (F.normalize(model.predictor(model.online(one)), dim=1) * goal).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(model.target.parameters(), model.online.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
        return loss

    trained = [*model.online.parameters(), *model.predictor.parameters()]
    return model, Trainer(Adam(trained, 3e-3), None, DataLoader(TensorDataset(x), 64, shuffle=True), step=step)


@suspicious(family="mlp", task="policy", steps=120, falls=False)
def policy_gradient_of_a_bandit() -> Made:
    x, y = data.blobs(classes=3)
    policy = mlp(10, 32, 3)

    def step(model, batch, loss_fn, optimizer):
        state, best = batch
        chance = torch.distributions.Categorical(logits=model(state))
        action = chance.sample()
        reward = (action == best).float()
        loss = -(chance.log_prob(action) * (reward - reward.mean())).mean() - 0.01 * chance.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return policy, Trainer(Adam(policy.parameters(), 5e-3), None, data.loader(x, y), step=step)
