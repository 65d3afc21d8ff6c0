"""Where the prior pulls, apart from the loss."""

from __future__ import annotations

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
