"""P1: generalisation long after the training set is known by heart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

_DECAY, _NO_DECAY = "adamw:betas=(0.9,0.98)", "adamw:betas=(0.9,0.98),weight_decay=0.0"
_LONG = "adamw"  # whose second moment remembers 1000 steps, not 50
_KNOWN = 0.99  # of the answers right
_EVERY = 10  # steps from one look to the next


@dataclass
class _Path:
    """What was seen of one training run, every few steps."""

    train: list[float]
    test: list[float]
    loss: list[float]
    pure: list[float]


@phenomenon
@dataclass(frozen=True)
class Grokking(Phenomenon):
    """A small network learns to add modulo a prime from half of the table.

    Args:
        recipes: who trains.
        lr: the rate of those that do not name their own.
        weight_decay: likewise; larger than usual, and the point.
        steps: of training, with all of the training set in each.
        prime: the modulus.
        width: hidden units.
        share: of the table that is the training set.
    """

    recipes: tuple[str, ...] = (_DECAY, _NO_DECAY, _LONG)
    lr: float = 0.01
    weight_decay: float = 1.0
    steps: int = 1500
    prime: int = 31
    width: int = 128
    share: float = 0.5

    name: ClassVar = "grokking"
    title: ClassVar = "understanding long after memorising"
    source: ClassVar = "Power et al. 2022, arXiv:2201.02177; this network: Gromov 2023, arXiv:2301.02679"
    claim: ClassVar = (
        "A network learns the training half of an addition table by heart within a few dozen steps and knows "
        "nothing of the other half: there it is confidently wrong, worse than guessing. Training goes on with "
        "nothing left to learn, weight decay alone still pulls, and suddenly the other half is right too. What it "
        "found meanwhile is a Fourier transform: hidden units come to be waves of one frequency. Without weight "
        "decay, it waits."
    )
    here: ClassVar = (
        "Power trains transformers on division modulo 97, which takes minutes (grokking-transformer); this is Gromov's "
        "network of one hidden layer with squares, on addition modulo 31, with cross-entropy. Betas (0.9, 0.98) are "
        "Power's. Five settings of rate, decay and loss were tried first, at one seed: all generalised late, decay 0.1 "
        "not within 6000 steps; this one was the quickest with cross-entropy. With the usual beta2 of 0.999 it comes "
        "later than 1500 steps."
    )
    signs: ClassVar = (
        Sign("gap", "AdamW: steps until 99 % of the other half are right, over those for the training half",
             "paper: 100 and more; a transformer measured before: 1400 / 1000, at decay 1", low=2.0),
        Sign("overshoot", "AdamW: the highest loss on the other half, over ln 31, which guessing gives",
             "paper: rises before it falls", low=1.2),
        Sign("end", "AdamW: share of the other half that is right in the end", "paper: 1", low=_KNOWN),
        Sign("waves", "AdamW: power of the strongest frequency of a unit in the end, less that when all was memorised",
             "Gromov: units become waves; Nanda 2023, arXiv:2301.05217, in a transformer", low=0.1),
        Sign("memory", "AdamW at its usual betas: share of the other half that is right in the end",
             "found here: below 1 after 1500 steps", high=0.9),
        Sign("without", "AdamW without decay: share of the other half that is right in the end",
             "paper: decay is what helps most", high=0.9),
    )  # fmt: skip
    seeds: ClassVar = 5
    seconds: ClassVar = (25.0, 4.0)
    quick: ClassVar = {"steps": 1000}
    variants: ClassVar = {
        "grokking muon:lr=0.3,weight_decay=0.1 lion:lr=0.003,weight_decay=3.0": "how far others come",
        "grokking-transformer": "the paper's own task and size, in minutes",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train with every recipe from the same start."""
        generator = torch.Generator().manual_seed(seed)
        p = self.prime
        table = torch.cartesian_prod(torch.arange(p), torch.arange(p))
        table = table[torch.randperm(p * p, generator=generator)]
        known = int(self.share * p * p)
        start = [0.1 * torch.randn(shape, generator=generator) for shape in ((2 * p, self.width), (self.width, p))]
        paths: dict[str, _Path] = {}
        for place, word in enumerate(self.recipes):

            def tell(done: float, place: int = place) -> None:
                progress((place + done) / len(self.recipes))

            weights = [w.clone().requires_grad_() for w in start]
            paths[word] = self._train(word, weights, table, known, tell)
        values = self._values(paths)
        rows = {}
        for word, path in paths.items():
            first, second = (_when(shares) for shares in (path.train, path.test))
            rows[word] = (first, second, path.test[-1], path.pure[-1])
        head = ("", "memorised", "understood", "other half", "purity")
        return Run(values, self._pictures(paths), Table(head, rows))

    def _train(self, word: str, weights: list[Tensor], table: Tensor, known: int, progress: Progress) -> _Path:
        optimizer = build(word, weights, lr=self.lr, weight_decay=self.weight_decay)
        answers = table.sum(1) % self.prime
        train, test = table[:known], table[known:]
        path = _Path([], [], [], [])
        for step in range(self.steps + 1):
            optimizer.zero_grad()
            out = self._forward(weights, train)
            if step % _EVERY == 0:
                with torch.no_grad():
                    other = self._forward(weights, test)
                    path.train.append(_right(out, answers[:known]))
                    path.test.append(_right(other, answers[known:]))
                    path.loss.append(functional.cross_entropy(other, answers[known:]).item())
                    path.pure.append(_purity(weights[0][: self.prime]))
                progress(step / self.steps)
            functional.cross_entropy(out, answers[:known]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return path

    def _forward(self, weights: list[Tensor], pairs: Tensor) -> Tensor:
        hidden = weights[0][pairs[:, 0]] + weights[0][pairs[:, 1] + self.prime]
        return hidden.square() @ weights[1]

    def _values(self, paths: dict[str, _Path]) -> dict[str, float]:
        values = {}
        if (path := paths.get(_DECAY)) is not None:
            memorised, understood = _when(path.train), _when(path.test)
            if memorised is not None:
                values["waves"] = path.pure[-1] - path.pure[int(memorised) // _EVERY]
                # Never understood is no gap, but a longer one than could be waited for.
                values["gap"] = math.nan if understood is None else understood / max(memorised, 1.0)
            values |= {"overshoot": max(path.loss) / math.log(self.prime), "end": path.test[-1]}
        if (path := paths.get(_LONG)) is not None:
            values["memory"] = path.test[-1]
        if (path := paths.get(_NO_DECAY)) is not None:
            values["without"] = path.test[-1]
        return values

    def _pictures(self, paths: dict[str, _Path]) -> dict[str, Picture]:
        first = next(iter(paths))
        steps = [float(max(k * _EVERY, 1)) for k in range(len(paths[first].test))]
        right = (
            *(Curve(steps, path.test, f"{word}, other half") for word, path in paths.items()),
            Curve(steps, paths[first].train, f"{first}, training half"),
        )
        losses = tuple(Curve(steps, path.loss, word) for word, path in paths.items())
        return {
            "Share of right answers": Picture(right, "steps", "share", log_x=True, low=0.0, high=1.0),
            "Loss on the other half": Picture(losses, "steps", "loss", log_x=True, low=0.0),
        }


def _right(out: Tensor, answers: Tensor) -> float:
    return float((out.argmax(1) == answers).float().mean())


def _when(shares: list[float]) -> float | None:
    """Return the step at which nearly all was right for the first time."""
    return next((float(k * _EVERY) for k, share in enumerate(shares) if share >= _KNOWN), None)


def _purity(table: Tensor) -> float:
    """Return what share of a unit's power over the numbers its strongest frequency has, on average over units."""
    power = torch.fft.rfft(table.detach(), dim=0)[1:].abs().square()
    return float((power.max(0).values / power.sum(0)).mean())
