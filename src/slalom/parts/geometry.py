"""In which norm "steepest" is meant, and in which basis."""

from __future__ import annotations

import math
from typing import Literal

from slalom.algebra import (
    Per,
    State,
    Value,
    eigenvectors,
    inverse_root,
    lerp,
    let,
    maximum,
    norm,
    ordering,
    orthonormal,
    refreshed_eigenvectors,
    sign,
    sqrt,
    total,
    where,
)
from slalom.parts.base import Decay, Geometry, Inner, Memory, NonNegative, Positive, Signals
from slalom.parts.norm import Euclidean, Norm
from slalom.parts.polar import Iteration, NewtonSchulz


class Sign(Geometry):
    """Steepest descent in the max norm (Bernstein et al. 2018, signSGD, arXiv:1802.04434).

        u <- sign(u)

    The sign of 0 is 0. Every coordinate moves by the same length, whatever its gradient.
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        return x.replace(direction=sign(x.direction))


class Steepest(Geometry):
    """Steepest descent in a norm of your choice (Bernstein & Newhouse 2024, arXiv:2409.20325).

        o = argmax <u, x> over |x| = 1
        u <- radius o,   or  radius <u, o> o  with ``scaled``: the dual norm of u times o

    Without scaling every step has the same length, and a constant rate ends in an orbit; with it steps shrink with
    the gradient. The Euclidean norm, scaled, is gradient descent; `MaxEntry` is signSGD; `SpectralNorm` is Muon.

    Args:
        norm: how length is measured (see `parts.norm`).
        scaled: multiply by the dual norm.
        radius: how long a step is in that norm, in units of the rate.
    """

    norm: Norm = Euclidean()
    scaled: bool = False
    radius: Positive = 1.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        if self.norm.matrices:
            refuse_vectors(f"Steepest({type(self.norm).__name__}())", x)
        x = x.divided()
        o = self.norm.oracle(x.direction, x)
        u = total(x.direction * o) * o if self.scaled else o
        return x.replace(direction=self.radius * u, energy=u)


class UnitLength(Geometry):
    """Steepest descent in the Euclidean norm: every step is one rate long.

        u <- u / (|u| + eps)

    Unlike the gradient edit `Normalize` it works on what momentum and scale have made of the gradient.

    Args:
        per: what has length 1: each ``row``, ``tensor``, the parameter ``group`` or the whole ``model``.
        eps: added to the length.
    """

    per: Per = "tensor"
    eps: NonNegative = 1e-8

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        return x.replace(direction=x.direction / (norm(x.direction, self.per) + self.eps * x.unit))


class Sinkhorn(Geometry):
    """SinkGD: rows and columns normalised in turn until all have their share (Scetbon et al. 2025, arXiv:2502.06742).

        repeat:  u <- sqrt(n) u / |row|,   u <- sqrt(m) u / |column|          for m rows and n columns
        written as  u = diag(a) u_0 diag(b),
            a_i = sqrt(n) / |row i of u_0 diag(b)|,  b_j = sqrt(m) / |column j of diag(a) u_0|

    Steepest descent in two norms at once, nearly; nothing is remembered. At convergence every element has root mean
    square 1 along its row and its column, whatever positive factors multiplied the rows and columns of the gradient.

    Args:
        iterations: how often.
        eps: the least norm that is divided by, so that rows and columns of zeros stay zero.
    """

    iterations: int = 5
    eps: Positive = 1e-12

    def apply(self, x: Signals, s: Memory) -> Signals:
        refuse_vectors("Sinkhorn()", x)
        x = x.divided()
        u = x.direction
        a: Value | float = 1.0
        b: Value | float = 1.0
        for _ in range(self.iterations):
            a = let("a", sqrt(x.columns) / maximum(norm(u * b, "row"), self.eps))
            b = let("b", sqrt(x.rows) / maximum(norm(u * a, "column"), self.eps))
        return x.replace(direction=a * u * b)


class Spectral(Geometry):
    """Muon's step: steepest descent in the spectral norm, scaled to the shape (Jordan et al. 2024, Muon).

        u <- s polar(u),   polar(U S V^T) = U V^T,   a kernel as the matrix (out, in * k * k)

    Args:
        scaling: s: ``"original"`` sqrt(max(1, rows / columns)); ``"rms"`` 0.2 sqrt(max(rows, columns)), with which
            AdamW's learning rate fits (Liu et al. 2025, arXiv:2502.16982); ``"rms-to-rms"`` sqrt(rows / columns), with
            which rates keep from width to width (Bernstein; Dion, Scion); ``"none"``.
        iteration: how the polar factor is found.
    """

    scaling: Literal["original", "rms", "rms-to-rms", "none"] = "original"
    iteration: Iteration = NewtonSchulz()

    def apply(self, x: Signals, s: Memory) -> Signals:
        refuse_vectors("Spectral()", x)
        x = x.divided()
        u = self.iteration.polar(x.direction)
        if self.scaling == "original":
            u = sqrt(maximum(1.0, x.rows / x.columns)) * u
        elif self.scaling == "rms":
            u = 0.2 * sqrt(maximum(x.rows, x.columns)) * u
        elif self.scaling == "rms-to-rms":
            u = sqrt(x.rows / x.columns) * u
        return x.replace(direction=u, energy=u)


def refuse_vectors(who: str, x: Signals) -> None:
    """Raise `ValueError` for a parameter that is no matrix."""
    if x.ndim < 2:
        raise ValueError(
            f"{who} needs matrices, but this parameter has {x.ndim} dimensions: "
            "give such parameters another recipe, as in ByRole(matrix=..., rest=...)."
        )


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

        inside = x.through(lambda letter, a: let(f"{letter}′", rotate(a)))
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


class LowRankPolar(Geometry):
    """Dion: the polar factor of a momentum, a few directions at a time (Ahn et al. 2025, arXiv:2504.05295).

        M <- M + u
        P = qr(M Q),   R = M^T P                       one power iteration from the last step's Q
        M <- M - (1 - mu) P R^T                        what was not used is kept: error feedback
        Q <- R with columns of length 1
        u <- s P Q^T

    It is a momentum too, so recipes need no other. At full rank it tends to the polar factor.

    Args:
        rank: how many directions; matrices smaller than that use all.
        momentum: mu.
        scaling: s: ``"rms-to-rms"`` sqrt(rows / columns), or ``"none"``.
    """

    rank: int = 64
    momentum: Decay = 0.95
    scaling: Literal["rms-to-rms", "none"] = "rms-to-rms"
    M = State()
    Q = State(per="right_rank", init="normal")

    def apply(self, x: Signals, s: Memory) -> Signals:
        refuse_vectors("LowRankPolar()", x)
        x = x.divided()
        grown = let("M", s.M + x.direction)
        p = let("P", orthonormal(grown @ s.Q))
        r = let("R", grown.T @ p)
        s.M = grown - (1 - self.momentum) * (p @ r.T)
        s.Q = r / (norm(r, "column") + 1e-8)
        u = p @ s.Q.T
        if self.scaling == "rms-to-rms":
            u = sqrt(x.rows / x.columns) * u
        return x.replace(direction=u, energy=u)


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
