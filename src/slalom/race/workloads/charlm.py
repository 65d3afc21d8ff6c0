"""A character-level language model of Python: a small GPT reads the source text of the standard library."""

from __future__ import annotations

import hashlib
import string
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from slalom.race.workload import Workload
from slalom.race.workloads.schedules import warmup_cosine

CHARACTERS = 1_000_000
BLOCKS = 20
ALPHABET = string.ascii_letters + string.digits + string.punctuation + " \n"
OTHER = len(ALPHABET)
CONTEXT = 64
BATCH = 16
WINDOWS = 64


class Text(NamedTuple):
    """Character codes for training and validation, with the digest of the text they come from."""

    train: Tensor
    validation: Tensor
    sha256: str


def standard_library(length: int = CHARACTERS) -> str:
    """Return the first characters of the standard library's top-level modules, in alphabetical order.

    The text differs between versions of Python; its digest is recorded with every result.
    """
    pieces: list[str] = []
    missing = length
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        piece = path.read_text(encoding="utf-8", errors="replace")[:missing]
        pieces.append(piece)
        missing -= len(piece)
        if missing == 0:
            break
    return "".join(pieces)


@lru_cache(maxsize=1)
def text() -> Text:
    """Encode the text; the last tenth of each of twenty contiguous blocks is held out.

    One held-out stretch at the end would be a test of whether one kind of module resembles the others.
    """
    source = standard_library()
    code = dict(zip(ALPHABET, range(len(ALPHABET)), strict=True))
    codes = torch.tensor([code.get(character, OTHER) for character in source])
    block = len(codes) // BLOCKS
    blocks = codes[: block * BLOCKS].view(BLOCKS, block)
    cut = block * 9 // 10
    digest = hashlib.sha256(source.encode()).hexdigest()
    return Text(blocks[:, :cut].flatten(), blocks[:, cut:].flatten(), digest)


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and around a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (batch, time, width)."""
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        hidden = functional.gelu(self.up(self.norm2(x)), approximate="tanh")
        output: Tensor = x + self.down(hidden)
        return output


class Gpt(nn.Module):
    """A decoder-only transformer that normalises before each layer, with learned positions."""

    def __init__(self, symbols: int, width: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols, bias=False)
        # GPT-2's 0.02 is meant for a width of 768; at 64 it makes a run wait at a plateau for a time that depends on
        # the seed more than on the optimizer.
        std = 0.5 / width**0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # What writes into the residual stream starts smaller: the stream adds up 2 x layers of them.
                writes = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=std / (2 * layers) ** 0.5 if writes else std)

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the logits of each next symbol."""
        positions = torch.arange(symbols.shape[1], device=symbols.device)
        x = self.embedding(symbols) + self.position(positions)
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class CharLm(Workload[Tensor]):
    """Characters of Python's standard library, two-layer GPT."""

    name = "charlm"
    steps = 400
    lr_scale = 6.0
    # Where torch's AdamW at its best rate (0.003 of 0.001, 0.003, 0.01; median of 3 seeds) is after 68 % of the steps.
    target = 2.08

    def model(self) -> nn.Module:
        """Return a GPT of about 0.1 million parameters."""
        return Gpt(symbols=OTHER + 1, width=64, layers=2, heads=4, context=CONTEXT)

    def batches(self, generator: Generator) -> Iterator[Tensor]:
        """Cut windows at random places; one symbol longer than the context, because the target is shifted."""
        windows = text().train.unfold(0, CONTEXT + 1, 1)
        while True:
            yield windows[torch.randint(len(windows), (BATCH,), generator=generator)]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return nats per character."""
        logits = model(batch[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(self, model: nn.Module) -> dict[str, float | Tensor]:
        """Return nats per character on fixed windows, spread evenly over the held-out text."""
        held_out = text().validation
        starts = torch.linspace(0, len(held_out) - CONTEXT - 1, WINDOWS).long()
        windows = held_out[starts[:, None] + torch.arange(CONTEXT + 1)]
        return {"loss": self.loss(model, windows)}

    def schedule(self, progress: float) -> float:
        """Warm up, then follow a cosine."""
        return warmup_cosine(progress)

    def data_hash(self) -> str:
        """Return the digest of the text."""
        return text().sha256
