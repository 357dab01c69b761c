"""A small GPT over characters, in the manner of minGPT: AdamW with groups, clipping at 1, its own training step."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nbdebug import Trainer

BLOCK = 32
FAULTS = {
    "mask one too far": "target_leakage",
    "embeddings in no group": "parameters_not_in_optimizer",
    "accumulation left over": "zero_grad_missing",
    "dropout taken as keep": "dropout_too_high",
    "targets not shifted": "target_leakage",
}


def text_of(rng: np.random.Generator, words: int = 4000) -> str:
    """Sentences of thirty words, each of which is followed by one of three others."""
    letters = np.array(list("abcdefghijklmnoprstuvwy"))
    vocabulary = ["".join(rng.choice(letters, rng.integers(2, 7))) for _ in range(30)]
    follows = rng.integers(0, 30, (30, 3))
    word, said = 0, []
    for _ in range(words):
        said.append(vocabulary[word] + (". " if rng.random() < 0.1 else " "))
        word = follows[word, rng.choice(3, p=[0.6, 0.3, 0.1])]
    return "".join(said)


class CharDataset(Dataset):
    def __init__(self, text: str, chars: list[str], *, shift: int = 1, stride: int = 7):
        index = {char: place for place, char in enumerate(chars)}
        self.data = torch.tensor([index[char] for char in text])
        self.shift, self.stride = shift, stride

    def __len__(self):
        return (len(self.data) - BLOCK - 1) // self.stride

    def __getitem__(self, place):
        start = place * self.stride
        chunk = self.data[start : start + BLOCK + 1]
        return chunk[:BLOCK], chunk[self.shift : BLOCK + self.shift]


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head, drop, diagonal):
        super().__init__()
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.attn_dropout = nn.Dropout(drop)
        self.resid_dropout = nn.Dropout(drop)
        self.register_buffer("bias", torch.tril(torch.ones(BLOCK, BLOCK), diagonal=diagonal).view(1, 1, BLOCK, BLOCK))
        self.n_head = n_head

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in (q, k, v))
        att = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        y = self.attn_dropout(F.softmax(att, dim=-1)) @ v
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C)))


class Block(nn.Module):
    def __init__(self, n_embd, n_head, drop, diagonal):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = CausalSelfAttention(n_embd, n_head, drop, diagonal)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd), nn.Dropout(drop)
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, vocab_size, n_embd=48, n_head=3, n_layer=2, drop=0.1, diagonal=0):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(BLOCK, n_embd)
        self.drop = nn.Dropout(drop)
        self.h = nn.ModuleList(Block(n_embd, n_head, drop, diagonal) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.apply(self._init_weights)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * n_layer))

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, idx):
        pos = torch.arange(idx.size(1), device=idx.device).unsqueeze(0)
        x = self.drop(self.wte(idx) + self.wpe(pos))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def configure_optimizers(model, fault):
    decay, no_decay = set(), set()
    for module_name, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            full = f"{module_name}.{name}"
            if name.endswith("bias"):
                no_decay.add(full)
            elif isinstance(module, nn.Linear):
                decay.add(full)
            elif isinstance(module, (nn.LayerNorm, nn.Embedding)) and fault != "embeddings in no group":
                no_decay.add(full)
    params = dict(model.named_parameters())
    groups = [
        {"params": [params[name] for name in sorted(decay)], "weight_decay": 0.1},
        {"params": [params[name] for name in sorted(no_decay)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))


def loss_of(logits, targets):
    return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))


def build(fault: str | None = None, *, seed: int = 0) -> tuple[nn.Module, Trainer]:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    text = text_of(rng)
    chars = sorted(set(text))
    cut = int(len(text) * 0.9)
    shift = 0 if fault == "targets not shifted" else 1
    train_set = CharDataset(text[:cut], chars, shift=shift)
    val_set = CharDataset(text[cut:], chars, shift=shift, stride=BLOCK)

    drop = 0.9 if fault == "dropout taken as keep" else 0.1
    model = GPT(len(chars), drop=drop, diagonal=1 if fault == "mask one too far" else 0)
    optimizer = configure_optimizers(model, fault)
    seen = {"batches": 0}

    def step(model, batch, loss_fn, optimizer):
        x, y = batch
        if fault == "accumulation left over":  # the loop once accumulated over four batches
            if seen["batches"] % 4 == 0:
                optimizer.zero_grad(set_to_none=True)
            seen["batches"] += 1
        else:
            optimizer.zero_grad(set_to_none=True)
        logits = model(x)
        loss = loss_fn(logits, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {"loss": loss, "output": logits, "target": y}

    trainer = Trainer(
        optimizer,
        loss_of,
        DataLoader(train_set, batch_size=32, shuffle=True, drop_last=True),
        DataLoader(val_set, batch_size=32),
        step=step,
    )
    return model, trainer
