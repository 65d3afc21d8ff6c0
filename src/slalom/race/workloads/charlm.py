"""Character-level language models of Python: a GPT or an LSTM reads the source text of the standard library."""

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

from slalom.race.workload import Workload, variant
from slalom.race.workloads.nets import Gpt, Norm
from slalom.race.workloads.schedules import warmup_cosine

CHARACTERS = 1_000_000
BLOCKS = 20
ALPHABET = string.ascii_letters + string.digits + string.punctuation + " \n"
OTHER = len(ALPHABET)
CONTEXT = 64
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


class Lstm(nn.Module):
    """A recurrent network with gates."""

    def __init__(self, symbols: int, width: int, layers: int, forget: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, symbols, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.normal_(self.head.weight, std=0.5 / width)
        with torch.no_grad():
            for name, parameter in self.lstm.named_parameters():
                if name.startswith("bias_ih"):
                    # The gates come as input, forget, cell, output.
                    parameter[width : 2 * width] += forget

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the logits of each next symbol."""
        states, _ = self.lstm(self.embedding(symbols))
        logits: Tensor = self.head(states)
        return logits


class Characters(Workload[Tensor]):
    """Predict the next character of Python's standard library; the subclasses choose the model."""

    lr_scale = 6.0
    batch = 16

    def batches(self, generator: Generator) -> Iterator[Tensor]:
        """Cut windows at random places; one symbol longer than the context, because the target is shifted."""
        windows = text().train.unfold(0, CONTEXT + 1, 1)
        while True:
            yield windows[torch.randint(len(windows), (self.batch,), generator=generator)]

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


class CharLm(Characters):
    """Characters of Python's standard library, two-layer GPT."""

    name = "charlm"
    steps = 400
    width = 64
    layers = 2
    heads = 4
    norm: Norm = "pre"
    activation = "gelu"
    init = 1.0

    def model(self) -> nn.Module:
        """Return a GPT; of about 0.1 million parameters, unless it is a variant."""
        return Gpt(OTHER + 1, CONTEXT, self.width, self.layers, self.heads, self.norm, self.activation, self.init)


class CharLstm(Characters):
    """Characters of Python's standard library, one-layer LSTM."""

    name = "charlstm"
    steps = 300
    width = 80
    layers = 1
    forget = 1.0

    def model(self) -> nn.Module:
        """Return an LSTM whose forget gates start open."""
        return Lstm(OTHER + 1, self.width, self.layers, self.forget)


# Tokens per parameter of the size ladder, the same at every size: a larger model trains for longer.
TOKENS_PER_PARAMETER = 4


def ladder() -> list[CharLm]:
    """Return the character GPT at four sizes, to see whether an advantage survives a larger model."""
    found = []
    for size, width, layers in (("xs", 24, 1), ("s", 40, 2), ("m", 64, 3), ("l", 80, 4)):
        workload = variant(CharLm(), size, f"{layers} layers of width {width}", width=width, layers=layers, batch=8)
        # Without `base`: a size is a workload of its own and holds nobody's place.
        workload.base, workload.tier = None, "ladder"
        with torch.random.fork_rng(devices=[]):
            workload.size = sum(parameter.numel() for parameter in workload.model().parameters())
        workload.steps = round(TOKENS_PER_PARAMETER * workload.size / (8 * CONTEXT))
        found.append(workload)
    return found
