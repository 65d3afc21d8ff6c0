"""Where the prior pulls, apart from the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from slalom.algebra import (
    State,
    Value,
    is_constant_along,
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
from slalom.parts.base import Regularize
from slalom.parts.memory import Memory
from slalom.parts.ranges import NonNegative, Positive
from slalom.parts.signals import Signals

Growth: TypeAlias = Literal["fixed", "incremental", "square", "adaptive"]


class _Growing(Regularize, abstract=True):
    """A penalty whose strength may grow. A subclass has the fields ``strength`` and ``growth``.

    Lazy forms hold ``strength`` (fixed), ``t strength`` (incremental), ``sqrt(t) strength`` (square) or ``D strength``
    (adaptive, D the metric). Greedy forms can only pay as they go: the difference of two steps; for a fixed penalty,
    which has none, the full strength.
    """

    def _groups(self) -> Literal["element", "row", "column"]:
        """Return what shares one strength."""
        return "element"

    def slots(self) -> Mapping[str, State]:
        """Return the metric of the last step where the penalty grows with it, else nothing."""
        adaptive = self.growth == "adaptive"  # type: ignore[attr-defined]
        return {"last": State(per=self._groups(), name="last")} if adaptive else {}

    def _now_and_past(self, x: Signals, s: Memory) -> tuple[Value, Value]:
        """Return what the penalty weighs at this step, for greedy forms, and what lazy forms hold on to beside it."""
        strength: Value = self.strength  # type: ignore[attr-defined]
        growth: Growth = self.growth  # type: ignore[attr-defined]
        none: Value = 0.0  # type: ignore[assignment]
        if growth == "fixed":
            return strength, none
        if growth == "incremental":
            return strength, strength * (x.t - 1)
        if growth == "square":
            past = strength * sqrt(x.t - 1)
            return strength * sqrt(x.t) - past, past
        metric, seen, per = x.metric, abs(x.direction), self._groups()
        if per != "element":
            metric = metric if is_constant_along(metric, per) else sqrt(mean(metric * metric, per))
            seen = norm(x.direction, per)
        # An epsilon is no growth: nothing is asked of what has never had a gradient.
        metric = let("D′", where(seen + s.last > 0, metric, 0.0))
        last, s.last = s.last, metric
        # A metric may fall: what a greedy form has paid it does not get back.
        return strength * maximum(metric - last, 0.0), strength * minimum(last, metric)


class Decoupled(Regularize):
    """Decoupled weight decay in torch's convention (Loshchilov & Hutter 2017, arXiv:1711.05101).

        pull <- pull + lambda w            so that  w <- w - rate (u + lambda w)

    The paper multiplies by the schedule alone, not by the base rate: its lambda is this one times the base rate.

    Args:
        weight_decay: lambda, in units of the learning rate.
        base: decay the point that an average adds steps to and not the one where gradients are taken, under
            Schedule-Free z and not y; the same where there is none.
    """

    weight_decay: NonNegative = 1e-2
    base: bool = False

    def apply(self, x: Signals, s: Memory) -> Signals:
        w = x.w + x.ahead() if self.base else x.w
        return x.replace(pull=x.pull + self.weight_decay * w)


class TowardsStart(Regularize):
    """Decay towards where training began instead of towards 0.

        pull <- pull + lambda (w - w0)

    It keeps what pre-training knows (L2-SP: Li, Grandvalet & Davoine 2018, arXiv:1802.01483), and the plasticity of a
    network that goes on learning (L2 Init: Kumar, Marklund & Van Roy 2023, arXiv:2308.11958; "regenerative" in the
    package adam-atan2-pytorch). Those add it to the loss; here it is decoupled, as `Decoupled` is.

    Args:
        weight_decay: lambda, in units of the learning rate.
    """

    weight_decay: NonNegative = 1e-2
    start = State(init="parameter")

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(pull=x.pull + self.weight_decay * (x.w - s.start))


class FixedDecay(Regularize):
    """Decoupled weight decay that no rate multiplies: every step takes the same share.

        pull <- pull + (lambda / rate) w       so that  w <- (1 - lambda) w - rate u;  nothing at a rate of 0

    AdamW's paper multiplies by the schedule, so between this and `Decoupled`: scale ``weight_decay`` with the schedule
    for its form.

    Args:
        weight_decay: lambda, per step.
    """

    weight_decay: NonNegative = 1e-5

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(pull=x.pull + where(x.rate > 0, self.weight_decay / x.rate, 0.0) * x.w)


class SquaredDecay(Regularize):
    """Decay by the square of the rate, so that weights settle at a length that the rate does not change (AdamC).

        pull <- pull + lambda rate w           so that  w <- w - rate u - lambda rate^2 w

    Weights before a normalisation settle where decay and steps balance; under `Decoupled` that length depends on the
    rate, and gradients grow as it falls (Defazio 2025, arXiv:2506.02285, which divides by the largest rate of the
    schedule: its lambda is this one times that rate). As ScheduleFree+ has it (2605.19095), whose rate finds itself.

    Args:
        weight_decay: lambda, in units of the squared rate: 20 to 50 where torch's AdamW has 0.1.
    """

    weight_decay: NonNegative = 20.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(pull=x.pull + self.weight_decay * x.rate * x.w)


class Shrinkage(Regularize):
    """The L2 pull as a gradient that neither momentum nor the scale sees: TensorFlow's ``l2_shrinkage``.

        pull <- pull + lambda w / D                                  nothing where D is 0

    Divided by the metric as classic `L2` is, but the metric does not grow by it. In the lazy form it joins the
    gradients that z sums up, as there; lambda is twice TensorFlow's.

    Args:
        strength: lambda.
    """

    strength: NonNegative = 1e-4

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(pull=x.pull + where(x.metric > 0, self.strength / x.metric, 0.0) * x.w)


class StableDecay(Regularize):
    """Decay in proportion to the usual effective rate of the whole model (Xie et al. 2020, AdamS, arXiv:2011.11152).

        pull <- pull + lambda w / sqrt(mean of D^2 over the model)         0 while every D is 0

    As gradients shrink the step grows, and so does this decay; `Decoupled` stays behind. lambda is of the size of an L2
    penalty, not of AdamW's. The authors' mean leaves out the epsilon that is in D here.

    Args:
        weight_decay: lambda.
    """

    weight_decay: NonNegative = 1e-4

    def apply(self, x: Signals, s: Memory) -> Signals:
        one = let("one", positive(1 + abs(x.w)))  # per element, to count all that the model has
        squares = total(x.metric * x.metric * one, "model")
        usual = let("usual", sqrt(squares / total(one, "model")))
        return x.replace(pull=x.pull + where(usual > 0, self.weight_decay / usual, 0.0) * x.w)


class Constrained(Regularize):
    """CPR: each matrix has a largest length, kept by a multiplier (Franke et al. 2023, AdamCPR, arXiv:2311.09058).

        a = w - rate (u + pull)                                    where the step leads without this part
        l <- max(0, l + mu' (R(a) - kappa))
        w <- a - l R'(a)                                           nothing at a rate of 0

    While R is below kappa there is no decay at all. Vectors are left alone. What R is, and mu':

        "square"      sum of a^2, mu / elements: the authors' package, by default
        "half"        half of that, mu: the paper
        "l1"          sum of |a|, mu / elements
        "huber"       sum of a^2 / 2 where |a| < 1, of |a| - 1/2 elsewhere; mu / elements
        "deviation"   the standard deviation (of n - 1), mu

    How kappa comes about:

        "uniform"     kappa itself
        "dependent"   kappa times R(w) at the start
        "warm_start"  R(a) at the step number ``steps``; nothing happens before
        "inflection"  R(a) when, sampled every ``steps`` steps, it first grows by less than the time before

    The last is the paper's idea; the package smooths lengths and compares relative slopes.

    Args:
        kappa: the bound, or its multiple.
        kappa_init: how it comes about.
        steps: of the warm start, or between samples.
        mu: how fast the multiplier reacts.
        measure: R.
        by_rate: multiply the pull by the rate (``reg_by_lr`` in the package).
    """

    kappa: Positive = 1.0
    kappa_init: Literal["uniform", "dependent", "warm_start", "inflection"] = "uniform"
    steps: int = 1000
    mu: Positive = 1.0
    measure: Literal["square", "half", "l1", "huber", "deviation"] = "square"
    by_rate: bool = False
    multiplier = State(per="tensor")
    bound = State(per="tensor")
    last = State(per="tensor")
    growth = State(per="tensor")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"Constrained(steps={self.steps!r}): steps must be 1 or more.")

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2:
            return x
        ahead = let("a", x.w - x.rate * (x.quotient() + x.pull))
        length, slope = self._measured(ahead, x.size)
        kappa, known = self._bound(x, s, length)
        moves = x.rate > 0
        mu = self.mu if self.measure in ("half", "deviation") else self.mu / x.size
        raised = maximum(s.multiplier + mu * (length - kappa), 0.0)
        s.multiplier = where(moves, where(known, raised, 0.0), s.multiplier)
        strength = s.multiplier if self.by_rate else where(moves, s.multiplier / x.rate, 0.0)
        return x.replace(pull=x.pull + strength * slope)

    def _measured(self, a: Value, size: Value) -> tuple[Value, Value]:
        """Return R and its gradient."""
        if self.measure == "l1":
            return total(abs(a)), sign(a)
        if self.measure == "huber":
            near = abs(a) < 1
            return total(where(near, a * a / 2, abs(a) - 0.5)), where(near, a, sign(a))
        if self.measure == "deviation":
            centred = a - mean(a)
            deviation = let("R", sqrt(total(centred * centred) / maximum(size - 1, 1.0)))
            return deviation, where(deviation > 0, 1 / (maximum(size - 1, 1.0) * deviation), 0.0) * centred
        if self.measure == "half":
            return total(a * a) / 2, a
        return total(a * a), 2 * a

    def _bound(self, x: Signals, s: Memory, length: Value) -> tuple[Value | float, Value | bool]:
        """Return kappa, and whether it is known yet."""
        if self.kappa_init == "uniform":
            return self.kappa, True
        if self.kappa_init == "dependent":
            s.bound = where(x.t > 1, s.bound, self.kappa * self._measured(x.w, x.size)[0])
            return s.bound, True
        if self.kappa_init == "warm_start":
            s.bound = where(x.t > self.steps, s.bound, length)  # not used before
            return s.bound, x.t >= self.steps
        due = x.t % self.steps <= 0
        growth = length - s.last
        bends = (growth < s.growth) & (x.t >= 3 * self.steps) & due  # two samples make a growth, three a bend
        s.bound = where(s.bound > 0, s.bound, where(bends, length, 0.0))
        s.growth = where(due, growth, s.growth)
        s.last = where(due, length, s.last)
        return s.bound, s.bound > 0


class ProximalDecay(Regularize):
    """Decoupled weight decay as a proximal step, a division (Zhuang et al. 2022, arXiv:2202.00089).

        w <- (w - rate u) / (1 + rate lambda)

    It never changes a sign and is stable for every lambda; `Decoupled` agrees to first order. In lazy forms it is a
    penalty in the coordinate's own metric.

    Args:
        weight_decay: lambda, in units of the learning rate.
    """

    weight_decay: NonNegative = 1e-2

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(l2=x.l2 + self.weight_decay * x.metric)


class ProximalL2(_Growing):
    """A classic L2 penalty as a proximal step: coordinates with a small metric, seen rarely, decay more.

        greedy  w <- (w - rate u / D) / (1 + rate l2 / D)
        lazy    w = -z / (h + l2)

    `ProximalDecay` divides all coordinates alike instead.

    Args:
        strength: weight of ``w^2 / 2`` in the objective.
        growth: how the lazy form's l2 grows with steps, see `L1`; "fixed" is FTRL-Proximal's as used in production.
    """

    strength: NonNegative = 1e-4
    growth: Growth = "incremental"

    def apply(self, x: Signals, s: Memory) -> Signals:
        now, past = self._now_and_past(x, s)
        return x.replace(l2=x.l2 + now, l2_past=x.l2_past + past)


class L1(_Growing):
    """An L1 penalty as a proximal step: exact zeros.

        greedy  w <- soft(w - rate u / D, rate l1 / D)
        lazy    w = 0 where |z| <= l1

    The lazy form holds l1 fixed, which selects features best and biases least, or lets it grow with the steps:
    incrementally, as a loss that is summed up would, or as their root, or as the metric of each coordinate, which under
    AdaGrad is the root of how much was seen of it. Greedy forms pay at every step what it grows by; a fixed one has no
    greedy analogue, they pay all of it at every step, as for an incremental one. "adaptive" asks nothing of what was
    not seen, so under AdaGrad rows without gradient rest, as under "fixed"; a greedy form keeps the last metric for it.

    Args:
        strength: weight of ``|w|`` in the objective.
        growth: the lazy form's l1: "fixed" is strength, "incremental" is ``t strength``, "square" is ``sqrt(t)
            strength``, "adaptive" is ``D strength``: what "adaptive square-incremental" most likely means, though no
            source spells it out.
    """

    strength: NonNegative = 1e-4
    growth: Growth = "fixed"

    def apply(self, x: Signals, s: Memory) -> Signals:
        now, past = self._now_and_past(x, s)
        return x.replace(l1=x.l1 + now, l1_past=x.l1_past + past)


class GroupL2(_Growing):
    """The sum of the lengths of rows or columns: whole rows of zeros (FSTR: Ni et al. 2019, CIKM, for embeddings).

        w_G = argmin  1/2 sum_i s_i (w_i - a_i)^2 + strength |w_G|          s the curvature, a the point without it
            = 0 where |s a| <= strength,   else  r a / (r + strength / s)   with  r = |w_G|

    Where the curvature is one number per group, r is known in closed form. Otherwise it is the root of
    ``|a / (r + strength / s)| = 1``, found by Newton's method on the inverse of the left side: that is concave, so
    the method climbs from 0 without overshooting, and six steps reach rounding for metrics that differ 10^6-fold.
    Also called L_1,2 or "L1 of L2", not to be confused with the half power (`HalfPower`). Vectors are left alone.

    Args:
        strength: weight of the sum of lengths; choose it in proportion to the root of the group's size.
        per: which groups: a "row" of an embedding is a feature, a "column" a dimension.
        growth: see `L1`.
    """

    strength: NonNegative = 1e-3
    per: Literal["row", "column"] = "row"
    growth: Growth = "fixed"

    def _groups(self) -> Literal["element", "row", "column"]:
        return self.per

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2 or not self.strength:
            return x
        return x.replace(penalties=(*x.penalties, (self, *self._now_and_past(x, s))))

    def shrink(self, point: Value, curvature: Value, strength: Value) -> Value:
        """Return the proximal point of the group norm."""
        point = let("a", point)
        length = let("‖s a‖", norm(curvature * point, self.per))
        if is_constant_along(curvature, self.per):
            return where(length > strength, 1 - strength / length, 0.0) * point
        offset = let("μ", strength / curvature)
        r: Value = 0.0  # type: ignore[assignment]
        for step in range(_NEWTON_STEPS):
            shape = let(f"f{_SUBSCRIPTS[step]}", point / (r + offset))
            square = let(f"F{_SUBSCRIPTS[step]}", total(shape * shape, self.per))
            slope = total(shape * shape / (r + offset), self.per)
            r = let(f"r{_SUBSCRIPTS[step]}", r + (sqrt(square) - 1) * square / slope)
        shrunk = where(length > strength, point * (r / (r + offset)), 0.0)
        # The iteration squares its quotient; and an adaptive strength may be 0, or what rounding leaves of it.
        return where(strength > 1e-10 * length, shrunk, point)


_NEWTON_STEPS: Final = 6
_SUBSCRIPTS: Final = "₁₂₃₄₅₆"


class HalfPower(_Growing):
    """The non-convex penalty ``|w|^(1/2)``: exact zeros, and less pull on what is large (Xu et al. 2012, L_1/2).

        w = argmin  s/2 (w - a)^2 + strength |w|^(1/2)
          = 0 where  c >= 2 / sqrt(54),   c = strength / (2 s |a|^(3/2)),   else  a q^2,   q^3 - q + c = 0

    q is the largest root, by Newton's method from 1. The survivors of the threshold are at least 2/3 of a.

    Args:
        strength: weight of the sum of roots.
        growth: see `L1`.
    """

    strength: NonNegative = 1e-3
    growth: Growth = "fixed"

    def apply(self, x: Signals, s: Memory) -> Signals:
        if not self.strength:
            return x
        return x.replace(penalties=(*x.penalties, (self, *self._now_and_past(x, s))))

    def shrink(self, point: Value, curvature: Value, strength: Value) -> Value:
        """Return the proximal point of the half power."""
        point = let("a", point)
        size = abs(point)
        c = let("c", strength / (2 * curvature * size * sqrt(size)))
        q: Value = 1 - c / 2  # the first step
        for step in range(1, _NEWTON_STEPS):
            q = let(f"q{_SUBSCRIPTS[step]}", q - (q * q * q - q + c) / (3 * q * q - 1))
        return where(c < 2 / math.sqrt(54), point * (q * q), 0.0)


class CautiousDecay(Regularize):
    """Decay only where the step shrinks the weight anyway (Chen et al. 2025, arXiv:2510.12402).

        pull <- pull + lambda w where u w >= 0,      u the whole quotient, the sign of the step

    It keeps the stationary points of the loss without decay. What does not move at all decays; a mask in circulation
    asks for ``u w > 0`` instead (``strict``), under which it rests.

    Args:
        weight_decay: lambda, in units of the learning rate.
        strict: leave coordinates alone that do not move.
    """

    weight_decay: NonNegative = 1e-2
    strict: bool = False

    def apply(self, x: Signals, s: Memory) -> Signals:
        shrinks = x.quotient() * x.w
        return x.replace(
            pull=x.pull + self.weight_decay * where(shrinks > 0 if self.strict else shrinks >= 0, x.w, 0.0)
        )


class NormLoss(Regularize):
    """Pull every row of a matrix to unit length (Georgiou et al. 2021, arXiv:2103.06583).

        pull <- pull + 2 lambda (1 - 1 / |w_i|) w_i         for each row; rows of zeros stay

    Vectors are left alone: a bias has no business with length 1.

    Args:
        strength: lambda, in units of the learning rate.
    """

    strength: NonNegative = 1e-2

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2:
            return x
        return x.replace(pull=x.pull + 2 * self.strength * (1 - 1 / maximum(norm(x.w, "row"), 1e-12)) * x.w)
