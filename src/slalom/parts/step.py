"""How long the step is."""

from __future__ import annotations

from slalom.algebra import State, Value, let, maximum, mean, minimum, positive, sqrt, total, where
from slalom.parts.base import Step
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, NonNegative, Positive
from slalom.parts.signals import Signals


class Fixed(Step):
    """A number, or whatever a schedule makes of it.

    Args:
        lr: the learning rate.
    """

    lr: NonNegative = 1e-3

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(rate=self.lr)


class Decaying(Step):
    """torch Adagrad's built-in decay: ``rate = lr / (1 + (t - 1) lr_decay)``.

    Args:
        lr: the learning rate at the first step.
        lr_decay: how fast it falls.
    """

    lr: NonNegative = 1e-2
    lr_decay: NonNegative = 0.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(rate=self.lr / (1 + (x.t - 1) * self.lr_decay))


class RectifiedRate(Step):
    """RAdam's warm-up as a factor of the rate, without its steps of plain SGD (Liu et al. 2019, arXiv:1908.03265).

        rho_inf = 2 / (1 - beta) - 1,   rho = rho_inf - 2 t beta^t / (1 - beta^t)
        rate = lr sqrt((rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho))    where rho > 4, else 0

    The part `Rectified` puts the same factor into the metric, and steps by the plain gradient before.

    Args:
        lr: the learning rate.
        beta: decay of the second moment whose trust grows, above 0.6.
        silent: no rate until rho > 4; False for lr, for a scale that does not divide until then: `Rectified`.
    """

    lr: NonNegative = 1e-3
    beta: Decay = 0.999
    silent: bool = True

    def apply(self, x: Signals, s: Memory) -> Signals:
        longest = 2 / (1 - self.beta) - 1
        power = self.beta**x.t
        rho = let("ρ", longest - 2 * x.t * power / (1 - power))
        factor = (rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho)
        return x.replace(rate=self.lr * let("r", where(rho > 4, sqrt(maximum(factor, 0)), 0.0 if self.silent else 1.0)))


class Relative(Step):
    """Adafactor's step: a fraction of each tensor's own size (Shazeer & Stern 2018, arXiv:1804.04235).

        rate = max(floor, RMS(w)) min(lr, warmup t, 1 / sqrt(t))

    Args:
        lr: the largest relative step.
        floor: the size that a smaller tensor counts as, so that zeros can move.
        warmup: how fast the step may grow from 0, 1e-6 in the paper's experiments; 0 for no such limit.
        by_size: measure in sizes of the tensor; without, steps are absolute.
        by_time: shrink as ``1 / sqrt(t)``; without, ``lr`` is the step, for schedules of one's own.
    """

    lr: NonNegative = 1e-2
    floor: Positive = 1e-3
    warmup: NonNegative = 0.0
    by_size: bool = True
    by_time: bool = True

    def apply(self, x: Signals, s: Memory) -> Signals:
        cap: Value = minimum(self.lr, 1 / sqrt(x.t)) if self.by_time else self.lr  # type: ignore[assignment]
        if self.warmup:
            cap = minimum(cap, self.warmup * x.t)
        if not self.by_size:
            return x.replace(rate=cap)
        return x.replace(rate=let("size", maximum(sqrt(mean(x.w * x.w)), self.floor)) * cap)


class SignRate(Step):
    """A rate that listens to how many gradients turn their sign ("autoRate2").

        c: the coordinates of the whole model whose gradient turned, u: the others
        C, C_, U_: root mean squares of gradients, over c now, over c and over u a step ago
        if C > C_ and n_c C > 2 n_u U_:    q <- 0.2 q if C > 2 C_ or n_c is above 70 %, else 0.67 q
        else if C > C_ and C > 3 U_:       q <- 0.8 q
        else:                              q <- 1.2 q
        rate = q lr                         q = 1 at the first step

    A step that was too long is not undone, and nothing bounds q: with noisy gradients, half of which turn at every
    step, it says little (docs/tricks.md).

    Source: Babkin, FloatNeuralNet of the Triceps project.

    Args:
        lr: the first rate.
    """

    lr: NonNegative = 1e-3
    previous = State()
    q = State(per="model", init=1.0)

    def apply(self, x: Signals, s: Memory) -> Signals:
        now, before = x.grad, s.previous
        turned, stayed = let("turned", positive(-(now * before))), let("stayed", 1 - positive(-(now * before)))
        changed, others = (let(n, total(one, "model")) for n, one in (("n_c", turned), ("n_u", stayed)))
        rms_c = let("C", sqrt(total(turned * now * now, "model") / maximum(changed, 1.0)))
        was_c = let("C′", sqrt(total(turned * before * before, "model") / maximum(changed, 1.0)))
        was_u = let("U′", sqrt(total(stayed * before * before, "model") / maximum(others, 1.0)))
        q, grew = s.q, rms_c > was_c
        most = changed > 0.7 * (changed + others)
        hard = where(rms_c > 2 * was_c, 0.2 * q, where(most, 0.2 * q, 0.67 * q))
        mild = where(grew & (rms_c > 3 * was_u), 0.8 * q, 1.2 * q)
        s.q = where(was_c + was_u > 0, where(grew & (changed * rms_c > 2 * others * was_u), hard, mild), q)
        s.previous = now
        return x.replace(rate=s.q * self.lr)
