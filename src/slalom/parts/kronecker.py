"""Preconditioners that are Kronecker products: a factor for the rows of a matrix and one for its columns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from slalom.algebra import (
    State,
    Value,
    as_precise_as,
    blocks,
    eigenvectors,
    gram,
    in_double,
    lerp,
    let,
    maximum,
    mean,
    minimum,
    refreshed_eigenvectors,
    sqrt,
    total,
    unblocks,
    when,
    where,
)
from slalom.parts.base import Geometry, Inner
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, NonNegative, Positive, check_count
from slalom.parts.roots import ByEigenvalues, InverseRoot
from slalom.parts.signals import Signals

Factors = Literal["same", "float64"]


def _declared(slots: Mapping[str, State], size: int, factors: Factors) -> Mapping[str, State]:
    """Return square matrices as there is one for each block, and what gathers in L and R as precise as asked for."""
    double = ("L", "R") if factors == "float64" else ()
    return {
        name: dataclasses.replace(slot, block=size, format="double" if name in double else slot.format)
        if slot.per in ("left", "right")
        else slot
        for name, slot in slots.items()
    }


class Eigenbasis(Geometry):
    """SOAP: run a recipe in the slowly rotating eigenbasis of Shampoo's factors (Vyas et al. 2024, arXiv:2409.11321).

        L <- beta L + (1 - beta) g g^T,   R <- beta R + (1 - beta) g^T g
        Q_L, Q_R  their eigenvectors, refreshed every ``frequency`` steps by one QR power iteration
        u <- Q_L inner(Q_L^T u Q_R) Q_R^T

    Every signal is rotated, so the inner recipe is written as if there were no basis. What it remembers of gradients as
    such, its momentum, is turned with the basis at each refresh: a momentum before the basis would give the same, and
    cost two more products in every step. The authors sort the basis before each refresh and permute with it what lives
    inside; here the refreshed basis is sorted back, which is the same without touching anyone's state. The first step
    is in the coordinates as they are; SOAP's only looks, so it delays the rest by one step (`Delayed`, `Hold`).
    Vectors are not rotated.

    A basis that is not finite is not used: the one before stays (the identity at first), ``failed`` counts it, and a
    warning says so (see `slalom.observe.failed_roots`).

    Args:
        inner: the recipe that runs in the basis; SOAP has Adam there.
        beta: decay of the factors.
        frequency: steps between refreshes.
        block: cut matrices into blocks of at most that side, each with a basis of its own; 0 cuts nothing. The authors
            leave a side of more than 10000 as it is.
        factors: the precision in which L and R are gathered, kept and decomposed: ``"same"`` as all arithmetic,
            ``"float64"`` for parameters of any. Products with gradients are formed in the former.
        refresh: by one ``"power"`` iteration from the basis before, or ``"exact"``, as SPlus does every 100 steps.
    """

    lesson = (
        "Q_L and Q_R turn gradients until their rows, and their columns, are uncorrelated on average. Shampoo's "
        "division by roots of L and R is in these coordinates a division of each entry by the size that it has on "
        "average: Adam's. So what is made for single entries runs there, such as Adam in SOAP, and follows every step; "
        "the basis may be refreshed only now and then."
    )
    inner: Inner
    beta: Decay = 0.95
    frequency: int = 10
    block: int = 0
    factors: Factors = "same"
    refresh: Literal["power", "exact"] = "power"
    L = State(per="left")
    R = State(per="right")
    Q_L = State(per="left", init="identity")
    Q_R = State(per="right", init="identity")
    failed = State(per="tensor")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(type(self).__name__, "frequency", self.frequency)
        check_count(type(self).__name__, "block", self.block, 0)

    def slots(self) -> Mapping[str, State]:
        """Return the factors and their eigenvectors, for each block."""
        return _declared(super().slots(), self.block, self.factors)

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2:
            return self.inner.direct(x, s).divided()
        left, right = s.Q_L, s.Q_R
        inside = x.through(lambda letter, a: let(f"{letter}′", self._turned(a, left.mT, right)))
        noted, notes = s.noting()
        q = let("q", self._quotient(self.inner.direct(inside, noted), s))
        u = self._turned(q, left, right.mT)
        self._gather(x, inside.grad, s)
        due = (x.t - 1) % self.frequency <= 0
        new_left, lost_left = self._refreshed("L", s.L, left, x.t, due)
        new_right, lost_right = self._refreshed("R", s.R, right, x.t, due)
        s.Q_L, s.Q_R = new_left, new_right
        s.failed = where(due, s.failed + lost_left + lost_right, s.failed)

        def followed(m: Value) -> Value:
            return self._turned(self._turned(m, left, right.mT), new_left.mT, new_right)

        notes.change(lambda m: where(due, followed(m), m))
        return x.divided().replace(direction=u)

    def _turned(self, a: Value, left: Value, right: Value) -> Value:
        return unblocks(left @ blocks(a, self.block) @ right, a)

    def _quotient(self, inside: Signals, s: Memory) -> Value:
        """Return the step in the basis."""
        return inside.quotient()

    def _gather(self, x: Signals, grad: Value, s: Memory) -> None:
        """Let the factors see this step's gradient."""
        g = self._precise(blocks(x.grad, self.block))
        s.L = lerp(s.L, gram(g), 1 - self.beta)
        s.R = lerp(s.R, gram(g.mT), 1 - self.beta)

    def _precise(self, x: Value) -> Value:
        return in_double(x) if self.factors == "float64" else x

    def _refreshed(self, side: str, factor: Value, basis: Value, t: Value, due: Value) -> tuple[Value, Value]:
        """Return the basis after this step, and how many could not be had."""
        new = eigenvectors(factor)
        if self.refresh == "power":
            new = where(t <= 1, new, refreshed_eigenvectors(factor, self._precise(basis)))
        new = let(f"E_{side}", as_precise_as(new, basis) if self.factors == "float64" else new)
        sound = total(abs(new), "block") < math.inf
        lost = where(sound, 0.0, 1.0)
        after = let(f"Q_{side}⁺", where(due, where(sound, new, basis), basis))
        return after, total(lost) if self.block else lost


class KLEigenbasis(Eigenbasis, name="kl_eigenbasis"):
    """KL-Shampoo and KL-SOAP: the factors that fit in Kullback-Leibler divergence (Lin et al. 2025, arXiv:2509.03378).

        L <- beta L + (1 - beta) g R^-1 g^T / columns,   R <- beta R + (1 - beta) g^T L^-1 g / rows
        l <- beta l + (1 - beta) mean over columns of g'^2 / r,   r likewise: eigenvalues of L and R
        u <- Q_L ( inner(g') / (sqrt(l r^T) + eps) ) Q_R^T                     KL-Shampoo
        u <- Q_L ( inner(g') ) Q_R^T                                           KL-SOAP, with Adam inside

    Each factor sees the gradient as the other has whitened it, and eigenvalues are followed in every step, not only at
    a refresh. At the first step, which only looks, both inverses are 1; eigenvalues begin at 0.1. Roots of
    inverse eigenvalues are limited to max(10, min(side, 4000)), as in the authors' code; it computes in bfloat16.

    Args:
        inner: what runs in the basis: a momentum, or Adam.
        eigenvalues: divide by the roots of the eigenvalues.
        eps: added to those.
    """

    eigenvalues: bool = True
    eps: NonNegative = 1e-8
    l = State(per="row", init=0.1)  # noqa: E741  (the paper's lambda_a)
    r = State(per="column", init=0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block:
            raise ValueError(f"KLEigenbasis(block={self.block}): it cuts no blocks; leave block at 0.")

    def _quotient(self, inside: Signals, s: Memory) -> Value:
        q = inside.quotient()
        return q / (sqrt(s.l * s.r) + self.eps) if self.eigenvalues else q

    def _gather(self, x: Signals, grad: Value, s: Memory) -> None:
        rows, columns, l, r = x.rows, x.columns, s.l, s.r  # noqa: E741
        first, before = x.t <= 1, let("l′", l)  # what r follows is l as it was
        whitened = let("Y", where(first, x.grad, x.grad @ s.Q_R / sqrt(r)))
        other = let("Z", where(first, x.grad.mT, x.grad.mT @ s.Q_L / sqrt(l).mT))
        s.L = lerp(s.L, gram(self._precise(whitened)) / columns, 1 - self.beta)
        s.R = lerp(s.R, gram(self._precise(other)) / rows, 1 - self.beta)
        s.l = where(first, l, self._followed(l, mean(grad * grad / r, "row"), rows))
        s.r = where(first, r, self._followed(r, mean(grad * grad / before, "column"), columns))

    def _followed(self, values: Value, new: Value, side: Value) -> Value:
        most = maximum(10.0, minimum(side, 4000.0))
        return maximum(lerp(values, new, 1 - self.beta), 1 / (most * most))


class Kronecker(Geometry):
    """Shampoo: factors for rows and columns, and an inverse root of each (Gupta et al. 2018, arXiv:1802.09568).

        L <- beta L + (1 - beta) g g^T,   R <- beta R + (1 - beta) g^T g      or sums
        A = L^(-1/p),   B = R^(-1/p)
        u <- A u B                          ``product``: Shampoo, p = 4
        u <- A A u + 2 A u B + u B B        ``sum``: CASPR, the Kronecker sum squared (Duvvuri et al., ICLR 2024)

    Roots are taken every ``frequency`` steps from factors corrected for their short history. A root that is not
    finite is not used: the one before stays (the identity at first), ``failed`` counts it, and a warning says so once
    (see `slalom.observe.failed_roots`). The paper keeps sums and takes roots at every step.

    ``block`` cuts a matrix, as distributed Shampoo does (Shi et al. 2023, arXiv:2309.06497), so that a side of length n
    costs n ``block`` numbers and not n^2. A side is cut into equal pieces; the authors cut off whole blocks and leave a
    rest. ``chained`` is the AlgoPerf entry "CASPR Adaptive": columns see the gradient as A has whitened it,
    ``R <- beta R + (1 - beta) (A g)^T (A g) / rows``.

    Args:
        beta: decay of the factors; 0 where they are sums.
        sums: keep sums.
        eps: added to eigenvalues, after shifting negative ones to 0.
        root: p. A vector has one factor and so p / 2.
        frequency: steps between roots.
        combine: how the two sides meet.
        block: the largest side of a block; 0 cuts nothing.
        start: the step that takes the first roots; until then A and B are the identity.
        vectors: give vectors a factor too, of n^2 numbers or n ``block``; they pass through otherwise.
        chained: see above.
        inverse: how roots are taken.
        factors: the precision in which L and R are gathered, kept and their roots taken: ``"same"`` as all arithmetic,
            ``"float64"`` for parameters of any. The roots themselves are kept as everything else, for the products.
            The authors' code has single precision by default.
    """

    lesson = (
        "L and R remember in which directions outputs and inputs were moved, and how far. Were g = U S Vᵀ all that "
        "they have seen, L = U S² Uᵀ and R = V S² Vᵀ, so fourth roots make L^(-1/4) g R^(-1/4) = U Vᵀ: the polar "
        "factor, Muon's step. "
        "With a history, directions in which gradients are large on average are shortened, and rare ones are not."
    )
    beta: Decay = 0.95
    sums: bool = False
    eps: Positive = 1e-12
    root: int = 4
    frequency: int = 1
    combine: Literal["product", "sum"] = "product"
    block: int = 0
    start: int = 1
    vectors: bool = False
    chained: bool = False
    inverse: InverseRoot = ByEigenvalues()
    factors: Factors = "same"
    L = State(per="left")
    R = State(per="right")
    P_L = State(per="left", init="identity")
    P_R = State(per="right", init="identity")
    failed = State(per="tensor")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("frequency", 1), ("start", 1), ("block", 0), ("root", 1)):
            check_count("Kronecker", name, getattr(self, name), least)

    def slots(self) -> Mapping[str, State]:
        """Return the factors and their roots, for each block."""
        return _declared(super().slots(), self.block, self.factors)

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        if x.ndim < 2:
            return self._vector(x, s) if self.vectors else x
        g, u = blocks(x.grad, self.block), blocks(x.direction, self.block)
        due = self._due(x.t)
        s.L = self._grown(s.L, g)
        a, lost_left = self._root("A", s.L, s.P_L, x.t, self.root)
        s.P_L = when(due, a, s.P_L)
        a = s.P_L
        s.R = self._grown(s.R, (a @ g).mT, x.rows) if self.chained else self._grown(s.R, g.mT)
        b, lost_right = self._root("B", s.R, s.P_R, x.t, self.root)
        s.P_R = when(due, b, s.P_R)
        b = s.P_R
        s.failed = when(due, s.failed + lost_left + lost_right, s.failed)
        if self.combine == "product":
            q = let("q", a @ u @ b)
        else:
            half = let("J", a @ u + u @ b)
            q = let("q", a @ half + half @ b)
        return self._along(unblocks(q, x.direction), x)

    def _vector(self, x: Signals, s: Memory) -> Signals:
        due = self._due(x.t)
        s.R = self._grown(s.R, blocks(x.grad, self.block).mT)
        b, lost = self._root("B", s.R, s.P_R, x.t, max(1, self.root // 2))
        s.P_R = when(due, b, s.P_R)
        s.failed = when(due, s.failed + lost, s.failed)
        return self._along(unblocks(let("q", blocks(x.direction, self.block) @ s.P_R), x.direction), x)

    @staticmethod
    def _along(u: Value, x: Signals) -> Signals:
        return x.replace(direction=u, energy=u)

    def _grown(self, factor: Value, g: Value, rows: Value | float = 1.0) -> Value:
        new = gram(in_double(g) if self.factors == "float64" else g) / rows
        return factor + new if self.sums else lerp(factor, new, 1 - self.beta)

    def _due(self, t: Value) -> Value | bool:
        """Return whether roots are taken in step t."""
        if self.frequency == 1 and self.start == 1:
            return True
        on_time = (t - self.start) % self.frequency <= 0
        return on_time if self.start == 1 else (t >= self.start) & on_time

    def _root(self, letter: str, factor: Value, old: Value, t: Value, root: int) -> tuple[Value, Value]:
        """Return the root, or the old one where it is not finite, and how many failed so."""
        known = factor if self.sums else factor / (1 - self.beta**t)
        new = self.inverse.of(known, root, self.eps)
        new = let(letter, as_precise_as(new, old) if self.factors == "float64" else new)
        sound = total(abs(new), "block") < math.inf
        lost = where(sound, 0.0, 1.0)
        return where(sound, new, old), total(lost) if self.block else lost
