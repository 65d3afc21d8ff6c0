"""P14: where methods go in Rosenbrock's valley at one learning rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch

from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

Point: TypeAlias = "tuple[float, float]"
Path: TypeAlias = "list[tuple[float, float, float]]"
_LONG_ENOUGH = 10_000  # steps, for Adam to arrive
_STARTS: tuple[Point, Point, Point] = ((-1.5, 2.0), (-2.0, 2.0), (-0.5, 1.0))
_LEFT, _RIGHT, _LOW, _HIGH = -2.2, 2.0, -0.75, 3.2
_GONE = 1e6  # so far out nobody comes back


@phenomenon
@dataclass(frozen=True)
class Rosenbrock(Phenomenon):
    """Trajectories on (1 - x)² + 100 (y - x²)².

    Args:
        recipes: who runs.
        lr: the rate of all.
        steps: how many.
        start: where, for the picture; the signs are about starts of their own.
    """

    recipes: tuple[str, ...] = ("sgd", "sgd:momentum=0.9", "adagrad", "rmsprop", "adam", "signsgd")
    lr: float = 0.003
    steps: int = 10_000
    start: Point = (-1.5, 2.0)

    name: ClassVar = "rosenbrock"
    title: ClassVar = "one learning rate in a curved valley"
    source: ClassVar = "the function: Rosenbrock 1960, Computer Journal 3, 175; the rate 0.003: a course's slide"
    claim: ClassVar = (
        "The valley y = x² is steep across and flat along: at its minimum (1, 1) the curvatures are 1001.6 and 0.4."
        " Gradient descent is stable there only below the rate 2 / 1001.6 = 0.001997, so at 0.003 it cannot arrive;"
        " momentum widens that to 2 (1 + 0.9) / 1001.6 = 0.0038. Methods that size their own steps do not care "
        "about curvature, but one that never shortens them cannot settle, and one that only shortens them comes "
        "late."
    )
    here: ClassVar = (
        "float64, exact gradients, nothing random. The slide gives no start; these were chosen because each method "
        "shows its habit from one of them. Adam needs some 10,000 steps, so --quick does not judge that."
    )
    signs: ClassVar = (
        Sign("sgd far", "gradient descent at 0.003 is never at the minimum: f at the end, from (-0.5, 1)",
             "theory: unstable above 0.001997", low=1e-3),
        Sign("momentum near", "with momentum 0.9 it arrives from there: f at the end",
             "theory: stable up to 0.0038", high=1e-10),
        Sign("sgd leaves", "from (-2, 2) gradient descent is thrown out: steps until f passes 1e6",
             "theory: the curvature there is 4 times that at the minimum", high=10),
        Sign("adam near", "Adam arrives from (-1.5, 2): f at the end", "measured before: 7e-28", high=1e-8),
        Sign("rmsprop cycles", "RMSprop ends in a cycle: f at the end, the mean of 100 steps from (-1.5, 2)",
             "measured before: 0.0020", low=1e-4, high=1.0),
        Sign("adagrad late", "AdaGrad is still on its way: f at the end, from (-1.5, 2)",
             "measured before: 5.7", low=0.1),
    )  # fmt: skip
    seconds: ClassVar = (15.0, 3.0)
    quick: ClassVar = {"steps": 1500}
    variants: ClassVar = {
        "rosenbrock:lr=0.0019": "below the limit gradient descent settles",
        "rosenbrock muon lion prodigy": "anybody's way down the valley",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Run every recipe from all starts; nothing is random, so the seed changes nothing."""
        starts = list(dict.fromkeys([self.start, *_STARTS]))
        paths: dict[tuple[str, Point], Path] = {}
        for word in self.recipes:
            for start in starts:
                paths[word, start] = self._path(word, start)
                progress(len(paths) / (len(self.recipes) * len(starts)))
        rows = {word: tuple(_end(paths[word, start]) for start in starts) for word in self.recipes}
        head = ("f at the end, from", *map(_spelled, starts))
        picture = _picture({word: paths[word, self.start] for word in self.recipes})
        return Run(_values(paths, self.steps), {f"The way from {_spelled(self.start)}": picture}, Table(head, rows))

    def _path(self, word: str, start: Point) -> Path:
        """Return (x, y, f) at every step, until the end or until f is beyond all hope."""
        w = torch.tensor([start], dtype=torch.float64, requires_grad=True)
        optimizer = build(word, [w], lr=self.lr)
        path: Path = []

        def loss() -> torch.Tensor:
            # By hand: two numbers are too few for autograd to be worth its while.
            x, y = w.detach()[0].tolist()
            across = y - x * x
            w.grad = torch.tensor([[2 * (x - 1) - 400 * x * across, 200 * across]], dtype=torch.float64)
            path.append((x, y, (1 - x) ** 2 + 100 * across**2))
            return torch.tensor(path[-1][2], dtype=torch.float64)

        while len(path) < self.steps and (not path or path[-1][2] < _GONE):
            optimizer.step(loss)
        loss()
        return path


def _end(path: Path) -> float:
    """Return the last f; infinite where the path was given up."""
    return path[-1][2] if path[-1][2] < _GONE else math.inf


def _values(paths: dict[tuple[str, Point], Path], steps: int) -> dict[str, float]:
    """Return what the signs are about, as far as the methods ran that they name."""
    left, far, near = _STARTS
    last = {key: _end(path) for key, path in paths.items()}
    values = {
        "sgd far": last.get(("sgd", near)),
        "momentum near": last.get(("sgd:momentum=0.9", near)),
        "sgd leaves": float(len(paths["sgd", far]) - 1) if ("sgd", far) in paths else None,
        "adam near": last.get(("adam", left)),
        "rmsprop cycles": statistics.fmean(f for *_, f in paths["rmsprop", left][-100:])
        if ("rmsprop", left) in paths
        else None,
        "adagrad late": last.get(("adagrad", left)),
    }
    if steps < _LONG_ENOUGH:
        values["adam near"] = None
    return {key: value for key, value in values.items() if value is not None}


def _picture(paths: dict[str, Path]) -> Picture:
    """Draw the ways as far as they stay in the picture, over lines of equal height."""
    heights = [Curve(*line, faint=True) for f in (0.3, 3.0, 30.0, 150.0, 500.0) for line in _height(f)]
    ways = [_way(word, path) for word, path in paths.items()]
    return Picture((*heights, *ways), "x", "y", low=_LOW, high=_HIGH, marks=((1.0, "the minimum, at y = 1"),))


def _way(word: str, path: Path) -> Curve:
    """Return a path up to where it leaves the picture, without steps too small to see."""
    kept: list[tuple[float, float]] = []
    for x, y, _ in path:
        if not (_LEFT <= x <= _RIGHT and _LOW <= y <= _HIGH):
            break
        if not kept or math.hypot(x - kept[-1][0], y - kept[-1][1]) > 0.01:
            kept.append((x, y))
    return Curve([x for x, _ in kept], [y for _, y in kept], word)


def _height(f: float) -> Iterator[tuple[list[float], list[float]]]:
    """Yield where the function is f, above the valley and below it: y = x² ± √((f - (1 - x)²) / 100)."""
    for side in (1, -1):
        piece: list[tuple[float, float]] = []
        for k in range(401):
            x = _LEFT + (_RIGHT - _LEFT) * k / 400
            rest = (f - (1 - x) ** 2) / 100
            y = x * x + side * math.sqrt(rest) if rest >= 0 else math.nan
            if _LOW <= y <= _HIGH:
                piece.append((x, y))
            elif piece:
                yield [x for x, _ in piece], [y for _, y in piece]
                piece = []
        if piece:
            yield [x for x, _ in piece], [y for _, y in piece]


def _spelled(point: Point) -> str:
    return f"({point[0]:g}, {point[1]:g})"
