"""Where the prior pulls, apart from the loss."""

from __future__ import annotations

from slalom.algebra import maximum, norm, where
from slalom.parts.base import Memory, NonNegative, Regularize, Signals


class Decoupled(Regularize):
    """Decoupled weight decay in torch's convention (Loshchilov & Hutter 2017, arXiv:1711.05101).

        pull <- pull + lambda w            so that  w <- w - rate (u + lambda w)

    The paper multiplies by the schedule alone, not by the base rate: its lambda is this one times the base rate.

    Args:
        weight_decay: lambda, in units of the learning rate.
    """

    weight_decay: NonNegative = 1e-2

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(pull=x.pull + self.weight_decay * x.w)


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


class L1(Regularize):
    """An L1 penalty as a proximal step: exact zeros.

        greedy  w <- soft(w - rate u / D, rate l1 / D)
        lazy    w = 0 where |z| <= l1

    Greedy forms apply it every step (incremental); the lazy form holds it fixed, which selects features better.

    Args:
        strength: weight of ``|w|`` in the objective.
    """

    strength: NonNegative = 1e-4

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(l1=x.l1 + self.strength)


class CautiousDecay(Regularize):
    """Decay only where the step shrinks the weight anyway (Chen et al. 2025, arXiv:2510.12402).

        pull <- pull + lambda w where u w >= 0,      u the whole quotient, the sign of the step

    It keeps the stationary points of the loss without decay.

    Args:
        weight_decay: lambda, in units of the learning rate.
    """

    weight_decay: NonNegative = 1e-2

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(pull=x.pull + self.weight_decay * where(x.quotient() * x.w >= 0, x.w, 0.0))


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
