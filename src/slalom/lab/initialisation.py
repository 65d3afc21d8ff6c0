"""P8: the scale at which weights begin decides whether a deep network learns at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

# Variance of a weight times the units that feed it, and so half of what a rectifier layer multiplies variance by.
_RULES = {"He": 2.0, "Xavier": 1.0, "default": 1 / 3}
_WIDE = 256  # units at which sizes are measured: at 64 chance takes another 3 % per layer


@phenomenon
@dataclass(frozen=True)
class Initialisation(Phenomenon):
    """A deep rectifier network on four clouds in a chequerboard, from three scales of initial weights.

    Args:
        depth: hidden layers.
        width: units of each.
        steps: of training.
        points: samples, all in every gradient.
        lr: the rate.
    """

    depth: int = 30
    width: int = 64
    steps: int = 300
    points: int = 512
    lr: float = 0.01

    name: ClassVar = "initialisation"
    title: ClassVar = "why a deep network learns or does not: the first weights"
    source: ClassVar = "He, Zhang, Ren, Sun 2015, Delving deep into rectifiers, arXiv:1502.01852"
    claim: ClassVar = (
        "A rectifier passes half of the variance. With weights of variance 2 / fan-in signals keep their size "
        "through any depth; with Xavier's 1 / fan-in they shrink by half per layer, and with torch's default for "
        "nn.Linear, 1 / (3 fan-in), by six. At 30 layers that is 1e-9 and 1e-23 of the variance, and gradients "
        "shrink alike: the network does not move. In the paper a network of 30 layers converges from He's weights "
        "and stalls from Xavier's."
    )
    here: ClassVar = (
        "The paper's 30 layers on ImageNet are 30 layers of 64 units on 512 points in the plane. SGD with momentum "
        "0.9, gradients clipped to length 1; rate and steps are those of an earlier run, untouched. The law is "
        "measured on 256 units, where chance averages out."
    )
    signs: ClassVar = (
        Sign("He learns", "He's weights: training loss in the end, over ln 2, which guessing gives",
             "paper: converges; measured before: 0.006", high=0.3),
        Sign("Xavier stalls", "Xavier's weights: the same", "paper: stalls; measured before: 1.00", low=0.9),
        Sign("default stalls", "torch's default: the same", "theory: stalls; measured before: 1.00", low=0.9),
        Sign("Xavier law", "Xavier: how much of the standard deviation is lost per layer, over √½", "theory: 1",
             low=0.95, high=1.05),
        Sign("default law", "default: how much of it is lost per layer, over √(1/6)", "theory: 1", low=0.95, high=1.05),
    )  # fmt: skip
    seeds: ClassVar = 3
    seconds: ClassVar = (20.0, 4.0)
    quick: ClassVar = {"steps": 150}
    variants: ClassVar = {
        "initialisation:depth=10": "a shallow one learns from He's and Xavier's",
        "initialisation:depth=22": "the depth at which the paper's two curves still both fall",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Measure and train from each rule."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(self.points, 2, generator=generator) * 2 - 1
        y = (x[:, 0] * x[:, 1] > 0).long()
        values, rows = {}, {}
        losses: dict[str, list[float]] = {}
        sizes: dict[str, list[float]] = {}
        for place, (rule, gain) in enumerate(_RULES.items()):
            weights = self._weights(generator, gain, self.width)
            sizes[rule] = _sizes(self._weights(generator, gain, _WIDE), torch.randn(64, _WIDE, generator=generator))
            losses[rule] = []
            optimizer = build("sgd:momentum=0.9", weights, lr=self.lr)
            for step in range(self.steps):
                optimizer.zero_grad()
                loss = functional.cross_entropy(_forward(weights, x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                losses[rule].append(loss.item())
                progress((place + (step + 1) / self.steps) / len(_RULES))
            right = float((_forward(weights, x).argmax(1) == y).float().mean())
            lost = (sizes[rule][-1] / sizes[rule][0]) ** (1 / (len(sizes[rule]) - 1))
            rows[rule] = (losses[rule][-1], right, sizes[rule][-1], lost, (gain / 2) ** 0.5)
            values[f"{rule} law"] = lost / (gain / 2) ** 0.5
        guess = math.log(2)
        values |= {
            "He learns": losses["He"][-1] / guess,
            "Xavier stalls": losses["Xavier"][-1] / guess,
            "default stalls": losses["default"][-1] / guess,
        }
        steps = range(1, self.steps + 1)
        learned = tuple(Curve(steps, path, rule) for rule, path in losses.items())
        signal = tuple(Curve(range(1, len(path) + 1), path, rule) for rule, path in sizes.items())
        pictures = {
            "Training loss": Picture(learned, "steps", "loss", low=0.0),
            "Size of the signal before training": Picture(signal, "layer", "standard deviation", log_y=True),
        }
        head = ("weights", "loss", "right", "last signal", "kept per layer", "in theory")
        return Run(values, pictures, Table(head, rows))

    def _weights(self, generator: torch.Generator, gain: float, width: int) -> list[Tensor]:
        """Draw uniform weights of a given variance times fan-in; biases would begin at 0 and are left out."""
        shapes = [(width, 2), *[(width, width)] * (self.depth - 1), (2, width)]
        return [
            ((torch.rand(shape, generator=generator) * 2 - 1) * (3 * gain / shape[1]) ** 0.5).requires_grad_()
            for shape in shapes
        ]


def _forward(weights: list[Tensor], x: Tensor) -> Tensor:
    for w in weights[:-1]:
        x = functional.relu(x @ w.T)
    return x @ weights[-1].T


def _sizes(weights: list[Tensor], x: Tensor) -> list[float]:
    """Return the root mean square of what every square layer yields, for a random signal into the first of them."""
    sizes = []
    with torch.no_grad():
        for w in weights[1:-1]:
            x = functional.relu(x @ w.T)
            sizes.append(float(x.square().mean().sqrt()))
    return sizes
