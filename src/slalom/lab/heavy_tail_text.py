"""P7 on text: next words of the standard library, and what Adam and SGD learn of frequent and of rare ones."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from slalom.errors import UsageError
from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture
from slalom.race.workloads.charlm import standard_library

_SGD, _ADAM = "sgd:lr=1.0,momentum=0.9", "adam:lr=0.01"
_CHARACTERS = 2_000_000
_CONTEXT = 4  # words before the one that is asked for
_TENTHS = 10
_LOOKED_AT = 4096
_LOOKS = 20


@phenomenon
@dataclass(frozen=True)
class HeavyTailText(Phenomenon):
    """A small network predicts the next word; its loss is told for each tenth of the text, frequent words to rare ones.

    Args:
        recipes: who trains.
        lr: the rate of those that do not name their own.
        steps: of training.
        words: that are known, the most frequent ones; others are left out of the text.
        width: of embeddings and of the one hidden layer.
        batch: places in the text per step.
    """

    recipes: tuple[str, ...] = (_SGD, _ADAM)
    lr: float = 0.01
    steps: int = 600
    words: int = 2048
    width: int = 64
    batch: int = 512

    name: ClassVar = "heavy-tail-text"
    title: ClassVar = "rare words on real text: what SGD leaves out"
    source: ClassVar = "Kunstner et al. 2024 (NeurIPS), arXiv:2402.19449"
    claim: ClassVar = (
        "Sort words by how frequent they are and cut the text into ten parts of equal weight: three words make up the"
        " first, a thousand the last. SGD and Adam learn the frequent words alike. On the rare ones SGD makes no "
        "progress while Adam does, and as every part counts the same, that is most of what sets them apart. A "
        "rare word's gradient is seldom and small; Adam divides its size away."
    )
    here: ClassVar = (
        "The paper trains GPT-2 small on WikiText-103. Here: the words (letters only, in small) of Python's standard "
        "library, four words of context, one hidden layer of 64; losses are on 4096 places of the same text. Rates were"
        " chosen by the loss after 600 steps at one seed: SGD from 0.03, 0.1, 0.3, 1, 2, 4 (4 diverges), Adam from "
        "0.001, 0.003, 0.01, 0.02, 0.03. The text differs between versions of Python."
    )
    signs: ClassVar = (
        Sign("rare", "the rarest tenth: loss of SGD less that of Adam", "paper: Adam's is far lower", low=0.8),
        Sign("frequent", "the most frequent tenth: the same", "paper: alike", high=0.4),
        Sign("sgd", "SGD: what is gone of the rarest tenth's loss, as a share of the start", "paper: no progress",
             high=0.1),
        Sign("adam", "Adam: the same", "paper: progress on all", low=0.1),
        Sign("whole", "all of the text: loss of SGD less that of Adam", "paper: Adam trains faster", low=0.1),
    )  # fmt: skip
    seeds: ClassVar = 2
    seconds: ClassVar = (35.0, 12.0)
    quick: ClassVar = {"steps": 400}
    variants: ClassVar = {
        "heavy-tail-text lion:lr=0.001 muon:lr=0.02 adagrad:lr=0.1": "who else learns rare words",
        "heavy-tail-text:words=256": "fewer, more frequent words: the gap closes",
        "heavy-tail": "the mechanism alone, in exact arithmetic",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train with every recipe from the same start on the same batches."""
        codes, counts = _text(self.words)
        share = counts / counts.sum()
        tenth = ((share.cumsum(0) - share / 2) * _TENTHS).long().clamp(max=_TENTHS - 1)
        windows = codes.unfold(0, _CONTEXT + 1, 1)
        looked_at = windows[torch.randint(len(windows), (_LOOKED_AT,), generator=torch.Generator().manual_seed(0))]
        which = tenth[looked_at[:, -1]]
        paths: dict[str, list[list[float]]] = {}
        looks = sorted({round(self.steps * k / _LOOKS) for k in range(_LOOKS + 1)})
        for place, word in enumerate(self.recipes):
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                model = _Network(len(counts), self.width)
            optimizer = build(word, list(model.parameters()), lr=self.lr)
            generator = torch.Generator().manual_seed(seed)
            paths[word] = []
            for step in range(self.steps + 1):
                if step in looks:
                    losses = _losses(model, looked_at)
                    paths[word].append(
                        [float(losses[which == k].mean()) for k in range(_TENTHS)] + [float(losses.mean())]
                    )
                    progress((place + step / self.steps) / len(self.recipes))
                batch = windows[torch.randint(len(windows), (self.batch,), generator=generator)]
                optimizer.zero_grad()
                functional.cross_entropy(model(batch[:, :-1]), batch[:, -1]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        first, last = 0, _TENTHS - 1
        sizes = torch.bincount(tenth, minlength=_TENTHS).tolist()
        rows: dict[str, tuple[float | None, ...]] = {"words in it": (*map(float, sizes), float(sum(sizes)))}
        rows |= {word: tuple(path[-1]) for word, path in paths.items()}
        head = ("tenth of the text", *(str(k + 1) for k in range(_TENTHS)), "all")
        return Run(_values(paths, first, last), _pictures(paths, looks, first, last), Table(head, rows))


def _values(paths: dict[str, list[list[float]]], first: int, last: int) -> dict[str, float]:
    values = {}
    for key, word in (("sgd", _SGD), ("adam", _ADAM)):
        if word in paths:
            path = paths[word]
            values[key] = (path[0][last] - path[-1][last]) / path[0][last]
    if _SGD in paths and _ADAM in paths:
        for key, place in (("rare", last), ("frequent", first), ("whole", -1)):
            values[key] = paths[_SGD][-1][place] - paths[_ADAM][-1][place]
    return values


def _pictures(paths: dict[str, list[list[float]]], looks: list[int], first: int, last: int) -> dict[str, Picture]:
    tenths = range(1, _TENTHS + 1)
    start = next(iter(paths.values()))[0]
    ends = (
        *(Curve(tenths, path[-1][:_TENTHS], word) for word, path in paths.items()),
        Curve(tenths, start[:_TENTHS], "before training"),
    )
    ways = tuple(
        Curve(looks, [look[place] for look in path], f"{word}, {words}")
        for place, words in ((first, "frequent"), (last, "rare"))
        for word, path in paths.items()
    )
    return {
        "Loss in the end, by tenths of the text": Picture(
            ends, "tenth of the text, frequent words to rare ones", "loss"
        ),
        "The most frequent tenth and the rarest": Picture(ways, "steps", "loss"),
    }


@lru_cache(maxsize=1)
def _text(most: int) -> tuple[Tensor, Tensor]:
    """Return the text in words, as their ranks, and how often each word occurs."""
    if most < _TENTHS:
        raise UsageError(f"words={most}: give {_TENTHS} or more.")
    words = re.findall("[a-z]+", standard_library(_CHARACTERS).lower())
    ranked = Counter(words).most_common(most)
    rank = {word: place for place, (word, _) in enumerate(ranked)}
    codes = torch.tensor([rank[word] for word in words if word in rank])
    return codes, torch.tensor([float(count) for _, count in ranked])


class _Network(nn.Module):
    """Embeddings of the words before, one hidden layer, and a logit for each word."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.hidden, self.head = nn.Linear(_CONTEXT * width, width), nn.Linear(width, words)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, words: Tensor) -> Tensor:
        """Return logits of the next word."""
        logits: Tensor = self.head(torch.tanh(self.hidden(self.embedding(words).flatten(1))))
        return logits


@torch.no_grad()
def _losses(model: nn.Module, windows: Tensor) -> Tensor:
    return functional.cross_entropy(model(windows[:, :-1]), windows[:, -1], reduction="none")
