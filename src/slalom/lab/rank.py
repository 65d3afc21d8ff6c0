"""P10: noise in the labels lowers the rank of a linear network; gradient descent keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture


@phenomenon
@dataclass(frozen=True)
class Rank(Phenomenon):
    """A linear network of two layers learns a linear map, three times from the same start.

    Args:
        steps: how many.
        noise: the standard deviation of what is added to a label whenever it is seen.
        samples: how many there are.
        inputs: coordinates of a sample.
        width: of the hidden layer.
        outputs: coordinates of a label; the rank that the map needs.
        lr: the rate of the two that see one sample at a time; gradient descent takes twice that.
    """

    steps: int = 20_000
    noise: float = 2.0
    samples: int = 1000
    inputs: int = 5
    width: int = 10
    outputs: int = 2
    lr: float = 0.01

    name: ClassVar = "rank"
    title: ClassVar = "what noise in the labels simplifies"
    source: ClassVar = "Varre, Sagitova, Flammarion 2024 (NeurIPS), openreview.net/forum?id=TSaieShX3j"
    claim: ClassVar = (
        "The two matrices of a linear network, stacked, are one matrix that begins with full rank. Gradient descent"
        " never lowers it: the determinant of its Gram matrix stays positive. Stochastic gradient descent with "
        "noise in the labels drives all singular values but those that the map needs to zero: the noise does not "
        "stop when the data are fitted, and it acts as a pull towards simple weights, without any weight decay."
    )
    here: ClassVar = (
        "The protocol of the authors' code: weights from N(0, 1), no weight decay. The third run, batches of one "
        "with clean labels, is ours: it separates noise in the labels from small batches. The bounds, a tenth and a"
        " half, are round numbers between 0 and 1."
    )
    signs: ClassVar = (
        Sign("noisy", "label noise: the first singular value that the map does not need, as a share of its start",
             "paper: goes to 0; measured before: 0.045 itself after 10,000 steps", high=0.1),
        Sign("descent", "gradient descent: the same",
             "paper: rank is kept; measured before: the smallest fell from 0.83 to 0.82", low=0.5),
        Sign("clean", "batches of one with clean labels: the same",
             "theory: at zero loss there is no noise left", low=0.5),
        Sign("needed", "label noise: the last singular value that the map needs, as a share of its start",
             "measured before: 1.54 itself after 10,000 steps, 1.63 after 50,000", low=0.1),
    )  # fmt: skip
    seeds: ClassVar = 3
    seconds: ClassVar = (25.0, 4.0)
    quick: ClassVar = {"steps": 7000}
    variants: ClassVar = {
        "rank:noise=0.5": "less noise, slower collapse",
        "rank:outputs=3": "a map that needs three: the fourth goes",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train from one start with all three."""
        generator = np.random.default_rng(seed)
        x = torch.from_numpy(generator.standard_normal((self.samples, self.inputs)))
        y = x @ torch.from_numpy(generator.standard_normal((self.inputs, self.outputs)))
        start = [
            torch.from_numpy(generator.standard_normal(shape))
            for shape in ((self.inputs, self.width), (self.width, self.outputs))
        ]
        first = _singular(start)
        looks = {1, *np.geomspace(10, self.steps, 50).astype(int).tolist(), self.steps}
        ways = {"gradient descent": (0.0, self.samples), "clean labels": (0.0, 1), "label noise": (self.noise, 1)}
        paths: dict[str, list[Tensor]] = {}
        for place, (way, (noise, batch)) in enumerate(ways.items()):
            weights = [w.clone().requires_grad_() for w in start]
            optimizer = build("sgd", weights, lr=self.lr * (2 if batch > 1 else 1))
            order = generator.integers(0, self.samples, self.steps)
            extra = torch.from_numpy(noise * generator.standard_normal((self.steps, self.outputs)))
            paths[way] = []
            for step in range(self.steps):
                rows = slice(None) if batch > 1 else slice(order[step], order[step] + 1)
                _backward(weights, x[rows], y[rows] + extra[step] if noise else y[rows])
                optimizer.step()
                if step + 1 in looks:
                    paths[way].append(_singular(weights))
                    progress((place + (step + 1) / self.steps) / len(ways))
        unneeded, needed = self.outputs, self.outputs - 1
        last = {way: path[-1] for way, path in paths.items()}
        share = {way: float(values[unneeded] / first[unneeded]) for way, values in last.items()}
        curves = tuple(
            Curve(sorted(looks), [max(float(values[unneeded]), 1e-6) for values in path], way)
            for way, path in paths.items()
        )
        values = {
            "noisy": share["label noise"],
            "descent": share["gradient descent"],
            "clean": share["clean labels"],
            "needed": float(last["label noise"][needed] / first[needed]),
        }
        rows_of = {"start": first, **last}
        head = ("singular values", *(str(k + 1) for k in range(len(first))))
        table = Table(head, {name: tuple(map(float, entry)) for name, entry in rows_of.items()})
        title = f"Singular value {unneeded + 1} of {len(first)}; the map needs {self.outputs}"
        return Run(values, {title: Picture(curves, "steps", "singular value", log_x=True, log_y=True)}, table)


def _backward(weights: list[Tensor], x: Tensor, y: Tensor) -> None:
    """Set the gradients of half the mean squared error, by hand: autograd is slow on so few numbers."""
    first, second = (w.detach() for w in weights)
    hidden = x @ first
    error = (hidden @ second - y) / len(x)
    weights[0].grad, weights[1].grad = x.T @ (error @ second.T), hidden.T @ error


def _singular(weights: list[Tensor]) -> Tensor:
    """Return the singular values of the first layer on top of the second, transposed."""
    first, second = (w.detach() for w in weights)
    values: Tensor = torch.linalg.svdvals(torch.cat([first, second.T]))
    return values
