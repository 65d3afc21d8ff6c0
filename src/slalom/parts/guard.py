"""What is refused or re-scaled once the direction and its metric are known."""

from __future__ import annotations

from typing import Literal

from slalom.algebra import (
    Per,
    State,
    Value,
    exp,
    largest,
    lerp,
    let,
    maximum,
    mean,
    minimum,
    norm,
    positive,
    sign,
    sqrt,
    total,
    where,
)
from slalom.parts.base import Guard
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, Fraction, NonNegative, Positive
from slalom.parts.signals import Signals


class TrustRatio(Guard):
    """Layer-wise ratio: tensors move by equal fractions of their length (You et al. 2019, LAMB, arXiv:1904.00962).

        r = phi(|w|) / |u|,   1 where either norm is 0,   u = direction / metric + pull
        phi(x) = min(max(x, low), high)
        direction, pull <- min(r, most) (direction, pull)

    A decay that stands before it in the recipe's order is inside the ratio, as in the paper, which leaves phi open; its
    experiments bound lengths by 10 in some versions. ``most=1`` is timm's ``trust_clip``.

    Args:
        low, high: bounds of phi; 0 for none.
        most: the largest ratio; 0 for none.
    """

    low: NonNegative = 0.0
    high: NonNegative = 0.0
    most: NonNegative = 0.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        length, step = norm(x.w), norm(x.quotient() + x.pull)
        phi = maximum(length, self.low) if self.low else length
        phi = minimum(phi, self.high) if self.high else phi
        ratio = phi / step
        r = let("r", where((length > 0) & (step > 0), minimum(ratio, self.most) if self.most else ratio, 1.0))
        return x.replace(direction=r * x.direction, pull=r * x.pull)


class ClipUpdate(Guard):
    """Adafactor's update clipping (Shazeer & Stern 2018, arXiv:1804.04235).

        direction <- direction / max(1, RMS(direction / metric) / threshold)

    Args:
        threshold: the largest root mean square that passes unchanged.
    """

    threshold: Positive = 1.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        q = x.quotient()
        return x.replace(direction=x.direction / maximum(1.0, sqrt(mean(q * q)) / self.threshold))


class ShapeRate(Guard):
    """SPlus's rate by shape: the larger a matrix, the smaller a step of each element (Frans et al. 2025, 2506.07254).

        direction, pull <- r (direction, pull)
        r = 2 / (rows + columns) for a matrix,   ``vectors`` for anything else

    A matrix of signs then moves its outputs about as far whatever its shape, so that rates keep from width to width.

    Args:
        vectors: r of vectors.
    """

    vectors: Positive = 1e-3

    def apply(self, x: Signals, s: Memory) -> Signals:
        r = let("r", 2 / (x.rows + x.columns)) if x.ndim > 1 else self.vectors
        return x.replace(direction=r * x.direction, pull=r * x.pull)


class SameNorm(Guard):
    """Divide by the metric, but leave every tensor its norm: only proportions change (NorMuon, arXiv:2510.05491).

    q = direction / metric,   direction <- q |direction| / |q|
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        before, y = norm(x.direction), x.divided()
        after = norm(y.direction)
        return y.replace(direction=y.direction * (before / where(after > 0, after, 1.0)))


class FixedRms(Guard):
    """Every tensor's step has the same root mean square, in units of the rate (AdaMuon, arXiv:2507.11005).

        direction <- rms q / RMS(q),   q = direction / metric

    Args:
        rms: how long; 0.2 is about what AdamW's steps have, so that its rates fit.
    """

    rms: Positive = 0.2

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        now = sqrt(mean(x.direction * x.direction))
        return x.replace(direction=x.direction * (self.rms / where(now > 0, now, 1.0)))


class GrowthLimit(Guard):
    """No step much longer than the last one, tensor by tensor: Fira's limiter (Chen et al. 2024, arXiv:2410.01623).

        u <- u / (max(|u| / (n + 1e-8), most) / most),   n <- |u|

    The first step passes, and so does one after a step of length 0, which the authors' code never leaves again.

    Args:
        most: by what factor a step may be longer.
    """

    most: Positive = 1.01
    n = State(per="tensor")

    def apply(self, x: Signals, s: Memory) -> Signals:
        length = norm(x.quotient())
        excess = let("ℓ", where(s.n > 0, maximum(length / (s.n + 1e-8), self.most) / self.most, 1.0))
        s.n = length / excess
        return x.replace(direction=x.direction / excess)


class LateCorrection(Guard):
    """Adam's bias corrections, after all that sees the length of a step without them (APOLLO's code; `GrowthLimit`).

        u <- u sqrt(1 - beta2^t) / (1 - beta1^t)

    Args:
        beta1: decay of a momentum that is not corrected itself.
        beta2: decay of a second moment that is not.
    """

    beta1: Decay = 0.9
    beta2: Decay = 0.999

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(direction=x.direction * (sqrt(1 - self.beta2**x.t) / (1 - self.beta1**x.t)))


class ClipRate(Guard):
    """StableAdamW: a shorter step where the gradient outgrows its metric (Wortsman et al. 2023, arXiv:2304.13013).

        r = 1 / max(1, RMS(g / D) / threshold)                        per tensor
        direction, pull <- r direction, r pull

    Like `ClipUpdate` it meets a metric that lags behind, but it looks at the gradient and not at the momentum, so it
    acts at once. A decay that stands before it in the recipe's order is slowed too, as in the paper.

    Args:
        threshold: the largest root mean square that passes unchanged.
    """

    threshold: Positive = 1.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        q = x.divide.quotient(x.grad, x.metric)
        r = let("r", 1 / maximum(1.0, sqrt(mean(q * q)) / self.threshold))
        return x.replace(direction=r * x.direction, pull=r * x.pull)


class ClipEach(Guard):
    """Clip every element of the quotient, or its length; ADOPT's bound may grow (Taniguchi et al. 2024, 2411.02853).

        u / D <- min(max(u / D, -c), c),   c = limit t^growth
        or, not per element,  u / D <- (u / D) / max(1, |u / D| / c)

    Args:
        limit: the bound at the first step.
        growth: power of the step count.
        per: what must not be longer: each ``"element"``, or the quotient of a whole ``"tensor"`` or ``"model"``.
    """

    limit: Positive = 1.0
    growth: NonNegative = 0.0
    per: Literal["element", "tensor", "model"] = "element"

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        c = self.limit * x.t**self.growth
        if self.per != "element":
            return x.replace(direction=x.direction / maximum(1.0, norm(x.direction, self.per) / c))
        return x.replace(direction=minimum(maximum(x.direction, -c), c))


class RelativeSize(Guard):
    """Adafactor's relative step in torch's convention, where the plain rate still scales the decay.

        direction <- direction max(floor, RMS(w)) min(1, 1 / (rate sqrt(t)))

    Times the rate that is `Relative`; but what pulls beside it, such as `Decoupled`, is scaled by the rate alone.

    Args:
        floor: the size that a smaller tensor counts as, so that zeros can move.
    """

    floor: Positive = 1e-3

    def apply(self, x: Signals, s: Memory) -> Signals:
        size = let("size", maximum(sqrt(mean(x.w * x.w)), self.floor))
        return x.replace(direction=size * minimum(1.0, 1 / (x.rate * sqrt(x.t))) * x.direction)


class Cautious(Guard):
    """Move only where momentum still agrees with the gradient (Liang et al. 2024, arXiv:2411.16085).

        phi = 1 where u g > 0, else ``rest``
        direction <- direction phi s

    The stored momentum is left alone. What is masked is made up for, per tensor, by s: ``"count"`` n / (ones + 1) as in
    the paper, ``"mean"`` 1 / max(mean of phi, 0.001) in the authors' code and timm, ``"none"`` 1. With some ``rest``
    what disagrees is slowed and not stopped (``cautious_factor`` of the package adam-atan2-pytorch).

    Args:
        normalize: how s is formed.
        rest: what is left of a coordinate that disagrees.
    """

    normalize: Literal["count", "mean", "none"] = "count"
    rest: Fraction = 0.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        agrees = positive(x.direction * x.grad)
        phi = let("φ", agrees + self.rest * (1 - agrees) if self.rest else agrees)
        masked = x.direction * phi
        if self.normalize == "count":
            masked = masked * (x.size / (mean(phi) * x.size + 1.0))
        elif self.normalize == "mean":
            masked = masked / maximum(mean(phi), 1e-3)
        return x.replace(direction=masked)


class Tangent(Guard):
    """AdamP: no growth of weights whose length does not matter (Heo et al. 2020, arXiv:2006.08217).

        c = |<w_i, g_i>| / (|w_i| |g_i|),   largest over rows i; a loss that ignores lengths has c = 0
        where c < delta / sqrt(columns):    u_i <- u_i - <u_i, n_i> n_i,   n_i = w_i / (|w_i| + eps)
                                            pull <- ratio pull
        else the same with the whole matrix as one row and delta / sqrt(elements);   else nothing

    u is the quotient. Vectors are left alone. A decay that stands before it in the recipe's order is weakened where it
    acts, since decay of such weights only raises their rate.

    Args:
        delta: how far from a right angle still counts as one.
        ratio: of the decay that remains.
        eps: added to lengths.
    """

    delta: Positive = 0.1
    ratio: Fraction = 0.1
    eps: NonNegative = 1e-8

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2:
            return x
        x = x.divided()
        by_row = let("c", largest(self._cosine(x, "row")) * sqrt(x.columns)) < self.delta
        whole = let("C", self._cosine(x, "tensor") * sqrt(x.size)) < self.delta
        radial = where(by_row, self._radial(x, "row"), where(whole, self._radial(x, "tensor"), 0.0))
        ratio = let("ratio", where(by_row, self.ratio, where(whole, self.ratio, 1.0)))
        return x.replace(direction=x.direction - radial, pull=ratio * x.pull)

    def _cosine(self, x: Signals, per: Per) -> Value:
        lengths = maximum(norm(x.w, per), self.eps) * maximum(norm(x.grad, per), self.eps)
        return abs(total(x.w * x.grad, per)) / lengths

    def _radial(self, x: Signals, per: Per) -> Value:
        """Return the part of the step along the weights."""
        n = x.w / (norm(x.w, per) + self.eps)
        return n * total(n * x.direction, per)


class GradientSign(Guard):
    """Grams: the length of the step from momentum, its sign from the gradient (Cao, Li & Song 2024, arXiv:2412.17107).

    direction <- sign(g) |direction|
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(direction=sign(x.grad) * abs(x.direction))


class Friction(Guard):
    """Slow down where the gradient hardly changes: diffGrad (Dubey et al. 2019, arXiv:1909.11015), and AdaGL.

        d = |g_prev - g|                                             g_prev = 0 at the first step
        direction <- direction / (1 + exp(-d))                       ``"sigmoid"``, diffGrad's: from 1/2 to 1
        direction <- direction (1.1 - 1 / (2 (1 + d)))               ``"rational"``, AdaGL's: from 0.6 to 1.1

    diffGrad's published experiments ran with a bug that made the factor 1/2 throughout; this is the formula.

    Args:
        curve: which factor.
    """

    curve: Literal["sigmoid", "rational"] = "sigmoid"
    previous = State(torch=("previous_grad",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        change = abs(s.previous - x.grad)
        s.previous = x.grad
        if self.curve == "sigmoid":
            return x.replace(direction=x.direction / (1 + exp(-change)))
        return x.replace(direction=x.direction * (1.1 - 1 / (2 * (1 + change))))


class Switch(Guard):
    """SWATS: from an adaptive method to SGD, at a rate its own steps give (Keskar & Socher 2017, arXiv:1712.07628).

        gamma = |q|^2 / <q, g>               q = u / D, over the whole model: SGD's rate that moves as far along q
        a <- beta2 a + (1 - beta2) gamma,    A = a / (1 - beta2^t)
        once A > 0 and |A - gamma| < tolerance A, not before the second step, for good:
        b <- beta1 b + (1 - beta1) g         (b = 0 until then)
        direction <- A b,   metric <- 1

    Rates are counted in units of the recipe's own, so that a schedule still holds after the switch; and the tolerance
    is relative, while the paper's is 1e-9 of a rate of about 1e-4. The switch is one for the whole model.

    Args:
        beta1: decay of SGD's momentum.
        beta2: decay of the estimate.
        tolerance: how close the newest rate must come to the average.
    """

    beta1: Decay = 0.9
    beta2: Decay = 0.999
    tolerance: Positive = 1e-5
    b = State()
    a = State(per="model")
    rate = State(per="model")
    switched = State(per="model")

    def apply(self, x: Signals, s: Memory) -> Signals:
        q, g = x.quotient(), x.grad
        along = let("along", total(q * g, "model"))
        known = abs(along) > 0
        gamma = let("γ", total(q * q, "model") / along)
        a = let("a⁺", where(known, lerp(s.a, gamma, 1 - self.beta2), s.a))
        settled = let("A", a / (1 - self.beta2**x.clock))
        close = (abs(settled - gamma) < self.tolerance * settled) & (x.clock > 1)
        was, rate = s.switched > 0, s.rate
        s.a = a
        s.rate = where(was, rate, settled)
        s.switched = where(was, 1.0, where(close & known, 1.0, 0.0))
        s.b = where(was, lerp(s.b, g, 1 - self.beta1), 0.0)
        y = x.divided()
        return y.replace(direction=where(was, rate * s.b, y.direction))


class SpectralCap(Guard):
    """AdamW^2: no step may be large next to its matrix, in the spectral norm (Qi et al. 2025, arXiv:2505.21910).

        r = min(1, tau max(sigma(W), floor) / (rate sigma(u / D)))          per matrix
        direction, pull <- r direction, r pull

    so that sigma(W) grows by a factor of at most 1 + tau. Largest singular values are estimated by power iterations
    that start where the last step's ended; an estimate is never below the longest row or column. It grows into the
    truth from below. Vectors are left alone. The paper's own tau could not be confirmed.

    Args:
        tau: the largest step, in lengths of the matrix.
        floor: the length that a smaller matrix counts as, so that zeros can move.
        iterations: power iterations per step, two passes over the matrix each.
    """

    tau: Positive = 1e-2
    floor: Positive = 1e-3
    iterations: int = 1
    of_weight = State(per="column", init=1.0)
    of_step = State(per="column", init=1.0)

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2:
            return x
        weight, s.of_weight = self._estimate("w", x.w, s.of_weight)
        step, s.of_step = self._estimate("u", x.quotient(), s.of_step)
        most = let("most", self.tau * maximum(weight, self.floor))
        length = let("length", x.rate * step)
        r = let("r", where(length > most, most / length, 1.0))
        return x.replace(direction=r * x.direction, pull=r * x.pull)

    def _estimate(self, letter: str, matrix: Value, vector: Value) -> tuple[Value, Value]:
        """Return the largest singular value and its right vector, both improved."""
        for _ in range(self.iterations):
            mapped = let(f"z_{letter}", total(matrix * total(matrix * vector, "row"), "column"))
            length = norm(mapped)
            vector = let(f"v_{letter}", where(length > 0, mapped / length, vector))
        longest = maximum(largest(norm(matrix, "row")), largest(norm(matrix, "column")))
        return let(f"σ_{letter}", maximum(norm(total(matrix * vector, "row")), longest)), vector
