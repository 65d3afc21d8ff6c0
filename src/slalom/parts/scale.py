"""How each coordinate's step is sized: parts that yield the metric (the sigma of adaptive methods)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

from slalom.algebra import State, Value, lerp, let, maximum, mean, sqrt, total, where
from slalom.parts.base import Scale
from slalom.parts.epsilon import Clamped, Epsilon, InState, as_epsilon
from slalom.parts.memory import Memory
from slalom.parts.ranges import Constant, Decay, NonNegative
from slalom.parts.signals import Signals


class Accumulated(Scale):
    """AdaGrad's sum of squares (Duchi, Hazan & Singer 2011, JMLR 12).

        v <- v + e^2
        D = sqrt(v) + eps

    A constant gradient is followed with steps of exactly ``rate / sqrt(t)``; nothing is ever forgotten.

    Args:
        initial: the sum before the first step.
        eps: see `slalom.parts.epsilon`.
    """

    initial: NonNegative = 0.0
    eps: NonNegative | Epsilon = 1e-10
    v = State(torch=("sum",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        # a sum never falls below what it started from, so this needs no first step, which a sparse row may miss
        before = maximum(s.v, self.initial) if self.initial else s.v
        eps = as_epsilon(self.eps)
        s.v = eps.kept(before + x.energy * x.energy, x.unit)
        return x.replace(metric=eps.root(s.v, x.unit), divide=eps.divide())


Maximum: TypeAlias = Literal["none", "post", "pre", "memoryless", "two-step"]


def _highest(
    kind: Maximum, name: str, new: Value, beta: float, correction: Value | float, x: Signals, s: Memory
) -> tuple[Value, Value | float]:
    """Store a running average; return what stands for it, and how that is to be corrected."""
    before = let(f"{name}′", getattr(s, name)) if kind == "two-step" else getattr(s, name)
    setattr(s, name, maximum(new, before) if kind == "memoryless" else new)
    now: Value = getattr(s, name)
    if kind == "post":
        s.v_max = maximum(s.v_max, now)
        return s.v_max, correction
    if kind == "pre":
        s.v_max = maximum(s.v_max, now / correction)
        return s.v_max, 1.0
    if kind == "two-step":
        earlier = before if isinstance(correction, float) else before / (1 - beta ** (x.t - 1))
        return maximum(now, where(x.t > 1, earlier, 0.0)), correction
    return now, correction


class SecondMoment(Scale):
    """Running average of squares (Tieleman & Hinton 2012; bias-corrected as in Kingma & Ba 2014, arXiv:1412.6980).

        v <- beta v + (1 - beta) e^2
        D = sqrt(v / (1 - beta^t)) + eps

    ``amsgrad`` keeps the metric from shrinking (Reddi et al. 2018, arXiv:1904.09237), in one of these ways:

        "post"        V <- max(V, v), corrected after; torch's. The paper corrects nothing: ``debias=False``
        "pre"         V <- max(V, v / (1 - beta^t)); never below the first gradient's size again
        "memoryless"  v <- max(v, beta v + (1 - beta) e^2), no second buffer; creeps up to the largest square ever
        "two-step"    V = max(v, v_prev / (1 - beta^(t - 1))), corrected once more: no lasting maximum at all

    and then D = sqrt(V). "memoryless" is a much stronger brake than AMSGrad, which keeps the largest average: fit for
    rows that get gradients rarely, dangerous for dense noisy weights. A formula is in circulation that corrects the
    maximum of corrected values again at every step: it grows without bound and is not here.

    Args:
        beta: decay of the average.
        eps: see `slalom.parts.epsilon`.
        debias: divide by ``1 - beta^t``.
        amsgrad: which maximum, if any.
        initial: v before the first step; TensorFlow's RMSProp begins at 1. Needs ``debias=False``.
    """

    beta: Decay = 0.999
    eps: NonNegative | Epsilon = 1e-8
    debias: bool = True
    amsgrad: Maximum = "none"
    initial: Constant = 0.0
    v = State(torch=("exp_avg_sq", "square_avg"))
    v_max = State(torch=("max_exp_avg_sq",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.initial < math.inf or (self.initial and self.debias):
            raise ValueError(
                f"SecondMoment(initial={self.initial!r}, debias={self.debias}): initial must be 0 or more, and above 0 "
                "there is no bias towards 0 to correct: take debias=False."
            )

    def slots(self) -> Mapping[str, State]:
        """Return the average as it begins."""
        known = super().slots()
        return {**known, "v": dataclasses.replace(known["v"], init=float(self.initial))} if self.initial else known

    def apply(self, x: Signals, s: Memory) -> Signals:
        eps = as_epsilon(self.eps)
        correction: Value | float = 1 - self.beta**x.t if self.debias else 1.0
        new = eps.kept(lerp(s.v, x.energy * x.energy, 1 - self.beta), x.unit)
        highest, correction = _highest(self.amsgrad, "v", new, self.beta, correction, x, s)
        return x.replace(metric=eps.root(highest, x.unit, correction), divide=eps.divide())

    def before(self, x: Signals, s: Memory) -> Value:
        if self.debias or self.amsgrad != "none":
            raise ValueError(
                "SecondMoment(debias=True) or with amsgrad says nothing before the first step, "
                "but this step measures by it there: use SecondMoment(debias=False)."
            )
        return as_epsilon(self.eps).root(s.v, x.unit)


class PreviousMoment(Scale):
    """ADOPT's scale: the squares of all gradients but the newest (Taniguchi et al. 2024, arXiv:2411.02853).

        D = sqrt(v),   then  v <- beta v + (1 - beta) e^2              v = e^2 at the first step

    No gradient sizes its own step, and so the method converges for every beta. A gradient larger than all before it
    is divided by a metric that does not know it yet: it asks for a clip (`ClipEach`).

    Args:
        beta: decay of the average.
        eps: see `slalom.parts.epsilon`; the authors clamp.
    """

    beta: Decay = 0.9999
    eps: NonNegative | Epsilon = Clamped(1e-6)
    v = State(torch=("exp_avg_sq",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        eps = as_epsilon(self.eps)
        square = x.energy * x.energy
        seen = let("seen", where(x.t > 1, s.v, eps.kept(square, x.unit)))
        s.v = eps.kept(lerp(seen, square, 1 - self.beta), x.unit)
        return x.replace(metric=eps.root(seen, x.unit), divide=eps.divide())


class DiscountedSquares(Scale):
    """AdaGrad's sum with a discount, not an average: a first step is never longer than the rate.

        v <- beta v + e^2                              or, not per element, the sum of squares over all that shares it
        D = sqrt(v) + eps

    Against the sum of gradients discounted by the root of beta, the quotient is that of scale-free FTRL (Ahn & Cutkosky
    2024, arXiv:2405.18199), which the paper has both for each coordinate and for the length of the whole gradient.

    Args:
        beta: the discount.
        eps: see `slalom.parts.epsilon`.
        per: what shares one sum: each ``"element"`` has its own, or a whole ``"tensor"`` or ``"model"`` has one.
    """

    beta: Decay = 0.81
    eps: NonNegative | Epsilon = 1e-8
    per: Literal["element", "tensor", "model"] = "element"
    v = State()

    def slots(self) -> Mapping[str, State]:
        """Return the sum, as there is one for each that shares it."""
        return {name: dataclasses.replace(slot, per=self.per) for name, slot in super().slots().items()}

    def apply(self, x: Signals, s: Memory) -> Signals:
        square = x.energy * x.energy
        s.v = self.beta * s.v + (square if self.per == "element" else total(square, self.per))
        eps = as_epsilon(self.eps)
        return x.replace(metric=eps.root(s.v, x.unit), divide=eps.divide())


class RowMoment(Scale):
    """A running second moment per row: one number for each output (NorMuon; Li et al. 2025, arXiv:2510.05491).

        v <- beta v + (1 - beta) mean of e^2 over the row
        D = sqrt(v) + eps                                              not corrected

    Args:
        beta: decay of the average.
        eps: see `slalom.parts.epsilon`.
    """

    beta: Decay = 0.95
    eps: NonNegative | Epsilon = 1e-10
    v = State(per="row")

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.v = lerp(s.v, mean(x.energy * x.energy, "row"), 1 - self.beta)
        eps = as_epsilon(self.eps)
        return x.replace(metric=eps.root(s.v, x.unit), divide=eps.divide())


class CenteredMoment(Scale):
    """RMSProp's centred variant: the variance, not the second moment (Graves 2013, arXiv:1308.0850).

        a <- beta a + (1 - beta) e
        v <- beta v + (1 - beta) e^2
        D = sqrt(v - a^2) + eps

    The difference can be tiny or, by rounding, negative: it is floored at 0 (torch takes the root and yields nan).

    Args:
        beta: decay of both averages.
        eps: see `slalom.parts.epsilon`.
    """

    beta: Decay = 0.99
    eps: NonNegative | Epsilon = 1e-8
    v = State(torch=("square_avg",))
    a = State(torch=("grad_avg",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        eps = as_epsilon(self.eps)
        s.v = eps.kept(lerp(s.v, x.energy * x.energy, 1 - self.beta), x.unit)
        s.a = lerp(s.a, x.energy, 1 - self.beta)
        return x.replace(metric=eps.root(maximum(s.v - s.a * s.a, 0.0), x.unit), divide=eps.divide())


class MaxNorm(Scale):
    """Adamax: a decaying maximum instead of an average (Kingma & Ba 2014, arXiv:1412.6980, section 7.1).

        u <- max(beta u, |e| + eps)
        D = u

    The paper has no epsilon, which leaves 0 / 0 for a gradient that starts at 0; here it stands where torch puts it.

    Args:
        beta: decay of the maximum.
        eps: a number is added to the new magnitude; a part of `slalom.parts.epsilon` stabilises D instead.
    """

    beta: Decay = 0.999
    eps: NonNegative | Epsilon = 1e-8
    u = State(torch=("exp_inf",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        if isinstance(self.eps, Epsilon):
            # a maximum is no square: what is added to it grows with the gradient, not with its square
            s.u = self.eps.kept(maximum(self.beta * s.u, abs(x.energy)), sqrt(x.unit))
            return x.replace(metric=self.eps.floor(s.u, x.unit), divide=self.eps.divide())
        s.u = maximum(self.beta * s.u, abs(x.energy) + self.eps * x.unit)
        return x.replace(metric=s.u)


class Belief(Scale):
    """How far the gradient strays from what momentum expected (Zhuang et al. 2020, AdaBelief, arXiv:2010.07468).

        e = g - m                           (m as the momentum part stored it, not corrected)
        s <- beta s + (1 - beta) e^2 + eps
        D = sqrt(s / (1 - beta^t)) + eps

    A constant gradient makes s shrink to its floor, so steps grow: the property that tells it from Adam. The authors'
    package adds eps to the state every step, as here; it also rectifies by default, which is the part `Rectified`.

    Args:
        beta: decay of the average.
        eps: a number is added to the state and to the root, as `InState` ``(eps, eps)``. 1e-16 for transformers and
            GANs, 1e-8 for small networks.
        amsgrad: which maximum, if any, as of `SecondMoment`; "post" is the authors'.
    """

    beta: Decay = 0.999
    eps: NonNegative | Epsilon = 1e-16
    amsgrad: Maximum = "none"
    s = State(torch=("exp_avg_var",))
    v_max = State(torch=("max_exp_avg_var",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        eps = as_epsilon(self.eps, lambda number: InState(number, number))
        surprise = x.grad - x.trend
        new = eps.kept(lerp(s.s, surprise * surprise, 1 - self.beta), x.unit)
        highest, correction = _highest(self.amsgrad, "s", new, self.beta, 1 - self.beta**x.t, x, s)
        return x.replace(metric=eps.root(highest, x.unit, correction), divide=eps.divide())


class TrendMoment(Scale):
    """AdaMomentum's scale: the second moment of the momentum (Wang et al. 2021, arXiv:2106.11514).

        v <- beta v + (1 - beta) m^2 + eps             (m as the momentum part stored it)
        D = sqrt(v / (1 - beta^t))

    The first step is ``1 / (1 - beta_1)`` rates long; a gradient that alternates is followed at full length.

    Args:
        beta: decay of the average.
        eps: a number is added to the state at every step, as `InState`.
        amsgrad: which maximum, if any, as of `SecondMoment`.
    """

    beta: Decay = 0.999
    eps: NonNegative | Epsilon = 1e-8
    amsgrad: Maximum = "none"
    v = State()
    v_max = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        eps = as_epsilon(self.eps, InState)
        new = eps.kept(lerp(s.v, x.trend * x.trend, 1 - self.beta), x.unit)
        highest, correction = _highest(self.amsgrad, "v", new, self.beta, 1 - self.beta**x.t, x, s)
        return x.replace(metric=eps.root(highest, x.unit, correction), divide=eps.divide())


class Rectified(Scale):
    """RAdam: no adaptation until the metric can be trusted (Liu et al. 2019, arXiv:1908.03265).

        rho_inf = 2 / (1 - beta) - 1,   rho = rho_inf - 2 t beta^t / (1 - beta^t)
        D <- D / sqrt((rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho))    where rho > threshold
        D <- 1                                                                           before

    Before the threshold steps are proportional to the gradient: neither large nor tiny gradients are tamed. With
    ``until="nothing"`` there are none (``degenerated_to_sgd=False`` in the authors' code, pytorch_optimizer's default).

    Args:
        scale: the metric that is rectified, of any kind with one decay: its ``beta`` sets the horizon.
        threshold: 4 in the paper, 5 in the authors' code and torch.
        until: what moves the weights until then.
        factor: divide D by the root; False leaves that to the step `RectifiedRate`.
    """

    scale: Scale = SecondMoment()
    threshold: NonNegative = 5.0
    until: Literal["momentum", "nothing"] = "momentum"
    factor: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if "beta" not in self.scale.ranges():
            raise ValueError(
                f"Rectified({type(self.scale).__name__}(...)): its memory has no single decay to judge by; "
                "take a scale with a beta, such as SecondMoment or Belief."
            )

    def apply(self, x: Signals, s: Memory) -> Signals:
        y = self.scale.apply(x, s.of(self.scale))
        beta: Value = self.scale.beta  # type: ignore[attr-defined]  # checked when the part was made
        horizon = let("ρ∞", 2 / (1 - beta) - 1)
        rho = let("ρ", horizon - 2 * x.t * beta**x.t / (1 - beta**x.t))
        r = let("r", sqrt((rho - 4) * (rho - 2) * horizon / ((horizon - 4) * (horizon - 2) * rho)))
        trusted = rho > self.threshold
        if self.until == "nothing":
            y = y.replace(direction=where(trusted, y.direction, 0.0))
        return y.replace(metric=where(trusted, y.metric / r if self.factor else y.metric, 1.0))
