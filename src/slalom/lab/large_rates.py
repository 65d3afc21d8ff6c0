"""P11: the rate of a first stage of training decides how well the second one ends."""

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

_CONVERGED = 0.1  # below this training loss a first stage has fitted the data


@phenomenon
@dataclass(frozen=True)
class LargeRates(Phenomenon):
    """A network on a sphere is trained at many constant rates, then from each end at one small rate.

    Args:
        rates: of the first stage.
        fine: the rate of the second.
        steps: of each stage.
        samples: of the training set.
        views: pairs of coordinates of a sample; each may tell the label by a rule of its own.
        width: units of each of two hidden layers.
        batch: samples per step.
    """

    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 1.0, 2.0, 4.0)
    fine: float = 0.05
    steps: int = 800
    samples: int = 256
    views: int = 8
    width: int = 96
    batch: int = 16

    name: ClassVar = "large-rates"
    title: ClassVar = "how large a first learning rate pays"
    source: ClassVar = "Sadrtdinov, Kodryan et al. 2024 (NeurIPS), arXiv:2410.22113"
    claim: ClassVar = (
        "Training often begins at a large rate and ends at a small one. Where the first rate is small, the network "
        "converges at once, to a solution like any other; where it is far too large, the first stage learns nothing"
        " that lasts. Between them is a narrow band, just above the rate at which training still converges, from "
        "which the second stage ends best."
    )
    here: ClassVar = (
        "A toy after the authors': labels told by some of eight planar views, by rules such as circles and stripes,"
        " three layers with normalisation, rows of the weights kept at length 1. In theirs, views that do not tell "
        "lie on the boundary; here they are random. One look at a rougher grid of rates and twice the steps, at "
        "seed 0, chose these; the best rate was there below the threshold, not above it."
    )
    signs: ClassVar = (
        Sign("small", "test accuracy after the best first rate, less that after the smallest",
             "paper: better, by points", low=0.01),
        Sign("large", "the same, less that after the largest", "paper: better", low=0.01),
        Sign("near", "the best first rate, over the smallest at which training no longer converges",
             "paper: just above 1", low=0.25, high=2.5),
        Sign("above", "accuracy after the rate at that threshold, less that after the one below it",
             "paper: better just above", low=0.0),
    )  # fmt: skip
    seeds: ClassVar = 3
    seconds: ClassVar = (44.0, 5.0)
    variants: ClassVar = {
        "large-rates:fine=0.2": "a second stage that is less gentle: the first one matters less",
        "large-rates:samples=1024,steps=2000": "more data, minutes: at seed 0 the best rate is above the threshold",
    }
    quick: ClassVar = {"steps": 400, "rates": (0.01, 0.1, 0.5, 1.0, 4.0)}

    def run(self, seed: int, progress: Progress) -> Run:
        """Train both stages from every first rate."""
        generator = torch.Generator().manual_seed(seed)
        x, y = self._data(self.samples, generator)
        x_test, y_test = self._data(2000, generator)
        shapes = [(self.width, 2 * self.views), (self.width, self.width), (2, self.width)]
        start = [functional.normalize(torch.randn(shape, generator=generator), dim=1) for shape in shapes]
        losses, first, second = [], [], []
        for place, rate in enumerate(self.rates):
            weights = [w.clone().requires_grad_() for w in start]
            order = torch.randint(0, self.samples, (2, self.steps, self.batch), generator=generator)
            losses.append(_train(weights, x, y, rate, order[0]))
            first.append(_accuracy(weights, x_test, y_test))
            _train(weights, x, y, self.fine, order[1])
            second.append(_accuracy(weights, x_test, y_test))
            progress((place + 1) / len(self.rates))
        best = max(range(len(second)), key=second.__getitem__)
        values = {"small": second[best] - second[0], "large": second[best] - second[-1]}
        # above the last that converged: the smallest rates may have had too few steps
        threshold = max((k + 1 for k, loss in enumerate(losses[:-1]) if loss < _CONVERGED), default=0)
        if threshold:
            values["near"] = self.rates[best] / self.rates[threshold]
            values["above"] = second[threshold] - second[threshold - 1]
        curves = (Curve(self.rates, first, "after the first stage"), Curve(self.rates, second, "after the second"))
        marks = ((self.rates[threshold], "no longer converges"),) if threshold else ()
        picture = Picture(curves, "rate of the first stage", "test accuracy", log_x=True, marks=marks)
        head = ("first rate", "its training loss", "accuracy after it", "after the second stage")
        rows = {f"{rate:g}": row for rate, row in zip(self.rates, zip(losses, first, second, strict=True), strict=True)}
        return Run(values, {"Test accuracy": picture}, Table(head, rows))

    def _data(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw labels, and points that tell them by some of the views, at least one; other views are random."""
        label = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
        tells = torch.rand(count, self.views, generator=generator) < 0.5
        tells[torch.arange(count), torch.randint(0, self.views, (count,), generator=generator)] = True
        points = torch.rand(count, self.views, 2, generator=generator) * 2 - 1
        for _ in range(60):  # those on the wrong side, or too near the boundary to see, are drawn again
            wrong = tells & (_rules(points) * label[:, None] < 0.05)
            points = torch.where(wrong[..., None], torch.rand(points.shape, generator=generator) * 2 - 1, points)
        return points.flatten(1), (label > 0).long()


def _rules(points: Tensor) -> Tensor:
    """Return on which side of its view's rule each point lies, and how far."""
    a, b = points.unbind(-1)
    rules = (
        a * a + b * b - 0.5, a * b, b - torch.sin(3 * a), 0.5 - a.abs(), a.abs() - b.abs(), b - 1.5 * a.abs() + 0.5,
        torch.sin(4 * a + 2 * b), a + b,
    )  # fmt: skip
    return torch.stack([rules[view % len(rules)][:, view] for view in range(points.shape[1])], 1)


def _forward(weights: list[Tensor], x: Tensor) -> Tensor:
    for w in weights[:-1]:
        x = functional.relu(functional.layer_norm(x @ functional.normalize(w, dim=1).T, (len(w),)))
    return 3 * x @ functional.normalize(weights[-1], dim=1).T


def _train(weights: list[Tensor], x: Tensor, y: Tensor, rate: float, order: Tensor) -> float:
    """Train on the sphere; return the mean loss of the last fifth."""
    optimizer = build("sgd", weights, lr=rate)
    losses = []
    for rows in order:
        optimizer.zero_grad()
        loss = functional.cross_entropy(_forward(weights, x[rows]), y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            for w in weights:
                w.copy_(functional.normalize(w, dim=1))
    tail = max(1, len(losses) // 5)
    return math.fsum(losses[-tail:]) / tail


def _accuracy(weights: list[Tensor], x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((_forward(weights, x).argmax(1) == y).float().mean())
