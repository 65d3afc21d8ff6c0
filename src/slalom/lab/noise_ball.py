"""P6: how far from the minimum noise keeps a constant rate, and how fast a falling rate comes in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from slalom.lab.methods import build, set_rate
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture


@phenomenon
@dataclass(frozen=True)
class NoiseBall(Phenomenon):
    """Many runs of SGD on x² / 2 with a gradient of x + noise, at constant rates and at a falling one.

    Args:
        steps: how many.
        runs: how many at once, of which means are taken.
        start: where each begins.
    """

    steps: int = 2000
    runs: int = 20_000
    start: float = 3.0

    name: ClassVar = "noise-ball"
    title: ClassVar = "where a constant rate stops, and how fast a falling one goes on"
    source: ClassVar = "Karimi, Nutini, Schmidt 2016, arXiv:1608.04636, Theorem 4"
    claim: ClassVar = (
        "With a constant rate a, SGD comes near fast and then stays at a distance that noise sets: for x² / 2 and "
        "noise of variance 1 the loss ends at a / (2 (2 - a)) exactly. With the rate (2k + 1) / (2 (k + 1)²) it "
        "never stops, and the loss falls like 1 / (2 (k + 1)). The theorem's bound for a constant rate is a / 4 "
        "times the second moment of the gradient. Read with the variance instead, as slides do, it is false: the "
        "truth is above it."
    )
    here: ClassVar = (
        "One coordinate, curvature 1, noise from N(0, 1). Nothing was tuned; a twentieth about theory is what "
        "20,000 runs can tell."
    )
    signs: ClassVar = (
        *(
            Sign(f"exact {rate}", f"rate {rate}: the loss where it stays, over a / (2 (2 - a))", "theory: 1",
                 low=0.95, high=1.05)
            for rate in (0.05, 0.2, 0.45)
        ),
        Sign("variance", "rate 0.45: that loss over the bound read with the variance, a / 4",
             "theory: 2 / (2 - a) = 1.29", low=1.05),
        Sign("moment", "rate 0.45: that loss over the bound with the second moment", "paper: at most 1",
             high=1.05),
        Sign("falling", "falling rate: (k + 1) times the loss, the mean of the last tenth", "theory: 0.5",
             low=0.47, high=0.53),
    )  # fmt: skip
    seconds: ClassVar = (2.0, 1.0)
    quick: ClassVar = {"steps": 500}
    variants: ClassVar = {
        "noise-ball:start=100.0": "from far away: a falling rate takes long to forget the start",
        "noise-ball:runs=100": "what a hundred runs can tell, and one cannot",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Run all rates."""
        generator = torch.Generator().manual_seed(seed)
        ways: list[float | None] = [0.05, 0.2, 0.45, None]
        tail = self.steps // 10
        curves, values = [], {}
        rows: dict[str, tuple[float | None, ...]] = {}
        for place, rate in enumerate(ways):
            x = torch.full((self.runs,), self.start, requires_grad=True)
            optimizer = build("sgd", [x], lr=rate or 1.0)
            losses, moment = [], 0.0
            for step in range(self.steps):
                if rate is None:
                    set_rate(optimizer, (2 * step + 1) / (2 * (step + 1) ** 2))
                x.grad = x.detach() + torch.randn(self.runs, generator=generator)
                moment += float(x.grad.square().mean()) / tail if step >= self.steps - tail else 0.0
                optimizer.step()
                losses.append(float(x.detach().square().mean()) / 2)
                progress((place + (step + 1) / self.steps) / len(ways))
            curves.append(Curve(range(1, self.steps + 1), losses, "falling" if rate is None else f"rate {rate:g}"))
            settled = math.fsum(losses[-tail:]) / tail
            if rate is None:
                ends = [(step + 1) * loss for step, loss in enumerate(losses)]
                values["falling"] = math.fsum(ends[-tail:]) / tail
                rows["falling"] = (losses[-1], 0.5 / self.steps, None, None)
            else:
                values[f"exact {rate}"] = settled / (rate / (2 * (2 - rate)))
                rows[f"rate {rate:g}"] = (settled, rate / (2 * (2 - rate)), rate / 4, moment * rate / 4)
                values["variance"], values["moment"] = settled / (rate / 4), settled / (moment * rate / 4)
        head = ("loss in the end", "measured", "theory", "bound, variance", "bound, second moment")
        picture = Picture(tuple(curves), "steps", "mean loss", log_x=True, log_y=True)
        return Run(values, {"Mean loss": picture}, Table(head, rows))
