"""Preconditioners that are Kronecker products: a factor for the rows of a matrix and one for its columns."""

from __future__ import annotations

import math
from typing import Literal

from slalom.algebra import (
    State,
    Value,
    eigenvectors,
    inverse_root,
    lerp,
    let,
    ordering,
    refreshed_eigenvectors,
    total,
    where,
)
from slalom.parts.base import Decay, Geometry, Inner, Memory, Positive, Signals


class Eigenbasis(Geometry):
    """SOAP: run a recipe in the slowly rotating eigenbasis of Shampoo's factors (Vyas et al. 2024, arXiv:2409.11321).

        L <- beta L + (1 - beta) g g^T,   R <- beta R + (1 - beta) g^T g
        Q_L, Q_R  their eigenvectors, refreshed every ``frequency`` steps by one QR power iteration
        u <- Q_L inner(Q_L^T u Q_R) Q_R^T

    Every signal is rotated, so the inner recipe is written as if there were no basis. The authors sort the basis
    before each refresh and permute with it what lives inside; here the refreshed basis is sorted back, which is the
    same without touching anyone's state. The first step only looks, so recipes delay the rest by one step
    (`Delayed`, `Hold`). Vectors are not rotated.

    Args:
        inner: the recipe that runs in the basis; SOAP has Adam's second moment there.
        beta: decay of the factors.
        frequency: steps between refreshes.
    """

    inner: Inner
    beta: Decay = 0.95
    frequency: int = 10
    L = State(per="left")
    R = State(per="right")
    Q_L = State(per="left")
    Q_R = State(per="right")

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2:
            return self.inner.direct(x, s).divided()
        left, right = s.Q_L, s.Q_R

        def rotate(a: Value) -> Value:
            return left.T @ a @ right

        grad = let("g′", rotate(x.grad))
        # Where a signal is the gradient itself, it stays the gradient itself.
        direction, energy, trend = (
            grad if signal is x.grad else let(f"{letter}′", rotate(signal))
            for letter, signal in (("u", x.direction), ("e", x.energy), ("m", x.trend))
        )
        inside = x.replace(grad=grad, direction=direction, energy=energy, trend=trend)
        u = left @ let("q", self.inner.direct(inside, s).quotient()) @ right.T
        s.L = lerp(s.L, x.grad @ x.grad.T, 1 - self.beta)
        s.R = lerp(s.R, x.grad.T @ x.grad, 1 - self.beta)
        s.Q_L = self._refreshed(s.L, left, x.t)
        s.Q_R = self._refreshed(s.R, right, x.t)
        return x.divided().replace(direction=u)

    def _refreshed(self, factor: Value, basis: Value, t: Value) -> Value:
        order = let("P", ordering(factor, basis))
        improved = refreshed_eigenvectors(factor, basis @ order) @ order.T
        due = (t - 1) % self.frequency <= 0
        return where(t <= 1, eigenvectors(factor), where(due, improved, basis))


class Kronecker(Geometry):
    """Shampoo: factors for rows and columns, and an inverse root of each (Gupta et al. 2018, arXiv:1802.09568).

        L <- beta L + (1 - beta) g g^T,   R <- beta R + (1 - beta) g^T g      or sums
        A = L^(-1/p),   B = R^(-1/p)
        u <- A u B                          ``product``: Shampoo, p = 4
        u <- A A u + 2 A u B + u B B        ``sum``: CASPR, the Kronecker sum squared (Duvvuri et al., ICLR 2024)

    Roots are taken every ``frequency`` steps from factors corrected for their short history. A root that is not
    finite is not used: the one before stays. The paper keeps sums and takes roots at every step. Vectors pass through.
    Blocks, as in distributed Shampoo, are not cut: a side of length n costs n^2 numbers and n^3 operations.

    Args:
        beta: decay of the factors; 0 where they are sums.
        sums: keep sums.
        eps: added to eigenvalues, after shifting negative ones to 0.
        root: p.
        frequency: steps between roots.
        combine: how the two sides meet.
    """

    beta: Decay = 0.95
    sums: bool = False
    eps: Positive = 1e-12
    root: int = 4
    frequency: int = 1
    combine: Literal["product", "sum"] = "product"
    L = State(per="left")
    R = State(per="right")
    P_L = State(per="left")
    P_R = State(per="right")

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        if x.ndim < 2:
            return x
        s.L = self._grown(s.L, x.grad @ x.grad.T)
        s.R = self._grown(s.R, x.grad.T @ x.grad)
        s.P_L = self._refreshed("A", s.L, s.P_L, x.t)
        s.P_R = self._refreshed("B", s.R, s.P_R, x.t)
        a, b = s.P_L, s.P_R
        if self.combine == "product":
            u = let("q", a @ x.direction @ b)
        else:
            half = let("J", a @ x.direction + x.direction @ b)
            u = let("q", a @ half + half @ b)
        return x.replace(direction=u, energy=u)

    def _grown(self, factor: Value, new: Value) -> Value:
        return factor + new if self.sums else lerp(factor, new, 1 - self.beta)

    def _refreshed(self, letter: str, factor: Value, old: Value, t: Value) -> Value:
        known = factor if self.sums else factor / (1 - self.beta**t)
        new = let(letter, inverse_root(known, self.root, self.eps))
        usable = where(total(abs(new)) < math.inf, new, old)
        return where((t - 1) % self.frequency <= 0, usable, old)
