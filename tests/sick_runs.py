"""Training runs that have one disease each, and some that are well; what `slalom.observe` is tried on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import slalom
from slalom.observe.record import Run

Batch = tuple[Tensor, Tensor]


def classes(steps: int, seed: int = 0) -> list[Batch]:
    """Fresh batches of points whose class a random linear map says, nine times out of ten."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(16, 4, generator=generator)
    batches = []
    for _ in range(steps):
        x = torch.randn(32, 16, generator=generator)
        y = (x @ teacher).argmax(1)
        wrong = torch.rand(32, generator=generator) < 0.1
        batches.append((x, torch.where(wrong, torch.randint(4, (32,), generator=generator), y)))
    return batches


def perceptron(*middle: nn.Module) -> nn.Sequential:
    """Three layers, or others in the middle; always with the same weights."""
    torch.manual_seed(1)
    layers = middle or (nn.Linear(32, 32), nn.ReLU())
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), *layers, nn.Linear(32, 4))
    for module in model:
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return model


def error(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]).float(), batch[1])


def trained(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor] = error,
    *,
    every: int = 10,
    before_step: Callable[[int], object] = lambda step: None,
    clears: bool = True,
    probes: bool = False,
) -> Run:
    """Train and watch.

    Args:
        before_step: called with the number of the step when gradients are there.
        clears: whether gradients are cleared, as they should be.
        probes: whether the loss is evaluated along each sampled step.
    """
    batch: Any = None
    probe = (lambda: loss(model, batch)) if probes else None
    with slalom.observe.watch(model, optimizer, every=every, probe=probe) as watch:
        for step, batch in enumerate(batches, 1):
            if clears:
                optimizer.zero_grad()
            value = loss(model, batch)
            if value.requires_grad:
                value.backward()
            before_step(step)
            optimizer.step()
            watch.loss(value)
    return watch.run()


def sgd(model: nn.Module, lr: float = 0.05, momentum: float = 0.9, **more: Any) -> torch.optim.Optimizer:
    """SGD at a rate that suits the perceptron."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, **more)


def adam(model: nn.Module, lr: float = 3e-3, **more: Any) -> torch.optim.Optimizer:
    """Adam at a rate that suits the perceptron."""
    return torch.optim.Adam(model.parameters(), lr=lr, **more)


class Point(nn.Module):
    """Coordinates on a surface."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([values]))


def quadratic(*curvatures: float, floor: float = 0.0) -> Callable[[nn.Module, Any], Tensor]:
    """Half the sum of curvature times square."""
    c = torch.tensor([curvatures])
    return lambda model, batch: floor + 0.5 * (c * model.w.square()).sum()


# --- the runs -------------------------------------------------------------------------------------------------------


def strangers() -> Run:
    model = perceptron()
    return trained(model, adam(copy.deepcopy(model)), classes(60))


def unheld() -> Run:
    model = perceptron()
    return trained(model, adam(model[2:]), classes(120))


class Spare(nn.Module):
    """A perceptron with a layer that it does not use, or uses times 0."""

    def __init__(self, weight: float | None) -> None:
        super().__init__()
        self.body, self.spare, self.weight = perceptron(), nn.Linear(16, 4), weight

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        return out if self.weight is None else out + self.weight * self.spare(x)


def no_gradient() -> Run:
    model = Spare(None)
    return trained(model, adam(model), classes(120))


def zero_gradient() -> Run:
    model = Spare(0.0)
    return trained(model, sgd(model), classes(120))


def frozen() -> Run:
    model = perceptron()
    optimizer = adam(model)
    model[0].requires_grad_(False)
    return trained(model, optimizer, classes(120))


def unmoved() -> Run:
    model = perceptron()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[1:].parameters()}]
    return trained(model, torch.optim.Adam(groups, lr=3e-3), classes(120))


def rounded_away() -> Run:
    model = perceptron().to(torch.bfloat16)

    def halves(model: nn.Module, batch: Batch) -> Tensor:
        return error(model, (batch[0].bfloat16(), batch[1]))

    return trained(model, torch.optim.Adam(model.parameters(), lr=1e-5), classes(120), halves)


def never_cleared() -> Run:
    model = perceptron()
    return trained(model, sgd(model, momentum=0.0), classes(200), clears=False)


def non_finite() -> Run:
    model = perceptron()
    return trained(model, sgd(model, lr=1e4), classes(60))


def diverging() -> Run:
    model = perceptron()
    optimizer = adam(model)

    def raise_the_rate(step: int) -> None:
        if step == 90:
            optimizer.param_groups[0]["lr"] = 1.0

    return trained(model, optimizer, classes(120), before_step=raise_the_rate)


def uphill() -> Run:
    model = perceptron()
    return trained(model, sgd(model, lr=1e-3, momentum=0.0, maximize=True), classes(120))


def overshooting() -> Run:
    model = Point(1.0, 1.0)
    return trained(model, sgd(model, 2.002, 0.0), range(120), quadratic(1.0, 0.01), probes=True)


def bouncing() -> Run:
    model = Point(1.0, 1.0)
    return trained(model, sgd(model, 2.0, 0.0), range(200), quadratic(1.0, 1e-4))


def creeping() -> Run:
    model = perceptron()
    return trained(model, adam(model, lr=1e-8), classes(200))


def noisy() -> Run:
    """A linear map learns its half of the targets; the other half changes too fast with the inputs to be anything."""
    model = nn.Linear(16, 32)
    waves = 50 * torch.randn(16, 32, generator=torch.Generator().manual_seed(1))

    def squares(model: nn.Module, batch: Batch) -> Tensor:
        x, _ = batch
        return (model(x) - x.repeat(1, 2) - 2 * (x @ waves).sin()).square().mean()

    return trained(model, sgd(model, 1.0, 0.0), classes(400), squares, every=20)


def flat() -> Run:
    model = Point(1.0, 1.0)
    return trained(model, sgd(model, 0.5, 0.0), range(200), quadratic(1.0, 0.5, floor=1.0))


def deep(activation: type[nn.Module], gain: float, depth: int = 12) -> nn.Sequential:
    model = perceptron(*(layer for _ in range(depth) for layer in (nn.Linear(32, 32), activation())))
    with torch.no_grad():
        for parameter in model[2:-1].parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=gain / math.sqrt(32))
    return model


def vanishing() -> Run:
    model = deep(nn.Sigmoid, 1.0, depth=6)
    return trained(model, sgd(model), classes(120))


def exploding() -> Run:
    model = deep(nn.Tanh, 6.0, depth=18)
    return trained(model, sgd(model, lr=1e-6, momentum=0.0), classes(60))


def dead_units() -> Run:
    model = perceptron()
    with torch.no_grad():
        model[2].bias[:20] -= 20.0
    return trained(model, sgd(model), classes(120))


def lopsided() -> Run:
    model = perceptron()
    groups = [{"params": model[0].parameters(), "lr": 3e-7}, {"params": model[1:].parameters()}]
    return trained(model, torch.optim.Adam(groups, lr=3e-3), classes(120))


def falling_asleep() -> Run:
    model = perceptron(nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU())
    with torch.no_grad():
        model[2].weight *= 0.1
    return trained(model, sgd(model, lr=0.1), classes(200))


def spiky() -> Run:
    model = perceptron()
    batches = classes(300)
    for place in range(5, 300, 40):
        x, y = batches[place]
        batches[place] = (x * 100, y.roll(1))
    return trained(model, adam(model), batches)


def heavy_tails() -> Run:
    model = nn.Linear(200, 4)
    generator = torch.Generator().manual_seed(0)
    often = 1 / torch.arange(1, 201).double() ** 2
    words = [torch.multinomial(often, 512, replacement=True, generator=generator) for _ in range(120)]

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(nn.functional.one_hot(batch, 200).float()), batch % 4)

    return trained(model, sgd(model, lr=0.02, momentum=0.0), words, loss)


def always_clipped() -> Run:
    model = perceptron()

    def clip(step: int) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)

    return trained(model, sgd(model), classes(120), before_step=clip)


def stale() -> Run:
    model = perceptron()

    def spike(step: int) -> None:
        if step == 3:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad *= 1e4

    return trained(model, adam(model, betas=(0.0, 0.9999)), classes(200), before_step=spike)


def epsilon() -> Run:
    model = perceptron()
    return trained(model, adam(model, lr=1.0, eps=10.0), classes(120))


SICK: dict[str, Callable[[], Run]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        strangers, unheld, no_gradient, zero_gradient, frozen, unmoved, rounded_away, never_cleared,
        non_finite, diverging, uphill, overshooting, bouncing, creeping, noisy, flat,
        vanishing, exploding, dead_units, lopsided, falling_asleep,
        spiky, heavy_tails, always_clipped, stale, epsilon,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Well:
    """A healthy run: of a race's workload, at a good rate."""

    workload: str
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    steps: int
    scheduled: bool

    def __call__(self) -> Run:
        from slalom.race.workload import reseed, stream
        from slalom.race.workloads import built_in

        workload = built_in()[self.workload]
        reseed(workload.name, 0, "model")
        model = workload.model()
        optimizer = self.optimizer(model)
        rates = [group["lr"] for group in optimizer.param_groups]
        batches = workload.batches(stream(workload.name, 0, "batches"))

        def schedule(step: int) -> None:
            factor = workload.schedule((step - 1) / self.steps) if self.scheduled else 1.0
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor

        limited = (batch for _, batch in zip(range(self.steps), batches, strict=False))
        return trained(model, optimizer, limited, workload.loss, every=25, before_step=schedule)
