"""Steps whose length is read off the loss: ``step`` needs a closure that returns it."""

from __future__ import annotations

import math
from typing import Literal

from slalom.algebra import State, Value, lerp, let, maximum, minimum, total, where
from slalom.parts.base import Step
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, NonNegative, Positive
from slalom.parts.signals import Signals


class Polyak(Step):
    """Stochastic Polyak step (Loizou et al. 2020, SPS_max, arXiv:2002.10542; ALI-G: Berrada et al. 2019, 1906.05661).

        rate = min(lr, max(f - floor, 0) / (c <g, u / D> + eps))          over the whole model

    ``<g, u / D>`` is what the loss falls by per unit of rate, ``|g|^2`` for SGD; where the step leads uphill, the rate
    is 0. With ``growth`` the rate grows by at most that factor per step, as in the authors' code, where it is
    ``2^(1 / steps per epoch)``. ALI-G has c = 1, floor 0 and a momentum that remembers rates: `WholeSteps`.

    Args:
        lr: the longest rate; inf for none.
        c: how cautious: 1/2 is best for convex losses, 1 never overshoots one.
        floor: the smallest loss there can be. Too low makes steps long, too high stops them early.
        eps: keeps the quotient finite.
        growth: the largest quotient of two rates in a row; inf for none.
    """

    lr: NonNegative = 1.0
    c: Positive = 0.5
    floor: float = 0.0
    eps: NonNegative = 1e-8
    growth: Positive = float("inf")
    last = State(per="model")

    def measures(self) -> bool:
        """Return true: the loss is divided by how fast the step lowers it."""
        return True

    def apply(self, x: Signals, s: Memory) -> Signals:
        slope = let("slope", total(x.grad * x.quotient(), "model"))
        free = where(slope > 0, maximum(x.loss - self.floor, 0.0) / (self.c * slope + self.eps), 0.0)
        longest = where(s.last > 0, minimum(self.lr, self.growth * s.last), self.lr)
        rate = let("η", minimum(free, longest))
        s.last = where(rate > 0, rate, s.last)
        return x.replace(rate=rate)


class NormalizedPolyak(Step):
    """Polyak step for updates whose elements are about 1, as Adam's are (Defazio 2026, ScheduleFree+, 2605.19095).

        size <- beta size + (1 - beta) sqrt(pi / 2) |g|_1                 over the whole model
        rate = lr max(f - floor + <g, z - y>, 0) / (size / (1 - beta^t))

    z - y is the way from where the gradient was taken to the point that an average adds steps to (`ScheduleFree`), so
    that the numerator is what the loss would be there if it were linear; it is 0 with other averages and without one.
    ``sqrt(pi / 2) |g|_1`` estimates what an update of normalised elements gains: for Gaussian gradients it is the
    product of their length and the square root of their number. Where gradients vanish and the loss does not, the rate
    grows without bound.

    Args:
        lr: a multiplier, rarely anything but 1; what a warm-up moves.
        beta: decay of the average of gradients' sizes; 0 for none.
        floor: the smallest loss there can be.
    """

    lr: NonNegative = 1.0
    beta: Decay = 0.0
    floor: float = 0.0
    size = State(per="model")

    def apply(self, x: Signals, s: Memory) -> Signals:
        there = let("f_z", x.loss - self.floor + total(x.grad * x.ahead(), "model"))
        size = let("|g|", math.sqrt(math.pi / 2) * total(abs(x.grad), "model"))
        if self.beta:
            s.size = lerp(s.size, size, 1 - self.beta)
            size = s.size / (1 - self.beta**x.clock)
        return x.replace(rate=self.lr * where(size > 0, maximum(there, 0.0) / size, 0.0))


class MoMo(Step, name="momo"):
    """Model-based momentum: the Polyak step of an average of losses (Schaipp et al. 2023, arXiv:2305.07583).

        f_avg, p <- running averages of f and <g, w>                      over the whole model, like momentum's
        h = f_avg + <u, w> - p                                            what the averaged linear models say here
        rate = min(lr, max(h - floor, 0) / <u, u / D>)

    It runs after momentum and scale and reads their u and D: MoMo with `HeavyBall` or `Ema`, MoMo-Adam with a metric.
    With ``estimate`` the floor is one that is learned (MoMo*), never below the one given:

        floor <- h / 2 if h < floor                                       before the step
        floor <- h - rate <u, u / D> / 2                                  after it

    Args:
        lr: the longest rate.
        beta: decay of the averages; the momentum's.
        debias: whether momentum is bias-corrected; if not, its first average is the first gradient.
        floor: the smallest loss there can be.
        estimate: learn the floor.
    """

    lr: NonNegative = 1.0
    beta: Decay = 0.9
    debias: bool = False
    floor: float = 0.0
    estimate: bool = False
    f = State(per="model")
    p = State(per="model")
    bound = State(per="model")

    def measures(self) -> bool:
        """Return true: the model of the loss is that of the averaged gradients."""
        return True

    def apply(self, x: Signals, s: Memory) -> Signals:
        f = self._average("f", x.loss, x, s)
        p = self._average("p", total(x.grad * x.w, "model"), x, s)
        h = let("h", f + total(x.direction * x.w, "model") - p)
        square = let("n", total(x.direction * x.quotient(), "model"))
        floor: Value | float = self.floor
        if self.estimate:
            known = where(x.clock > 1, s.bound, self.floor)
            floor = let("floor", where(h < known, maximum(h / 2, self.floor), known))
        rate = let("η", where(square > 0, minimum(maximum(h - floor, 0.0) / square, self.lr), 0.0))
        if self.estimate:
            s.bound = maximum(h - rate * square / 2, self.floor)
        return x.replace(rate=rate)

    def _average(self, name: str, value: Value, x: Signals, s: Memory) -> Value:
        """Update a running average and return what it says now."""
        kept = lerp(getattr(s, name), value, 1 - self.beta)
        kept = let(f"{name}′", kept if self.debias else where(x.clock > 1, kept, value))
        setattr(s, name, kept)
        return kept / (1 - self.beta**x.clock) if self.debias else kept


class LossDriven(Step):
    """AdaLo: a rate that is a running average of the loss (Jeong & Koo 2025, Information Sciences 690, 121607).

    ``form`` says of what, with q = 1 / (2 + f):
    ``"paper"``        a <- beta a + (1 - beta) f / kappa,  rate = lr a: a large loss, a large step;
    ``"adversarial"``  a <- beta a + (1 - beta) q,          rate = lr a / kappa: the opposite, the code's default;
    ``"compliant"``    the same a,                          rate = lr (1 - a) / kappa: the paper's direction.

    The paper was read in its abstract and a public README only. The average starts at 0 and is not corrected, which
    warms up the first two and makes the third begin at its longest. Rates depend on the scale of the loss.

    Args:
        lr: a multiplier, 1 in the original, which ignores its own.
        kappa: the divisor; a fifth to a third of the first loss for the paper's form.
        beta: decay of the average.
        form: which rate.
        least: the shortest rate.
    """

    lr: NonNegative = 1.0
    kappa: Positive = 3.0
    beta: Decay = 0.999
    form: Literal["paper", "adversarial", "compliant"] = "adversarial"
    least: NonNegative = 1e-8
    a = State(per="model")

    def apply(self, x: Signals, s: Memory) -> Signals:
        value = let("q", x.loss / self.kappa if self.form == "paper" else 1 / (2 + x.loss))
        s.a = lerp(s.a, value, 1 - self.beta)
        rate = s.a
        if self.form != "paper":
            rate = (1 - s.a if self.form == "compliant" else s.a) / self.kappa
        return x.replace(rate=self.lr * maximum(rate, self.least))
