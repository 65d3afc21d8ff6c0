"""Geometry in a few directions: what an optimizer remembers is thin, as long as one side and as wide as a rank.

Matrices are seen with their longer side as rows, and the shorter side is projected: ``P`` is (shorter side x rank),
and of a matrix of m x n a recipe in the subspace remembers ``rank max(m, n)`` numbers for each that it would else
keep for every element. Kernels are (out, in * k * k).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from slalom.algebra import (
    State,
    Value,
    gaussian,
    lerp,
    let,
    maximum,
    minimum,
    norm,
    orthonormal,
    pick,
    placed,
    right_vectors,
    sqrt,
    strongest,
    total,
    turned,
    where,
)
from slalom.parts.base import Geometry, Inner, Part
from slalom.parts.geometry import refuse_vectors
from slalom.parts.memory import Memory
from slalom.parts.polar import Iteration, PolarExpress
from slalom.parts.ranges import Decay, Fraction, NonNegative, check_count
from slalom.parts.signals import Signals


class Subspace(Part, abstract=True):
    """Which directions: a matrix of shape (shorter side x rank)."""

    slot = "subspace"
    rank: int = 128

    def basis(self, tall: Value, x: Signals, s: Memory) -> Value:
        """Return the directions of this step, for a gradient with its longer side as rows."""
        raise NotImplementedError


class Singular(Subspace):
    """The gradient's own first singular vectors, looked for now and then (GaLore, arXiv:2403.03507).

        P <- the first right singular vectors of the gradient         every ``frequency`` steps, from the first

    Args:
        rank: how many; a side that is shorter has only as many as it is long.
        frequency: steps from one decomposition to the next.
    """

    rank: int = 128
    frequency: int = 200
    P = State(per="right_rank", view="tall")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Singular", "rank", self.rank)
        check_count("Singular", "frequency", self.frequency)

    def basis(self, tall: Value, x: Signals, s: Memory) -> Value:
        s.P = where((x.t - 1) % self.frequency <= 0, right_vectors(tall, self.rank), s.P)
        return s.P


class Random(Subspace):
    """Random directions, other ones now and then, and nothing is remembered (APOLLO, arXiv:2412.05270).

        P ~ N(0, 1 / rank)         drawn anew every ``frequency`` steps

    P is a function of the seed and of how often it was drawn (see `algebra.chance`): a resumed run sees the
    same numbers, as does every executor, and matrices of one shape share them. The authors give each its own seed.

    Args:
        rank: how many; a side that is shorter has only as many as it is long.
        frequency: steps from one drawing to the next.
        seed: of all drawings.
    """

    rank: int = 128
    frequency: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Random", "rank", self.rank)
        check_count("Random", "frequency", self.frequency)

    def basis(self, tall: Value, x: Signals, s: Memory) -> Value:
        drawn = (x.t - 1 - (x.t - 1) % self.frequency) / self.frequency
        return let("P", gaussian(tall, self.rank, self.seed, drawn))


def _inside(x: Signals, rank: int, down: Callable[[Value], Value]) -> Signals:
    """Return the signals as they are in a subspace."""
    rows, columns = maximum(x.rows, x.columns), minimum(rank, minimum(x.rows, x.columns))
    seen = x.through(lambda letter, a: let(f"{letter}′", down(a)))
    return seen.replace(w=down(x.w), rows=rows, columns=columns, size=rows * columns)


class InSubspace(Geometry):
    """GaLore: run a recipe on what the gradient is in a few directions (Zhao et al. 2024, arXiv:2403.03507).

        u <- scale inner(u P) P^T

    The inner recipe's states are as thin as what it sees; they stay as they are when the directions change, as in the
    authors' code. A step has the rank of the subspace. Vectors are not projected.

    Args:
        inner: the recipe that runs in the subspace; Adam in GaLore.
        subspace: where the directions come from.
        scale: of the step; the paper's alpha.
        of: whose directions: the ``"gradient"``'s, or those of the ``"direction"`` that a momentum outside suggests
            (Conda).
    """

    inner: Inner
    subspace: Subspace = Singular()
    scale: NonNegative = 0.25
    of: Literal["gradient", "direction"] = "gradient"

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        if x.ndim < 2:
            return self.inner.direct(x, s).divided()
        seen = x.grad if self.of == "gradient" else x.direction
        p = self.subspace.basis(turned(seen, x.rows, x.columns), x, s.of(self.subspace))
        inside = _inside(x, self.subspace.rank, lambda a: turned(a, x.rows, x.columns) @ p)
        q = let("q", self.inner.direct(inside, s.thin(self.subspace.rank)).quotient())
        u = self.scale * turned(q @ p.T, x.rows, x.columns)
        return x.replace(direction=u, energy=u)


class ScaledAsInSubspace(Geometry):
    """APOLLO: the whole gradient, sized as a recipe sizes its random shadow (Zhu et al. 2024, arXiv:2412.05270).

        r = u P,   q = inner(r)
        u <- sqrt(scale) u |q| / (|r| + eps)         by channels, or by the tensor

    A channel is a row of the longer side. The step has full rank and the direction of the gradient: only lengths come
    from the subspace, where rank 1 may do. Vectors are not projected.

    Args:
        inner: the recipe that runs in the subspace; Adam in APOLLO.
        subspace: where the directions come from.
        per: what has a length: each ``channel``, or the ``tensor`` (APOLLO-Mini).
        scale: under the root, as in the authors' code (with ``scale_front``): 1, and 128 for APOLLO-Mini.
        eps: added to the length of the shadow.
    """

    inner: Inner
    subspace: Subspace = Random()
    per: Literal["channel", "tensor"] = "channel"
    scale: NonNegative = 1.0
    eps: NonNegative = 1e-8

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        if x.ndim < 2:
            return self.inner.direct(x, s).divided()
        tall = turned(x.direction, x.rows, x.columns)
        p = self.subspace.basis(tall, x, s.of(self.subspace))
        inside = _inside(x, self.subspace.rank, lambda a: turned(a, x.rows, x.columns) @ p)
        r, q = inside.direction, let("q", self.inner.direct(inside, s.thin(self.subspace.rank)).quotient())
        along: Literal["row", "tensor"] = "row" if self.per == "channel" else "tensor"
        length = let("s", sqrt(self.scale) * norm(q, along) / (norm(r, along) + self.eps * x.unit))
        u = turned(length * tall, x.rows, x.columns) if self.per == "channel" else length * x.direction
        return x.replace(direction=u, energy=u)


class TrackedSubspace(Geometry):
    """LDAdam: Adam in a subspace that follows the gradient at every step (Robert et al. 2024, arXiv:2410.16103).

        a = u + e
        b = rho m̂ P^T + (1 - rho) a                   hats: divided by 1 - beta^t, of the steps so far
        P′ = qr(b^T b P)                              one power iteration; singular vectors at the first step
        R = P^T P′,   m̃ = m R
        ṽ = (1 - beta2^(t-1)) |(v̂ - m̂^2) R^2 + (m̂ R)^2|         squares of elements
        m <- beta1 m̃ + (1 - beta1) a P′,   v <- beta2 ṽ + (1 - beta2) (a P′)^2
        e <- a - a P′ P′^T + beta1 / (1 - beta1) (m P^T - m̃ P′^T)
        u <- m̂ / (sqrt(v̂) + eps) P′^T

    What the subspace cannot hold of gradient and momentum is fed back with the next gradient. The authors keep it in
    the gradient's own memory, which must then never be zeroed; a gradient is not ours to write to, so here it is a
    state. Their code squares R twice; the paper, followed here, once.

    Args:
        rank: how many directions; a side that is shorter has only as many as it is long.
        beta1: decay of the first moment.
        beta2: decay of the second.
        rho: how much of the momentum is in what the directions are taken from.
        eps: added to the root.
    """

    rank: int = 16
    beta1: Decay = 0.908
    beta2: Decay = 0.99
    rho: Decay = 0.908
    eps: NonNegative = 1e-8
    P = State(per="right_rank", view="tall")
    m = State(per="left_rank", view="tall")
    v = State(per="left_rank", view="tall")
    e = State()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("TrackedSubspace", "rank", self.rank)

    def apply(self, x: Signals, s: Memory) -> Signals:
        refuse_vectors("TrackedSubspace()", x)
        x = x.divided()
        old, m, v = s.P, s.m, s.v
        # before the first step all of them are 0, whatever they are divided by
        grown1, grown2 = (where(x.t > 1, 1 - beta ** (x.t - 1), 1.0) for beta in (self.beta1, self.beta2))
        mean = let("m̂", m / grown1)
        a = let("a", turned(x.direction + s.e, x.rows, x.columns))
        b = let("b", lerp(mean @ old.T, a, 1 - self.rho))
        new = let("P′", where(x.t <= 1, right_vectors(a, self.rank), orthonormal(b.T @ (b @ old))))
        change = let("R", old.T @ new)
        carried, spread = let("m̃", m @ change), (v / grown2 - mean * mean) @ (change * change)
        moved = mean @ change
        g = let("g′", a @ new)
        s.m = lerp(g, carried, self.beta1)
        s.v = lerp(g * g, grown2 * abs(spread + moved * moved), self.beta2)
        lost = self.beta1 / (1 - self.beta1) * (m @ old.T - carried @ new.T)
        s.e = turned(a - g @ new.T + lost, x.rows, x.columns)
        s.P = new
        q = s.m / (1 - self.beta1**x.t) / (sqrt(s.v / (1 - self.beta2**x.t)) + self.eps * x.unit)
        u = turned(q @ new.T, x.rows, x.columns)
        return x.replace(direction=u, energy=u)


class StrongestPolar(Geometry):
    """Dion2: the polar factor of the part of a momentum that has grown most (Ahn et al. 2025, arXiv:2512.16928).

        M <- M + u
        K = the ``fraction`` of the shorter side's rows or columns with the largest sums of |M|
        u <- s polar(M[K]) there, 0 elsewhere
        M[K] <- mu M[K]                               what was not used stays whole: error feedback

    It is a momentum too, so recipes need no other. Work falls with the square of the fraction at the least.

    Args:
        fraction: how large a part, in (0, 1]; 1 is the polar factor of all.
        momentum: mu.
        scaling: s: ``"rms-to-rms"`` sqrt(rows / columns), or ``"none"``.
        iteration: how the polar factor is found.
    """

    fraction: Fraction = 0.25
    momentum: Decay = 0.95
    scaling: Literal["rms-to-rms", "none"] = "rms-to-rms"
    iteration: Iteration = PolarExpress()
    M = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        refuse_vectors("StrongestPolar()", x)
        x = x.divided()
        grown = let("M", s.M + x.direction)
        tall = turned(grown, x.rows, x.columns)
        which = let("K", strongest(total(abs(tall), "column"), self.fraction))
        part = pick(tall, which)
        s.M = grown - (1 - self.momentum) * turned(placed(part, which, tall), x.rows, x.columns)
        u = turned(placed(self.iteration.polar(part), which, tall), x.rows, x.columns)
        if self.scaling == "rms-to-rms":
            u = sqrt(x.rows / x.columns) * u
        return x.replace(direction=u, energy=u)
