"""Steps that find their own length: from the distance travelled, from what a step gained, from the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from slalom.algebra import State, Value, lerp, let, maximum, minimum, norm, sqrt, total, where
from slalom.parts.base import Form, Step
from slalom.parts.form import Greedy
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, NonNegative, Positive, check_count
from slalom.parts.signals import Signals

# --- from the distance travelled -------------------------------------------------------------------------


def _bias_correction(beta1: Value | float, beta: Value | float, t: Value) -> Value:
    """Return what a rate is multiplied by in place of correcting the momentum and the metric."""
    return sqrt(1 - beta**t) / (1 - beta1**t)


class Prodigy(Step):
    """A learning rate that finds itself, from the distance travelled (Mishchenko & Defazio 2023, arXiv:2306.06101).

        rate = lr d c,   gradients count as d g       c = sqrt(1 - beta^t) / (1 - beta1^t) with ``debias``, else 1
        r <- b r + (d / d0) rate <g, w0 - w>          over the whole model
        s <- b s + (d / d0) rate g                    with ``safeguard`` d instead of rate: warm-ups do not count
        d_new = max(d, d_coef r / |s|_1)              at most growth d
        b = beta3, or sqrt(beta)

    The step uses the old d and epsilon the new one, as the authors' code does. Where ``|s|_1`` is 0 nothing moves d.
    All parameter groups must share lr.

    Args:
        lr: a multiplier, rarely anything but 1.
        beta: decay of the second moment that the recipe uses.
        d0: first guess of the distance; small is safe.
        d_coef: multiplier of the estimate.
        growth: the most that d grows in a step once it has left d0, as a factor; 0 sets no bound.
        safeguard: keep a learning rate that warms up from raising d too early.
        debias: correct momentum and metric, whose own parts then do not.
        beta1: decay of the momentum, for that correction.
        beta3: decay of r and s; 0 for the root of beta.
    """

    lr: NonNegative = 1.0
    beta: Decay = 0.999
    d0: Positive = 1e-6
    d_coef: Positive = 1.0
    growth: NonNegative = 0.0
    safeguard: bool = False
    debias: bool = False
    beta1: Decay = 0.9
    beta3: Decay = 0.0
    start = State(init="parameter")
    s = State()
    r = State(per="model")
    d = State(per="model")
    d_max = State(per="model")

    def apply(self, x: Signals, s: Memory) -> Signals:
        first = x.clock <= 1
        d = let("d", where(first, self.d0, s.d))
        d_max = let("d_max", where(first, self.d0, s.d_max))
        b = self.beta3 or sqrt(self.beta)
        rate: Value = self.lr * d
        if self.debias:
            rate = rate * _bias_correction(self.beta1, self.beta, x.clock)
        weight = (d / self.d0) * rate
        s.s = b * s.s + ((d / self.d0) * d if self.safeguard else weight) * x.grad
        s.r = b * s.r + total(weight * x.grad * (s.start - x.w), "model")
        length = total(abs(s.s), "model")
        estimate = let("d_hat", where(length > 0, self.d_coef * s.r / length, d))
        s.d_max = maximum(d_max, estimate)
        if self.growth:  # which bounds all but the first jump
            s.d = minimum(s.d_max, self.growth * where(d > self.d0, d, maximum(d, estimate)))
        else:
            s.d = maximum(d, s.d_max)
        y = x.with_gradient(d * x.grad)
        return y.replace(rate=rate, unit=x.unit * s.d)


class _Distance(Step, abstract=True):
    """The farthest that a group, a tensor or the model has been from where it began."""

    lr: NonNegative = 1.0
    reps_rel: Positive = 1e-6
    per: Literal["tensor", "group", "model"] = "group"
    start = State(init="parameter")

    def measures(self) -> bool:
        """Return true: steps are summed up as they are, whatever made them of gradients."""
        return True

    def slots(self) -> Mapping[str, State]:
        """Return where it began, and two numbers per group, tensor or model."""
        return {**self._slots, "r": State(per=self.per, name="r"), "v": State(per=self.per, name="v")}

    def farthest(self, x: Signals, s: Memory) -> Value:
        """Return the distance, at least ``reps_rel (1 + |w0|)``."""
        first = self.reps_rel * (1 + norm(x.w, self.per))
        farthest = let("r′", maximum(norm(x.w - s.start, self.per), where(s.r > 0, s.r, first)))
        s.r = farthest
        return farthest


class DoG(_Distance, name="dog"):
    """Distance over gradients (Ivgi, Hinder & Carmon 2023, arXiv:2302.12022).

        r <- max(r, |w - w0|),   r = reps_rel (1 + |w0|) at the first step
        v <- v + |u / D|^2                                             g itself for SGD, the authors' only case
        rate = lr r / sqrt(v + eps)

    There is no decay phase: what to evaluate is an average of the iterates, `PolynomialAverage` as the authors have it.
    Norms are over the parameter group, as in their package; ``per="tensor"`` is LDoG, whose tensors find a rate each.

    Args:
        lr: a multiplier, rarely anything but 1.
        reps_rel: the first step, relative to the parameters; 1e-4 with batch norm.
        per: over what norms and sums are taken.
        eps: added to the sum of squares.
    """

    eps: Positive = 1e-8

    def apply(self, x: Signals, s: Memory) -> Signals:
        r = self.farthest(x, s)
        q = x.quotient()
        s.v = s.v + total(q * q, self.per)
        return x.replace(rate=self.lr * r / sqrt(s.v + self.eps))


class DoWG(_Distance, name="dowg"):
    """Distance over weighted gradients: DoG whose sum weighs recent gradients more (Khaled et al. 2023, 2305.16284).

        r <- max(r, |w - w0|),   r = reps_rel (1 + |w0|) at the first step
        v <- v + r^2 |u / D|^2                                         g itself for SGD
        rate = lr r^2 / sqrt(v)

    As long as r stays what it was it is DoG; once r has grown its steps are longer. The paper starts from an absolute
    guess of r (its code: 0.01); here it is relative, as DoG's, so that both start alike.

    Args:
        lr: a multiplier, rarely anything but 1.
        reps_rel: the first step, relative to the parameters.
        per: over what norms and sums are taken.
    """

    reps_rel: Positive = 1e-4

    def apply(self, x: Signals, s: Memory) -> Signals:
        r = self.farthest(x, s)
        q = x.quotient()
        s.v = s.v + r * r * total(q * q, self.per)
        return x.replace(rate=self.lr * (r * r) / sqrt(maximum(s.v, 1e-38)))


class DAdaptation(Step, name="d_adaptation"):
    """D-Adaptation for Adam: a lower bound of the distance to the solution (Defazio & Mishchenko 2023, 2301.07733).

        r <- q r + (1 - q) lr d <g, s / D>                    D as the last step left it; over the whole model
        s <- q s + (1 - q) lr d g
        d_new = max(d, min(r / ((1 - q) |s|_1), growth d)),   q = sqrt(beta)
        rate = lr d                                           with the old d; with ``debias`` corrected as Prodigy's

    The authors' momentum remembers steps with the length that they had: `WholeSteps` around an average without
    correction. The paper weighs by the new D, its code, followed here, by the old. It needs a scale without bias
    correction. All parameter groups must share lr.

    Args:
        lr: a multiplier, rarely anything but 1.
        beta: decay of the second moment that the recipe uses.
        d0: first guess of the distance; small is safe.
        growth: the most that d grows in a step, as a factor; 1.02 acts as a warm-up.
        debias: correct momentum and metric, whose own parts then do not.
        beta1: decay of the momentum, for that correction.
    """

    lr: NonNegative = 1.0
    beta: Decay = 0.999
    d0: Positive = 1e-6
    growth: Positive = float("inf")
    debias: bool = False
    beta1: Decay = 0.9
    s = State()
    r = State(per="model")
    d = State(per="model")

    def apply(self, x: Signals, s: Memory) -> Signals:
        d = let("d", where(s.d > 0, s.d, self.d0))
        q = sqrt(self.beta)
        rate: Value = self.lr * d
        if self.debias:
            rate = rate * _bias_correction(self.beta1, self.beta, x.clock)
        fed = rate * x.grad
        s.r = q * s.r + (1 - q) * total(fed * (s.s / x.earlier()), "model")
        s.s = lerp(s.s, fed, 1 - q)
        length = total(abs(s.s), "model")
        estimate = let("d_hat", where(length > 0, s.r / ((1 - q) * length), d))
        s.d = maximum(d, minimum(estimate, self.growth * d))
        return x.replace(rate=rate)


class DAdaptationSGD(Step, name="d_adaptation_sgd"):
    """D-Adaptation for SGD (Defazio & Mishchenko 2023, arXiv:2301.07733; the form of the authors' package).

        rate = lr d / |g_1|                                   |g_1| the norm of the first gradient, over the model
        r <- r + rate <g, s>
        s <- s + rate g
        d_new = max(d, min(2 r / |s|, growth d))

    Its momentum is `PrimalAverage`. All parameter groups must share lr.

    Args:
        lr: a multiplier, rarely anything but 1.
        d0: first guess of the distance; small is safe.
        growth: the most that d grows in a step, as a factor.
    """

    lr: NonNegative = 1.0
    d0: Positive = 1e-6
    growth: Positive = float("inf")
    s = State()
    r = State(per="model")
    d = State(per="model")
    first = State(per="model")

    def apply(self, x: Signals, s: Memory) -> Signals:
        d = let("d", where(s.d > 0, s.d, self.d0))
        s.first = where(s.first > 0, s.first, norm(x.grad, "model"))
        rate = let("η", where(s.first > 0, self.lr * d / s.first, 0.0))
        s.r = s.r + rate * total(x.grad * s.s, "model")
        s.s = s.s + rate * x.grad
        length = norm(s.s, "model")
        estimate = let("d_hat", where(length > 0, 2 * s.r / length, d))
        s.d = maximum(d, minimum(estimate, self.growth * d))
        return x.replace(rate=rate)


# --- from what the steps gained --------------------------------------------------------------------------


class Hypergradient(Step):
    """A rate that follows the slope of the loss along it (Baydin et al. 2018, arXiv:1703.04782), normalised.

        a <- a (1 + hyper <g, step> / (|g| |step|))          step: what the last one took off w; over the whole model
        rate = lr a,   a = 1 at the first step

    The loss would have been smaller after a longer last step if the gradient still points along it. The paper adds that
    product, times a constant with a unit of its own, to the rate; here the change is a fraction, which nothing scales.
    The step is read off the parameters, whatever made it: momentum, decay and schedules need no derivative.

    From a rate ten times too small it gains two to three times in some hundred steps, and where the rate was right it
    changes little (`benchmarks/hypergradient.py`). It replaces no tuning: it looks one step ahead only, and such rates
    end too short where gradients are noisy (Wu et al. 2018, arXiv:1803.02021).

    Args:
        lr: the rate to begin with, and what a schedule moves.
        hyper: the largest change in a step, as a fraction.
    """

    lr: NonNegative = 1e-3
    hyper: Decay = 0.03
    before = State(init="parameter")
    a = State(per="model", init=1.0)

    def apply(self, x: Signals, s: Memory) -> Signals:
        step = s.before - x.w
        lengths = norm(x.grad, "model") * norm(step, "model")
        cosine = let("cos", where(lengths > 0, total(x.grad * step, "model") / lengths, 0.0))
        s.a = s.a * (1 + self.hyper * cosine)
        s.before = x.w
        return x.replace(rate=self.lr * s.a)


class Mechanic(Form):
    """Mechanic: learns the scale of any recipe's steps (Cutkosky, Defazio & Mehta 2023, arXiv:2306.00144).

        D <- D + step                        (what the recipe would have done, at w);   S = s_1 + ... + s_n
        h = <D_old, g + decay S |g| w' / (|w'| + eps)>         over the whole model, w' = w + step
        m_i <- max(b_i m_i, |h|),   v_i <- b_i^2 v_i + h^2,   r_i <- max(0, b_i r_i - s_i h)
        s_i <- (s_init m_i / n + r_i) / (sqrt(v_i) + eps),     b_i = 1 - 10^-i
        w <- w0 + max(0, S) D

    D is kept, as in the paper: the authors' package by default divides it out of w, which loses digits while S is tiny.
    The recipe's rate only shapes the steps, by its schedule; at a rate of 0 nothing moves.

    Args:
        inner: the form whose steps are scaled.
        decay: lambda.
        s_init: first guess of the scale; small is safe.
        eps: keeps quotients finite.
        count: n, how many horizons are tried at once.
    """

    inner: Form = Greedy()
    decay: NonNegative = 1e-2
    s_init: Positive = 1e-8
    eps: Positive = 1e-8
    count: int = 6
    start = State(init="parameter")
    delta = State()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Mechanic", "count", self.count)

    def slots(self) -> Mapping[str, State]:
        """Return where it began, the sum of steps, and four numbers per horizon for the whole model."""
        found = dict(self._slots)
        for place in range(1, self.count + 1):
            for letter, init in (("m", 1e-6), ("v", 0.0), ("r", 0.0), ("s", 0.0)):
                found[f"{letter}{place}"] = State(per="model", init=init, name=f"{letter}{place}")
        return found

    def apply(self, x: Signals, s: Memory) -> Signals:
        y = self.inner.apply(x, s.of(self.inner))
        ahead = let("w′", y.result)
        scale = let("S", self._scale(s))
        pull = self.decay * scale * norm(x.grad, "model") / (norm(ahead, "model") + self.eps)
        h = let("h", total(s.delta * x.grad, "model") + pull * total(s.delta * ahead, "model"))
        for i in range(1, self.count + 1):
            self._learn(i, h, s)
        s.delta = s.delta + (ahead - x.w)
        moved = s.start + let("S′", maximum(self._scale(s), 0.0)) * s.delta
        return y.replace(result=where(x.rate > 0, moved, x.w))

    def _scale(self, s: Memory) -> Value:
        """Return the sum of the horizons' scales."""
        whole: Value = s.s1
        for i in range(2, self.count + 1):
            whole = whole + getattr(s, f"s{i}")
        return whole

    def _learn(self, i: int, h: Value, s: Memory) -> None:
        """Update the four numbers of one horizon."""
        b = 1 - 10.0**-i
        before = getattr(s, f"s{i}")
        m = maximum(b * getattr(s, f"m{i}"), abs(h))
        v = b * b * getattr(s, f"v{i}") + h * h
        r = maximum(b * getattr(s, f"r{i}") - before * h, 0.0)
        for letter, value in (("m", m), ("v", v), ("r", r)):
            setattr(s, f"{letter}{i}", value)
        setattr(s, f"s{i}", (self.s_init * m / self.count + r) / (sqrt(v) + self.eps))
