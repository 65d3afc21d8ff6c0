"""P9: to which separator of separable data a method goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from slalom.lab.methods import build, set_rate
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

Array = NDArray[np.float64]


@phenomenon
@dataclass(frozen=True)
class Separable(Phenomenon):
    """Logistic regression on separable data, with all of it in every gradient.

    Args:
        steps: how many.
        samples: points, with labels drawn at random.
        dimension: of the points; more than there are of them, so that any labels can be separated.
        lr: Adam's first rate; it falls like (t + 2)^-0.5, as in the paper.
        eps: Adam's epsilon; the theorem is about 0.
    """

    steps: int = 30_000
    samples: int = 20
    dimension: int = 50
    lr: float = 0.1
    eps: float = 0.0

    name: ClassVar = "separable"
    title: ClassVar = "two methods, two separators: the implicit bias of Adam"
    source: ClassVar = "Zhang, Zou, Cao 2024 (NeurIPS), arXiv:2406.10650"
    claim: ClassVar = (
        "Where data can be separated, the loss has no minimum: weights grow for ever, and what a method chooses is "
        "the direction. Gradient descent goes to the separator of the largest margin in the Euclidean norm, the "
        "SVM's. Adam goes to that of the largest margin when the length of w is its largest coordinate, and does so"
        " at a polynomial rate, where gradient descent takes a logarithmic one."
    )
    here: ClassVar = (
        "Gaussian points with random labels, float64; the best margins come from a saddle-point iteration that also"
        " bounds its own error. Epsilon must be 0: gradients vanish as the data are separated, and below epsilon "
        "Adam is gradient descent with momentum. Bounds are round numbers between what both methods gave in one "
        "earlier run; nothing else was tuned."
    )
    signs: ClassVar = (
        Sign("adam max", "Adam comes near the largest margin in the max norm: its share of it",
             "paper: converges to 1; measured before, one data set: 0.96", low=0.9),
        Sign("sgd max", "gradient descent does not: its share", "measured before: 0.52", high=0.8),
        Sign("sgd euclid", "gradient descent comes near the largest Euclidean margin: its share",
             "Soudry 2017, arXiv:1710.10345: converges to 1; measured before: 0.94", low=0.9),
        Sign("adam euclid", "Adam does not: its share, less that of gradient descent",
             "measured before: 0.80 - 0.94 = -0.14", high=-0.05),
    )  # fmt: skip
    seeds: ClassVar = 3
    seconds: ClassVar = (30.0, 4.0)
    quick: ClassVar = {"steps": 10_000}
    variants: ClassVar = {
        "separable:eps=1e-8": "the usual epsilon undoes it",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train both on one data set."""
        generator = np.random.default_rng(seed)
        labels = generator.choice([-1.0, 1.0], self.samples)
        # Points that carry their label as a sign: a separator has Z w > 0.
        z = labels[:, None] * generator.standard_normal((self.samples, self.dimension))
        best = {norm: largest_margin(z, norm) for norm in ("max", "euclid")}
        looks = sorted({*np.geomspace(10, self.steps, 60).astype(int).tolist(), self.steps})
        words = {"adam": f"adam:betas=(0.9,0.99),eps={self.eps}", "sgd": "sgd:lr=1.0"}
        curves: dict[str, list[dict[str, float]]] = {name: [] for name in words}
        for place, (name, word) in enumerate(words.items()):
            w = torch.zeros(self.dimension, dtype=torch.float64, requires_grad=True)
            optimizer = build(word, [w])
            points = torch.from_numpy(z)
            for step in range(1, self.steps + 1):
                if name == "adam":
                    set_rate(optimizer, self.lr * (step + 1) ** -0.5)
                # The gradient of mean log(1 + exp(-z w)), by hand: a third of autograd's time.
                w.grad = points.T @ torch.sigmoid(-(points @ w.detach())) / -self.samples
                optimizer.step()
                if step in looks:
                    curves[name].append(shares(z, w.detach().numpy(), best))
                    progress((place + step / self.steps) / 2)
        last = {name: curve[-1] for name, curve in curves.items()}
        pictures = {
            f"Margin in the {what} norm, as a share of the largest there is": Picture(
                tuple(Curve(looks, [one[norm] for one in curve], name) for name, curve in curves.items()),
                "steps", "share", log_x=True, high=1.0,
            )
            for norm, what in (("max", "max"), ("euclid", "Euclidean"))
        }  # fmt: skip
        values = {f"{name} {norm}": last[name][norm] for name in words for norm in best}
        values["adam euclid"] -= values["sgd euclid"]
        rows = {name: (last[name]["max"], last[name]["euclid"]) for name in words}
        return Run(values, pictures, Table(("share of the largest margin", "max norm", "Euclidean"), rows))


def shares(z: Array, w: Array, best: dict[str, float]) -> dict[str, float]:
    """Return the margin of w in each norm, as a share of the best."""
    margin = float((z @ w).min())
    lengths = {"max": float(np.abs(w).max()), "euclid": float(np.linalg.norm(w))}
    return {norm: margin / lengths[norm] / best[norm] for norm in best}


def largest_margin(z: Array, norm: str, tolerance: float = 1e-6) -> float:
    """Return the largest of min(Z w) over w of length 1: max over w, min over weights p of points, of p Z w.

    Chambolle and Pock's iteration for a saddle point (2011), begun again from its average whenever that is much better
    (Applegate and others 2021, arXiv:2106.04756). Any w bounds the value from below and any p from above; it goes on
    until the bounds agree.

    Args:
        z: points by rows, each times its label.
        norm: how w is measured: "max", its largest coordinate, or "euclid".
        tolerance: how far apart the bounds may be, relative to the value.

    Raises:
        ArithmeticError: if they do not agree in time, as where points cannot be separated.
    """
    points, dimension = z.shape
    dual = 1 if norm == "max" else 2
    step, gap = 0.99 / np.linalg.norm(z, 2), np.inf
    w, p = np.zeros(dimension), np.full(points, 1.0 / points)
    ahead, sum_w, sum_p, turns = w, np.zeros(dimension), np.zeros(points), 0
    for turn in range(1, 100_001):
        p = _to_simplex(p - step * (z @ ahead))
        old, w = w, _to_ball(w + step * (z.T @ p), norm)
        ahead = 2 * w - old
        sum_w, sum_p, turns = sum_w + w, sum_p + p, turns + 1
        if turn % 200 == 0:
            pairs = ((w, p), (sum_w / turns, sum_p / turns))
            bounds = [(float((z @ a).min()), float(np.linalg.norm(z.T @ b, dual))) for a, b in pairs]
            better = min((0, 1), key=lambda k: bounds[k][1] - bounds[k][0])
            low, high = bounds[better]
            if high - low <= tolerance * abs(high):
                return (low + high) / 2
            if high - low <= gap / 5:
                gap, (w, p) = high - low, pairs[better]
                ahead, sum_w, sum_p, turns = w, np.zeros(dimension), np.zeros(points), 0
    raise ArithmeticError("the largest margin was not found; are the points separable?")


def _to_ball(w: Array, norm: str) -> Array:
    if norm == "max":
        return np.clip(w, -1, 1)
    return np.asarray(w / max(1.0, float(np.linalg.norm(w))))


def _to_simplex(p: Array) -> Array:
    """Return the nearest point whose coordinates are not negative and add up to 1."""
    ordered = np.sort(p)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(p) + 1)
    return np.asarray(np.maximum(p - excess[np.nonzero(ordered > excess)[0][-1]], 0))
