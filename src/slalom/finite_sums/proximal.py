"""Proximal gradients on the whole loss: ISTA, and FISTA with restarts and backtracking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from slalom.finite_sums.base import Prox, assign, check, dot


class FISTA:
    """Accelerated proximal gradients on the whole loss (Beck & Teboulle 2009), with restarts and backtracking.

        x+ = prox(y - grad f(y) / L, 1 / L)
        t+ = (1 + sqrt(1 + 4 t^2)) / 2,     y = x+ + (t - 1) / t+ (x+ - x)

    Restarted, t returns to 1 and y to x+ (O'Donoghue & Candes 2012, arXiv:1204.3982): by "function" where the
    objective rose, by "gradient" where ``<y - x+, x+ - x> > 0``; both find the local convexity by themselves. With
    ``accelerate=False`` it is ISTA. Backtracking doubles L until the quadratic model holds at x+.

    Args:
        params: what is trained.
        loss: called without arguments, the smooth part f at the parameters.
        smoothness: L, or where backtracking begins.
        prox: of the penalty, if there is one.
        penalty: value of the penalty, for function restarts.
        restart: when to forget the momentum.
        backtracking: whether L is searched for.
        accelerate: False for ISTA.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        loss: Callable[[], Tensor],
        *,
        smoothness: float,
        prox: Prox | None = None,
        penalty: Callable[[], Tensor] | None = None,
        restart: Literal["none", "function", "gradient"] = "gradient",
        backtracking: bool = False,
        accelerate: bool = True,
    ) -> None:
        if restart not in ("none", "function", "gradient"):
            raise ValueError(f'restart={restart!r}: it must be "none", "function" or "gradient".')
        check("smoothness", smoothness, low=0.0, low_open=True)
        self.params = list(params)
        self.loss, self.penalty = loss, penalty
        self.smoothness, self.prox = smoothness, prox or (lambda w, step: w)
        self.restart, self.backtracking, self.accelerate = restart, backtracking, accelerate
        self.restarts = 0
        self._t = 1.0
        self._x = [p.detach().clone() for p in self.params]
        self._y = [x.clone() for x in self._x]
        self._objective = float("inf")

    def step(self) -> float:
        """Take one step, leave x in the parameters, and return the smooth loss at the point y it started from."""
        assign(self.params, self._y)
        with torch.enable_grad():
            value = self.loss()
            gradient = torch.autograd.grad(value, self.params)
        with torch.no_grad():
            start = float(value.detach())
            new = self._descend(start, gradient)
            assign(self.params, new)
            if self.accelerate and self._must_restart(new):
                self.restarts += 1
                self._t, self._y = 1.0, [x.clone() for x in new]
            elif self.accelerate:
                t = (1 + (1 + 4 * self._t**2) ** 0.5) / 2
                self._y = [n + (self._t - 1) / t * (n - x) for n, x in zip(new, self._x, strict=True)]
                self._t = t
            else:
                self._y = [x.clone() for x in new]
            self._x = new
        return start

    def _descend(self, value: float, gradient: Sequence[Tensor]) -> list[Tensor]:
        while True:
            length = 1 / self.smoothness
            new = [self.prox(y - length * g, length) for y, g in zip(self._y, gradient, strict=True)]
            if not self.backtracking:
                return new
            moved = [n - y for n, y in zip(new, self._y, strict=True)]
            model = value + dot(gradient, moved) + self.smoothness / 2 * dot(moved, moved)
            assign(self.params, new)
            # a hair above: near the end both sides agree to rounding
            if float(self.loss()) <= model + 1e-12 * abs(value):
                return new
            self.smoothness *= 2

    def _must_restart(self, new: Sequence[Tensor]) -> bool:
        if self.restart == "gradient":
            ahead = [y - n for y, n in zip(self._y, new, strict=True)]
            return dot(ahead, [n - x for n, x in zip(new, self._x, strict=True)]) > 0
        if self.restart == "function":
            before, now = self._objective, float(self.loss()) + (float(self.penalty()) if self.penalty else 0.0)
            self._objective = now
            return now > before
        return False
