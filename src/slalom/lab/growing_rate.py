"""Part G: weight decay on normalised weights is a learning rate that grows exponentially."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from slalom.errors import UsageError
from slalom.lab.methods import build, set_rate
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

_JUDGED = 200  # steps, as in the check that these bounds come from; later rounding has grown


@phenomenon
@dataclass(frozen=True)
class GrowingRate(Phenomenon):
    """A network with batch normalisation, trained with weight decay, and without it at a growing rate.

    Args:
        steps: how many.
        lr: the constant rate, and the first of the growing ones.
        weight_decay: of the run at the constant rate.
        momentum: of all.
        width: of the hidden layer.
        batch: samples per step.
    """

    steps: int = 400
    lr: float = 0.1
    weight_decay: float = 5e-3
    momentum: float = 0.9
    width: int = 16
    batch: int = 32

    name: ClassVar = "growing-rate"
    title: ClassVar = "weight decay is a learning rate that grows exponentially"
    source: ClassVar = "Li, Arora 2019, An exponential learning rate schedule for deep learning, arXiv:1910.07454"
    claim: ClassVar = (
        "Weights before a normalisation have a direction that matters and a length that does not. On such weights "
        "SGD with weight decay at a constant rate goes through the same functions, step by step, as SGD without "
        "weight decay at a rate that grows by a constant factor per step: a^-2, where a is the larger root of a² - "
        "(1 + m - lr wd) a + m = 0. With lr 0.1, decay 0.0005, momentum 0.9 and 391 steps per epoch that is 1.481 "
        "per epoch. Momentum must have a past for it: the buffer starts at (a - 1) w / (lr a)."
    )
    here: ClassVar = (
        "float64; one hidden layer with batch normalisation without epsilon, affine part and bias, a frozen last "
        "layer. Ten times the decay of the paper, so that the rate grows faster. The buffer is set by a step at "
        "rate 0. Training is chaotic: differences of one rounding grow, and by step 1000 have reached 0.1 in two of"
        " three runs, which is why signs are judged on the first 200 steps, the length of the check on another "
        "model that was known to pass."
    )
    signs: ClassVar = (
        Sign("same", "decay or growing rate: the largest difference of any direction in 200 steps",
             "paper: the same function; 0 but for rounding", high=1e-8),
        Sign("no past", "the same, with a buffer that starts at zero",
             "theory: not the same; measured before on another model: 8e-3", low=1e-5),
        Sign("no decay", "without decay, at the constant rate", "theory: another trajectory", low=1e-2),
        Sign("factor", "growth per epoch of 391 steps for lr 0.1, decay 0.0005, momentum 0.9", "paper: 1.481",
             low=1.4805, high=1.4815),
    )  # fmt: skip
    seeds: ClassVar = 3
    seconds: ClassVar = (4.0, 2.0)
    quick: ClassVar = {"steps": 200}
    variants: ClassVar = {
        "growing-rate:steps=1000": "a difference in the last digit becomes another network",
        "growing-rate:momentum=0.0": "without momentum no past is needed",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train from one start in all four ways."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        x, teacher, head = normal(256, 10), normal(10, 3), normal(self.width, 3)
        y = (x.square() @ teacher).argmax(1)
        start = normal(10, self.width)
        batches = torch.randint(0, len(x), (self.steps, self.batch), generator=generator)
        a = shrinkage(self.lr, self.weight_decay, self.momentum)
        growing: Callable[[int], float] = lambda step: self.lr * a ** (-2 * step - 1)  # noqa: E731
        constant: Callable[[int], float] = lambda step: self.lr  # noqa: E731
        past = start * ((a - 1) / (self.lr * a))
        ways: dict[str, tuple[float, Callable[[int], float], Tensor | None]] = {
            "decay": (self.weight_decay, constant, None),
            "growing rate": (0.0, growing, past),
            "no past": (0.0, growing, None),
            "no decay": (0.0, constant, None),
        }
        losses: dict[str, list[float]] = {}
        directions: dict[str, list[Tensor]] = {}
        for place, (way, (decay, rate, before)) in enumerate(ways.items()):
            w = start.clone().requires_grad_()
            optimizer = build(f"sgd:momentum={self.momentum},weight_decay={decay}", [w], lr=self.lr)
            if before is not None:
                # A step at rate 0 moves nothing and leaves its gradient in the buffer.
                set_rate(optimizer, 0.0)
                w.grad = before
                optimizer.step()
            losses[way], directions[way] = [], []
            for step in range(self.steps):
                set_rate(optimizer, rate(step))
                optimizer.zero_grad()
                rows = batches[step]
                hidden = x[rows] @ w
                centred = hidden - hidden.mean(0)
                out = functional.relu(centred / centred.square().mean(0).sqrt()) @ head
                loss = functional.cross_entropy(out, y[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses[way].append(loss.item())
                directions[way].append(functional.normalize(w.detach(), dim=0))
                progress((place + (step + 1) / self.steps) / len(ways))
        apart = {
            way: [float((one - other).abs().max()) for one, other in zip(path, directions["decay"], strict=True)]
            for way, path in directions.items()
            if way != "decay"
        }
        values = {
            "same": max(apart["growing rate"][:_JUDGED]),
            "no past": max(apart["no past"][:_JUDGED]),
            "no decay": max(apart["no decay"][:_JUDGED]),
            "factor": shrinkage(0.1, 5e-4, 0.9) ** (-2 * 391),
        }
        steps = range(1, self.steps + 1)
        curves = tuple(Curve(steps, [max(d, 1e-17) for d in path], way) for way, path in apart.items())
        rates = tuple(
            Curve(steps, [ways[way][1](step) for step in range(self.steps)], way) for way in ("decay", "growing rate")
        )
        tail = max(1, self.steps // 10)
        table = {
            way: (math.fsum(losses[way][-tail:]) / tail, ways[way][1](self.steps - 1), max(apart.get(way, [0.0])))
            for way in ways
        }
        return Run(
            values,
            {
                "How far directions are from those under decay": Picture(curves, "steps", "distance", log_y=True),
                "The rates of the two that agree": Picture(rates, "steps", "learning rate", log_y=True),
            },
            Table(("", "loss, last tenth", "last rate", "largest distance"), table),
        )


def shrinkage(lr: float, weight_decay: float, momentum: float) -> float:
    """Return how much shorter weights become per step: the larger root of a² - (1 + m - lr wd) a + m = 0.

    Raises:
        UsageError: if there is no real root.
    """
    b = 1 + momentum - lr * weight_decay
    if b * b < 4 * momentum:
        raise UsageError(f"lr={lr:g}, weight_decay={weight_decay:g}: too much decay for momentum {momentum:g}.")
    return (b + math.sqrt(b * b - 4 * momentum)) / 2
