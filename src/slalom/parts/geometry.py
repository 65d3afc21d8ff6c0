"""In which norm "steepest" is meant, and in which basis."""

from __future__ import annotations

from typing import Literal

from slalom.algebra import (
    Per,
    State,
    Value,
    let,
    maximum,
    norm,
    orthonormal,
    sign,
    sqrt,
    total,
)
from slalom.parts.base import Geometry
from slalom.parts.memory import Memory
from slalom.parts.norm import Euclidean, MaxEntry, Norm, SpectralNorm
from slalom.parts.polar import Iteration, NewtonSchulz
from slalom.parts.ranges import Decay, NonNegative, Positive
from slalom.parts.signals import Signals


class Sign(Geometry):
    """Steepest descent in the max norm (Bernstein et al. 2018, signSGD, arXiv:1802.04434).

        u <- sign(u)

    The sign of 0 is 0. Every coordinate moves by the same length, whatever its gradient.
    """

    lesson = MaxEntry.lesson

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

    lesson = SpectralNorm.lesson
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
