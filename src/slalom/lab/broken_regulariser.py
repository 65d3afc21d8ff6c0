"""A5: how often an adaptive method takes back trust in a coordinate: the sign of sigma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from slalom.lab.methods import build, set_rate
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.observe import sigma
from slalom.pictures import Curve, Picture


@phenomenon
@dataclass(frozen=True)
class BrokenRegulariser(Phenomenon):
    """Adaptive methods meet gradients of pure noise, at a constant rate and at falling ones.

    Args:
        steps: how many.
        coordinates: each a run of its own.
    """

    steps: int = 600
    coordinates: int = 5000

    name: ClassVar = "broken-regulariser"
    title: ClassVar = "two coordinates in three lose the theorem's condition at every step of Adam"
    source: ClassVar = "the condition: Reddi, Kale, Kumar 2018, arXiv:1904.09237; the shares: derived"
    claim: ClassVar = (
        "Every diagonal adaptive method follows a regularised leader, with a regulariser added per step and "
        "coordinate: sigma = D / lr now less D / lr before. Proofs need it not to be negative. For RMSprop it is "
        "negative exactly where g² < v, and for Gaussian noise that has the probability erf(1/√2) = 0.683: not an "
        "accident, but the normal state. AdaGrad never does it, AMSGrad without bias correction neither, and a rate"
        " that falls fast enough, by a factor r with r² at most beta per step, makes RMSprop safe."
    )
    here: ClassVar = (
        "Gaussian gradients that depend on nothing, so the parameters do not matter; shares are means over the last"
        " half of the steps, by `slalom.observe.sigma`. Nothing was tuned."
    )
    signs: ClassVar = (
        Sign("rmsprop", "RMSprop at a constant rate: share of coordinates with a negative sigma",
             "theory: about 0.683, where v is the mean of g²", low=0.63, high=0.73),
        Sign("adam", "Adam: the same", "theory: about 0.683", low=0.63, high=0.73),
        Sign("adagrad", "AdaGrad: the same", "theory: 0", high=0.0),
        Sign("safe", "RMSprop, beta 0.9, at a rate that falls by √0.9 per step: the same",
             "theory: 0, as r² = beta", high=1e-3),
        Sign("unsafe", "RMSprop, beta 0.9, at a rate that falls by √0.95 per step: the same",
             "theory: negative where g² < v / 2, about erf(1/2) = 0.52", low=0.47, high=0.57),
    )  # fmt: skip
    seconds: ClassVar = (4.0, 2.0)
    quick: ClassVar = {"steps": 400, "coordinates": 1000}
    variants: ClassVar = {
        "broken-regulariser:steps=3000": "five times as long: AdaGrad still never, Adam still at two in three",
        "separable": "where such a method ends, if not where the theorem says",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Watch all methods on the same gradients."""
        ways = {
            "rmsprop": ("rmsprop:alpha=0.99", 1.0),
            "adam": ("adam", 1.0),
            "adagrad": ("adagrad", 1.0),
            "safe": ("rmsprop:alpha=0.9", 0.9**0.5 * (1 - 1e-7)),  # a hair faster: rounding decides at equality
            "unsafe": ("rmsprop:alpha=0.9", 0.95**0.5),
        }
        labels = {"safe": "rmsprop 0.9, rate × √0.9", "unsafe": "rmsprop 0.9, rate × √0.95"}
        curves, values = [], {}
        rows: dict[str, tuple[float | None, ...]] = {}
        for place, (key, (word, falls)) in enumerate(ways.items()):
            generator = torch.Generator().manual_seed(seed)
            w = torch.zeros(self.coordinates, dtype=torch.float64, requires_grad=True)
            optimizer = build(f"{word}{',' if ':' in word else ':'}eps=0.0", [w], lr=0.1)
            watch = sigma(optimizer)
            shares, weights = [], []
            for step in range(self.steps):
                set_rate(optimizer, 0.1 * falls**step)
                w.grad = torch.randn(self.coordinates, generator=generator, dtype=torch.float64)
                optimizer.step()
                shares.append(watch.history[-1].fraction)
                weights.append(watch.history[-1].weight)
                progress((place + (step + 1) / self.steps) / len(ways))
            watch.remove()
            half = self.steps // 2
            values[key] = sum(shares[half:]) / len(shares[half:])
            curves.append(Curve(range(1, self.steps + 1), shares, labels.get(key, word)))
            rows[labels.get(key, word)] = (values[key], sum(weights[half:]) / len(weights[half:]))
        picture = Picture(tuple(curves), "steps", "share", low=0.0, high=1.0)
        head = ("mean of the last half", "coordinates", "of all |sigma|")
        return Run(values, {"Share of coordinates with a negative sigma": picture}, Table(head, rows))
