"""Momenta and scales that remember rows, columns or blocks instead of elements.

A kernel of shape ``(out, in, 3, 3)`` counts as the matrix ``(out, in * 9)``: factoring its last two dimensions, as
torch and Hugging Face do, would keep two thirds of it. A vector is one row, for which such factors are exact.
"""

from __future__ import annotations

from typing import Literal

from slalom.algebra import (
    State,
    Value,
    blockwise,
    fold,
    largest,
    lerp,
    let,
    maximum,
    mean,
    minimum,
    sqrt,
    total,
    unfold,
    where,
)
from slalom.parts.base import Momentum, Scale
from slalom.parts.epsilon import Clamped, Epsilon, Inside, as_epsilon
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, Fraction, NonNegative, Positive
from slalom.parts.signals import Signals


def _outer_root(r: Value, c: Value, least: Value | float = 0.0) -> Value:
    """Return the root of ``r c^T / mean(r)``: one root per factor, whose product would leave float32's range first.

    The survey's form sqrt(mean(r) / r / c) saves a rounding, but its quotients overflow for statistics near 1e-37.
    """
    whole = mean(r)
    return sqrt(r / (maximum(whole, least) if least else whole)) * sqrt(c)


class Factored(Scale):
    """Adafactor's second moment from its row and column means (Shazeer & Stern 2018, arXiv:1804.04235).

        beta_t = 1 - t^decay
        r <- beta_t r + (1 - beta_t) mean of e^2 + eps along each row
        c <- the same along each column
        D = sqrt(r c^T / mean(r))

    A vector is one row, for which this is exactly the full second moment, as in the paper. beta_1 = 0 makes a bias
    correction needless. torch adds nothing to the squares: with ``floor="estimate"`` eps bounds mean(r) and D from
    below instead, which for gradients of root mean square under sqrt(eps) is another method.

    Args:
        decay: exponent of the growing memory, negative.
        eps: added to the squares, or the least estimate.
        floor: ``"squares"`` as in the paper, ``"estimate"`` as in torch.
        most: the largest beta_t; 0.999 in big_vision's Adafactor (Zhai et al. 2021, arXiv:2106.04560), 0 for no bound.
    """

    decay: float = -0.8
    eps: NonNegative = 1e-30
    floor: Literal["squares", "estimate"] = "squares"
    most: Decay = 0.0
    r = State(per="row")
    c = State(per="column")

    def apply(self, x: Signals, s: Memory) -> Signals:
        square = x.energy * x.energy
        forget: Value = x.t**self.decay
        if self.most:
            forget = maximum(forget, 1 - self.most)
        if self.floor == "squares":
            square = square + self.eps
        s.c = lerp(s.c, mean(square, "column"), forget)
        if self.floor == "estimate" and x.ndim < 2:
            return x.replace(metric=maximum(sqrt(s.c), self.eps))
        s.r = lerp(s.r, mean(square, "row"), forget)
        if self.floor == "squares":
            return x.replace(metric=_outer_root(s.r, s.c))
        return x.replace(metric=maximum(_outer_root(s.r, s.c, self.eps), self.eps))


class FactoredEma(Scale):
    """Adafactor's factors with a constant memory, as in CAME (Luo et al. 2023, arXiv:2307.02047).

        r <- beta r + (1 - beta) mean of e^2 + eps along each row
        c <- the same along each column
        D = sqrt(r c^T / mean(r))

    Not bias-corrected: the first steps are ``1 / sqrt(1 - beta)`` times as long, which update clipping must tame.

    Args:
        beta: decay of both averages.
        eps: added to the squares.
    """

    beta: Decay = 0.999
    eps: NonNegative = 1e-30
    r = State(per="row")
    c = State(per="column")

    def apply(self, x: Signals, s: Memory) -> Signals:
        square = x.energy * x.energy + self.eps
        s.r = lerp(s.r, mean(square, "row"), 1 - self.beta)
        s.c = lerp(s.c, mean(square, "column"), 1 - self.beta)
        return x.replace(metric=_outer_root(s.r, s.c))


class Confidence(Momentum):
    """CAME's momentum, shortened where updates stray from it (Luo et al. 2023, arXiv:2307.02047).

        m <- beta m + (1 - beta) u                      u the quotient, after whatever clipping comes before
        r <- beta_r r + (1 - beta_r) mean of (u - m)^2 + eps along each row
        c <- the same along each column
        u = m / sqrt(r c^T / mean(r))                   for a vector u = m

    Args:
        beta: decay of the momentum.
        beta_residual: beta_r, decay of the instability.
        eps: added to the squared residual.
    """

    beta: Decay = 0.9
    beta_residual: Decay = 0.9999
    eps: NonNegative = 1e-16
    m = State()
    r = State(per="row")
    c = State(per="column")

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        s.m = lerp(s.m, x.direction, 1 - self.beta)
        if x.ndim < 2:
            return x.replace(direction=s.m, trend=s.m)
        strayed = let("d", x.direction - s.m)
        residual = strayed * strayed + self.eps
        s.r = lerp(s.r, mean(residual, "row"), 1 - self.beta_residual)
        s.c = lerp(s.c, mean(residual, "column"), 1 - self.beta_residual)
        return x.replace(direction=s.m / _outer_root(s.r, s.c), trend=s.m)


class Cover(Scale):
    """SM3: AdaGrad's sums, bounded from one maximum per row and column (Anil et al. 2019, arXiv:1901.11150).

        I    r_i <- r_i + max of e^2 in row i,   c_j <- c_j + max of e^2 in column j,   nu_ij = min(r_i, c_j)
        II   nu_ij = min(r_i, c_j) + e^2,   r_i <- max of nu in row i,   c_j <- max of nu in column j
        D = sqrt(nu + eps)

    Always ``sum of e^2 <= nu of II <= nu of I``. For a vector both are AdaGrad. The paper covers a kernel by slices
    along each of its axes; here by rows and columns of its matrix, which are finer, so that the bound is tighter.

    Args:
        variant: ``"II"`` or ``"I"``.
        eps: see `slalom.parts.epsilon`; a plain number counts as `Inside`, as in the authors' code.
    """

    variant: Literal["I", "II"] = "II"
    eps: NonNegative | Epsilon = 1e-30
    r = State(per="row")
    c = State(per="column")

    def apply(self, x: Signals, s: Memory) -> Signals:
        square = x.energy * x.energy
        if self.variant == "I":
            s.r = s.r + largest(square, "row")
            s.c = s.c + largest(square, "column")
            nu = let("ν", minimum(s.r, s.c))
        else:
            nu = let("ν", minimum(s.r, s.c) + square)
            s.r, s.c = largest(nu, "row"), largest(nu, "column")
        eps = self.eps if isinstance(self.eps, Epsilon) else Inside(self.eps)
        return x.replace(metric=eps.root(nu, x.unit), divide=eps.divide())


def _scaled(letter: str, sums: Value) -> Value:
    """Divide sums by their total, unless that is 0."""
    sums = let(letter, sums)
    whole = total(sums)
    return where(whole > 0, sums / whole, sums)


class FoldedEma(Momentum):
    """SMMF's momentum: an average kept as two factors and one sign per element (Park & Lee 2024, arXiv:2412.08894).

        M = S r c^T,   M <- beta_t M + (1 - beta_t) g,   beta_t = beta growth^(t - 1)
        S <- sign of M,   r <- sums of |M| along rows,   c <- sums along columns, divided by their total
        u = M

    Rows and columns are those of the most square matrix that holds the tensor's elements, whatever its shape. The signs
    take one bit each (the authors' code keeps a byte); a bit says M > 0. Nothing is bias-corrected, and with
    growth < 1 the average forgets ever faster: after 700 steps beta has halved. A tensor whose size is a prime is not
    compressed.

    Args:
        beta: decay of the average at the first step.
        growth: factor of the decay per step.
    """

    beta: Decay = 0.9
    growth: Fraction = 0.999
    sign = State(format="sign", view="square")
    r = State(per="row", view="square")
    c = State(per="column", view="square")

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        m = let("M", lerp(s.sign * (s.r * s.c), fold(x.direction), 1 - self.beta * self.growth ** (x.t - 1)))
        size = abs(m)
        s.sign, s.r, s.c = m, total(size, "row"), _scaled("κ", total(size, "column"))
        direction = unfold(m, x.w)
        return x.replace(direction=direction, trend=direction)


class FoldedMoment(Scale):
    """SMMF's second moment, kept as two factors (Park & Lee 2024, arXiv:2412.08894).

        V = r c^T,   V <- beta_t V + (1 - beta_t) e^2,   beta_t = 1 - t^decay
        r <- sums of V along rows,   c <- sums along columns, divided by their total
        D = sqrt(V) + eps

    Rows and columns as in `FoldedEma`. Where `Factored` averages the squares' own sums, here the squares join the
    reconstruction before it is factored again: a gradient meets its own square exactly in the step that it makes.

    Args:
        decay: exponent of the growing memory, negative; -0.5 for convolutional networks, -0.8 for transformers.
        eps: see `slalom.parts.epsilon`.
    """

    decay: float = -0.5
    eps: NonNegative | Epsilon = 1e-8
    r = State(per="row", view="square")
    c = State(per="column", view="square")

    def apply(self, x: Signals, s: Memory) -> Signals:
        energy = fold(x.energy)
        v = let("V", lerp(s.r * s.c, energy * energy, x.t**self.decay))
        s.r, s.c = total(v, "row"), _scaled("κ", total(v, "column"))
        eps = as_epsilon(self.eps)
        return x.replace(metric=eps.root(unfold(v, x.w), x.unit), divide=eps.divide())


class BlockMoment(Scale):
    """Adam-mini's second moment: one number per block instead of per element (Zhang et al. 2024, arXiv:2406.16793).

        v_B <- beta v_B + (1 - beta) mean of e^2 over the block B
        D = sqrt(v_B / (1 - beta^t)) + eps

    A block is a row (an output unit), several rows (an attention head's), or the whole tensor. The state of several
    rows is still kept per row: next to the momentum of every element it weighs nothing.

    Args:
        beta: decay of the average.
        eps: see `slalom.parts.epsilon`.
        per: ``"row"`` or ``"tensor"``.
        blocks: into how many equal blocks the rows are gathered, such as the number of heads; 0 leaves them single.
    """

    beta: Decay = 0.999
    eps: NonNegative | Epsilon = 1e-8
    per: Literal["row", "tensor"] = "row"
    blocks: int = 0
    v = State(per="row")
    whole = State(per="tensor")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 0 or (self.blocks and self.per == "tensor"):
            raise ValueError(
                f"BlockMoment(per={self.per!r}, blocks={self.blocks!r}): blocks must be 0 or more and are of rows; "
                'leave it 0, or write per="row".'
            )

    def apply(self, x: Signals, s: Memory) -> Signals:
        square = mean(x.energy * x.energy, self.per)
        if self.per == "tensor":
            v = s.whole = lerp(s.whole, square, 1 - self.beta)
        else:
            square = blockwise(square, self.blocks) if self.blocks and x.ndim > 1 else square
            v = s.v = lerp(s.v, square, 1 - self.beta)
        eps = as_epsilon(self.eps)
        return x.replace(metric=eps.root(v, x.unit, 1 - self.beta**x.t), divide=eps.divide())


class ModelOriented(Scale):
    """Amos: steps and decay towards a known scale of the weights (Tian & Parikh 2022, arXiv:2210.11693).

        v <- beta v + (1 - beta) mean of e^2 over the unit,   q = mean of e^2 / (v / (1 - beta^t))
        c = 1 / sqrt(1 + slow_c sqrt(xi) b),   d = 1 / (1 + slow_d sqrt(xi eta) b)             (b as it was)
        D = sqrt(v / (1 - beta^t)) / (eta d)
        pull <- pull + d c xi q w / 2
        b <- b + gamma (1 + b),   gamma = c xi^2 q

    xi is the recipe's rate: about ``1 / sqrt(N)`` for N batches of training data. eta is the size, as a root mean
    square, that the weights of a trained model are expected to have; weights tend to it and rates fall by themselves,
    so there is no decay to tune and no schedule. By default it is 0.5 for vectors and ``gain / sqrt(columns)`` for
    matrices, as for hidden layers in the authors' example; give embeddings and others their own ``eta``.

    One pair of numbers per row (output unit) as in the paper, or per tensor. The authors' code keeps both per element
    unless it is given a function that says otherwise; its momentum is the form `Inertial`.

    Args:
        beta: decay of the average.
        eps: the least root; see `slalom.parts.epsilon`.
        per: the unit, ``"row"`` or ``"tensor"``.
        eta: the expected size; 0 to take it from the shape.
        gain: of a matrix whose eta follows from its shape.
        slow_c, slow_d: how fast decay and rate fall, 1/4 in the authors' code.
    """

    beta: Decay = 0.999
    eps: NonNegative | Epsilon = 1e-18
    per: Literal["row", "tensor"] = "row"
    eta: NonNegative = 0.0
    gain: Positive = 2**0.5
    slow_c: NonNegative = 0.25
    slow_d: NonNegative = 0.25
    v = State(per="row")
    b = State(per="row")
    v_whole = State(per="tensor")
    b_whole = State(per="tensor")

    def apply(self, x: Signals, s: Memory) -> Signals:
        square = mean(x.energy * x.energy, self.per)
        if self.per == "tensor":
            v, b = lerp(s.v_whole, square, 1 - self.beta), s.b_whole
        else:
            v, b = lerp(s.v, square, 1 - self.beta), s.b
        eta: Value | float = self.eta
        if not self.eta:
            eta = let("η", self.gain / sqrt(x.columns)) if x.ndim > 1 else 0.5
        xi = x.rate
        eps = self.eps if isinstance(self.eps, Epsilon) else Clamped(self.eps)
        root = eps.root(v, x.unit, 1 - self.beta**x.t)
        q = let("q", square / (root * root))
        c = let("c", 1 / sqrt(1 + self.slow_c * sqrt(xi) * b))
        d = let("d", 1 / (1 + self.slow_d * sqrt(xi * eta) * b))
        grown = b + c * xi * xi * q * (1 + b)
        if self.per == "tensor":
            s.v_whole, s.b_whole = v, grown
        else:
            s.v, s.b = v, grown
        return x.replace(metric=root / (eta * d), pull=x.pull + (0.5 * d * c * xi * q) * x.w, divide=eps.divide())
