"""Variance reduction for convex sums: SVRG around any optimizer, and Katyusha, its accelerated form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from slalom.finite_sums.base import FiniteSum, Loss, Prox, assign, check


class SVRG(FiniteSum):
    """Stochastic variance-reduced gradients around any optimizer (Johnson & Zhang 2013, NIPS).

        at a snapshot x~:   mu = full gradient
        g <- grad_i(x) - grad_i(x~) + mu              then the optimizer steps along g

    With plain SGD at a constant rate it converges linearly where SGD circles in a ball of noise. The loopless form
    (Kovalev et al. 2020) takes a new snapshot with a small probability at each step instead of every so many steps.
    State: the snapshot and its gradient; a step costs two gradients.

    Args:
        optimizer: moves the parameters; ``torch.optim.SGD`` or any of slalom's.
        loss: the mean loss of the examples with these indices.
        examples: how many there are.
        batch: indices per step.
        period: steps between snapshots; by default twice the number of batches, as for convex problems (five times
            is usual for others).
        probability: of a new snapshot at each step; replaces ``period``.
        snapshot: which point becomes the new one: the ``"last"``, the ``"average"`` of those since the snapshot before,
            or a ``"random"`` one of them; the parameters go on from there.
        chunk: examples per batch of the full-gradient pass.
        generator: draws indices.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        examples: int,
        *,
        batch: int = 1,
        period: int | None = None,
        probability: float | None = None,
        snapshot: Literal["last", "average", "random"] = "last",
        chunk: int = 1024,
        generator: torch.Generator | None = None,
    ) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        super().__init__(params, loss, examples, batch, chunk, generator)
        if probability is not None:
            check("probability", probability, low=0.0, high=1.0)
        self.optimizer = optimizer
        self.period = period if period is not None else max(1, 2 * examples // batch)
        check("period", self.period, low=1)
        if snapshot not in ("last", "average", "random"):
            raise ValueError(f'snapshot={snapshot!r}: it must be "last", "average" or "random".')
        self.probability = probability
        self._which = snapshot
        self._steps = self._since = 0
        self._kept: list[Tensor] = []
        self.refresh()

    def refresh(self) -> None:
        """Take a new snapshot, and pass over all examples."""
        if self._since and self._kept:
            assign(self.params, self._kept)
        self._since = 0
        self.snapshot = [p.detach().clone() for p in self.params]
        self.mean = self.full_gradient()

    def step(self) -> None:
        """Draw a batch and let the optimizer step along the reduced gradient."""
        for p, g in zip(self.params, self.reduced(self.snapshot, self.mean), strict=True):
            p.grad = g
        self.optimizer.step()
        self._steps += 1
        self._since += 1
        self._keep()
        if self.probability is None:
            due = self._steps % self.period == 0
        else:
            due = float(torch.rand((), generator=self.generator)) < self.probability
        if due:
            self.refresh()

    @torch.no_grad()
    def _keep(self) -> None:
        """Remember of the points since the last snapshot what the next one needs."""
        if self._which == "last":
            return
        if self._since == 1:
            self._kept = [p.clone() for p in self.params]
        elif self._which == "average":
            self._kept = [k + (p - k) / self._since for k, p in zip(self._kept, self.params, strict=True)]
        elif float(torch.rand((), generator=self.generator)) < 1 / self._since:  # each point is as likely as the others
            self._kept = [p.clone() for p in self.params]


class Katyusha(FiniteSum):
    """Accelerated variance reduction with negative momentum towards the snapshot (Allen-Zhu 2016, arXiv:1603.05953).

        x = tau1 z + tau2 x~ + (1 - tau1 - tau2) y
        g = grad_i(x) - grad_i(x~) + mu
        z+ = prox(z - alpha g, alpha),     y = prox(x - g / (3 L), 1 / (3 L))
        or, the paper's option II,         y = x + tau1 (z+ - z)
        tau1 = min(sqrt(m sigma / (3 L)), 1/2),   alpha = 1 / (3 tau1 L),   m = 2 n steps per snapshot

    The next snapshot is the mean of the y with weights ``(1 + alpha sigma)^j``. Where L / sigma is far above n it needs
    about ``sqrt(L / (sigma n))`` times fewer passes than SVRG. The parameters hold x while training; `finish` puts the
    snapshot there.

    Args:
        params: what is trained.
        loss: the mean loss of the examples with these indices, smooth part only.
        examples: how many there are.
        smoothness: L, of every example's loss (with batches, of theirs).
        convexity: sigma, the strong convexity of the sum or of the penalty.
        prox: of the penalty, if there is one.
        option: I, with a step of y's own, or II, which saves one proximal step.
        anchor: tau2, the pull towards the snapshot; the paper's 1/2 keeps reduced gradients that are off by much from
            being speeded up. With 0 it is Nesterov's acceleration of SVRG, which may diverge.
        batch, chunk, generator: as for `SVRG`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        loss: Loss,
        examples: int,
        *,
        smoothness: float,
        convexity: float,
        prox: Prox | None = None,
        option: Literal["I", "II"] = "I",
        anchor: float = 0.5,
        batch: int = 1,
        chunk: int = 1024,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(params, loss, examples, batch, chunk, generator)
        check("smoothness", smoothness, low=0.0, low_open=True)
        check("convexity", convexity, low=0.0, low_open=True)
        check("anchor", anchor, low=0.0, high=0.5)
        if option not in ("I", "II"):
            raise ValueError(f'option={option!r}: it must be "I" or "II".')
        self.period = max(1, 2 * examples // batch)
        self.smoothness, self.convexity = smoothness, convexity
        self.option, self.anchor = option, anchor
        self.prox: Prox = prox or (lambda w, step: w)
        self.tau = min((self.period * convexity / (3 * smoothness)) ** 0.5, 0.5)
        self.alpha = 1 / (3 * self.tau * smoothness)
        self.snapshot = [p.detach().clone() for p in self.params]
        self._y = [x.clone() for x in self.snapshot]
        self._z = [x.clone() for x in self.snapshot]

    @torch.no_grad()
    def epoch(self) -> None:
        """Pass over all examples at the snapshot, take the inner steps, and move the snapshot."""
        mean = self.full_gradient(self.snapshot)
        growth = 1 + self.alpha * self.convexity
        weight, total = 1.0, 0.0
        average = [torch.zeros_like(x) for x in self.snapshot]
        rest = 1 - self.tau - self.anchor
        for _ in range(self.period):
            x = [
                self.tau * z + self.anchor * s + rest * y
                for z, s, y in zip(self._z, self.snapshot, self._y, strict=True)
            ]
            assign(self.params, x)
            g = self.reduced(self.snapshot, mean)
            before = self._z
            self._z = [self.prox(z - self.alpha * d, self.alpha) for z, d in zip(before, g, strict=True)]
            if self.option == "I":
                short = 1 / (3 * self.smoothness)
                self._y = [self.prox(point - short * d, short) for point, d in zip(x, g, strict=True)]
            else:
                self._y = [p + self.tau * (z - old) for p, z, old in zip(x, self._z, before, strict=True)]
            total += weight
            average = [a + (weight / total) * (y - a) for a, y in zip(average, self._y, strict=True)]
            weight *= growth
        self.snapshot = average

    def finish(self) -> None:
        """Put the snapshot into the parameters."""
        assign(self.params, self.snapshot)
