"""What methods for finite sums share: the loss over indices, passes over all examples, proximal steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Loss: TypeAlias = Callable[[Tensor], Tensor]
Prox: TypeAlias = Callable[[Tensor, float], Tensor]  # the proximal point of a penalty, for a step of this length


def l1(strength: float) -> Prox:
    """Return the proximal step of ``strength |w|``."""
    check("strength", strength, low=0.0)
    return lambda w, step: w.sign() * (w.abs() - step * strength).clamp(min=0.0)


def l2(strength: float) -> Prox:
    """Return the proximal step of ``strength / 2 w^2``."""
    check("strength", strength, low=0.0)
    return lambda w, step: w / (1 + step * strength)


class FiniteSum:
    """The full-gradient pass, the draw of indices, and the count of gradients of single examples."""

    def __init__(
        self,
        params: Iterable[Tensor],
        loss: Loss,
        examples: int,
        batch: int,
        chunk: int,
        generator: torch.Generator | None,
    ) -> None:
        self.params = list(params)
        check("examples", examples, low=1)
        check("batch", batch, low=1)
        if not self.params:
            raise ValueError("there are no parameters to train.")
        self.loss, self.examples, self.batch, self.chunk = loss, examples, batch, chunk
        self.generator = generator
        self.evaluated = 0

    @property
    def passes(self) -> float:
        """How many times as many gradients were taken as there are examples."""
        return self.evaluated / self.examples

    def draw(self) -> Tensor:
        """Return the indices of a batch, with replacement."""
        return torch.randint(self.examples, (self.batch,), generator=self.generator)

    def gradient(self, indices: Tensor, at: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return the gradient of some examples, at the parameters or at another point."""
        self.evaluated += len(indices)
        kept = [p.detach().clone() for p in self.params] if at is not None else None
        if at is not None:
            assign(self.params, at)
        try:
            with torch.enable_grad():
                found = torch.autograd.grad(self.loss(indices), self.params, allow_unused=True)
        finally:
            if kept is not None:
                assign(self.params, kept)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self.params, found, strict=True)]

    def sample(self, count: int) -> Tensor:
        """Return the indices of so many different examples, or of all."""
        if count == self.examples:
            return torch.arange(count)
        return torch.randperm(self.examples, generator=self.generator)[:count]

    def mean_gradient(self, indices: Tensor, at: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return the gradient over many examples, in chunks."""
        whole = [torch.zeros_like(p) for p in self.params]
        for part_of in torch.split(indices, self.chunk):
            for sum_, part in zip(whole, self.gradient(part_of, at), strict=True):
                sum_.add_(part, alpha=len(part_of) / len(indices))
        return whole

    def full_gradient(self, at: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return the gradient over all examples."""
        return self.mean_gradient(torch.arange(self.examples), at)

    def reduced(self, snapshot: Sequence[Tensor], mean: Sequence[Tensor]) -> list[Tensor]:
        """Return ``grad_i(x) - grad_i(snapshot) + mean``: unbiased, and of no variance where x is the snapshot."""
        indices = self.draw()
        state = torch.get_rng_state()
        here = self.gradient(indices)
        torch.set_rng_state(state)  # both points must see the same dropout
        there = self.gradient(indices, snapshot)
        return [a - b + m for a, b, m in zip(here, there, mean, strict=True)]


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the scalar product of two points."""
    return float(sum(((p * q).sum() for p, q in zip(a, b, strict=True)), torch.zeros(())))


@torch.no_grad()
def assign(params: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Put a point into the parameters."""
    for p, value in zip(params, values, strict=True):
        p.copy_(value)


def check(name: str, value: float, *, low: float, high: float = float("inf"), low_open: bool = False) -> None:
    """Raise `ValueError` for a setting that is out of range."""
    if not (value > low if low_open else value >= low) or not value <= high:
        allowed = f"above {low:g}" if low_open else f"{low:g} or more"
        raise ValueError(f"{name}={value!r}: it must be {allowed}{f' and at most {high:g}' if high < 1e300 else ''}.")
