"""Where a metric is kept from vanishing. Any scale takes any of these in place of a plain number.

They silently differ between papers and libraries, so they have names here. A plain number means `Outside`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from slalom.algebra import Value, atan2, exp, log, maximum, sqrt, where
from slalom.parts.base import Part
from slalom.parts.ranges import NonNegative, Positive
from slalom.parts.signals import Divide, Plainly


class Epsilon(Part, abstract=True):
    """A way to keep ``D`` away from zero, or to do without."""

    slot = "epsilon"

    def kept(self, variance: Value, unit: Value) -> Value:
        """Return the running variance as it is stored."""
        return variance

    def root(self, variance: Value, unit: Value, correction: Value | float = 1.0) -> Value:
        """Return the metric of a running variance, bias-corrected (divided by ``correction``) and stabilised."""
        return self.floor(sqrt(variance / correction), unit)

    def floor(self, metric: Value, unit: Value) -> Value:
        """Stabilise a metric that is no root."""
        raise NotImplementedError

    def divide(self) -> Divide:
        """Return how the direction is divided by this metric."""
        return Plainly()


class Outside(Epsilon):
    """``D = sqrt(v) + eps``, as Adam's paper and torch have it.

    Args:
        eps: added to the root.
    """

    eps: NonNegative = 1e-8

    def floor(self, metric: Value, unit: Value) -> Value:
        return metric + self.eps * unit


class Inside(Epsilon):
    """``D = sqrt(v + eps)``: the same floor as `Outside` with the root of this eps, another curve in between.

    Args:
        eps: added under the root.
    """

    eps: NonNegative = 1e-16

    def root(self, variance: Value, unit: Value, correction: Value | float = 1.0) -> Value:
        return sqrt(variance / correction + self.eps * unit * unit)

    def floor(self, metric: Value, unit: Value) -> Value:
        return self.root(metric * metric, unit)


class InState(Epsilon):
    """``v <- v + eps`` at every step, so that the state's own floor grows to ``eps / (1 - beta)``.

    AdaBelief, AdaMomentum and EAdam have it; the first adds ``outside`` to the root besides. With beta = 0.999 it acts
    like `Inside` with 1000 eps, once some thousand steps have passed.

    Args:
        eps: added to the state.
        outside: added to the root.
    """

    eps: NonNegative = 1e-8
    outside: NonNegative = 0.0

    def kept(self, variance: Value, unit: Value) -> Value:
        return variance + self.eps * unit * unit

    def floor(self, metric: Value, unit: Value) -> Value:
        return metric + self.outside * unit


class Clamped(Epsilon):
    """``D = max(sqrt(v), eps)``: exactly the root wherever that is larger.

    Args:
        eps: the smallest metric.
    """

    eps: Positive = 1e-6

    def floor(self, metric: Value, unit: Value) -> Value:
        return maximum(metric, self.eps * unit)


class Bare(Epsilon):
    """No epsilon: ``D = sqrt(v)``, and 1 where that is 0, which leaves 0 / 0 at 0.

    As theory has it. A coordinate whose squares underflow moves by its gradient; any other at full length, however
    small its gradients.
    """

    def floor(self, metric: Value, unit: Value) -> Value:
        return where(metric > 0, metric, 1.0)


class Early(Epsilon):
    """``D = (sqrt(v) + eps) / sqrt(1 - beta^t)``: before the bias correction, which magnifies it at first.

    The efficient form in Kingma & Ba's section 2 ("epsilon hat"); torch's RAdam and the authors' SOAP have it.

    Args:
        eps: added to the uncorrected root.
    """

    eps: NonNegative = 1e-8

    def root(self, variance: Value, unit: Value, correction: Value | float = 1.0) -> Value:
        return (sqrt(variance) + self.eps * unit) / sqrt(correction)

    def floor(self, metric: Value, unit: Value) -> Value:
        return metric + self.eps * unit


class Softplus(Epsilon):
    """No epsilon: a smooth floor, ``D = softplus(sqrt(v)) / sqrt(1 - beta^t)`` (Tong et al. 2019, arXiv:1908.00700).

        softplus(x) = log(1 + exp(sharpness x)) / sharpness

    Gradients far below ``1 / sharpness`` are followed in proportion, as by SGD: it is not free of scale.

    Args:
        sharpness: beta of the paper; 50 makes the floor log(2) / 50.
    """

    sharpness: Positive = 50.0

    def root(self, variance: Value, unit: Value, correction: Value | float = 1.0) -> Value:
        return self.floor(sqrt(variance), unit) / sqrt(correction)

    def floor(self, metric: Value, unit: Value) -> Value:
        # metrics are never negative, and this form never overflows
        return metric + log(1 + exp(-self.sharpness * metric)) / self.sharpness


class Power(Epsilon):
    """Another root than the second: ``D = v^(1 / power) + eps`` (AlgoPerf 2024: "NadamP", "Generalized Adam").

    The variance is still one of squares, so that with a power other than 2 a step depends on the scale of gradients:
    1.5 divides by ``|g|^(4/3)``.

    Args:
        power: which root.
        eps: added to the root.
    """

    power: Positive = 2.0
    eps: NonNegative = 1e-8

    def root(self, variance: Value, unit: Value, correction: Value | float = 1.0) -> Value:
        return (variance / correction) ** (1 / self.power) + self.eps * unit ** (2 / self.power)

    def floor(self, metric: Value, unit: Value) -> Value:
        return (metric * metric) ** (1 / self.power) + self.eps * unit ** (2 / self.power)


class Atan2(Epsilon):
    """No epsilon: the quotient becomes an angle, ``a * atan2(u, b D)`` (Everett et al. 2024, arXiv:2407.05872).

    Exactly invariant to the scale of gradients; a step is never longer than ``a * pi / 2``; 0 where both are 0.

    Args:
        a: scale of the result; 4/pi makes it 1 where ``u = D``.
        b: scale of the metric.
    """

    a: Positive = 4 / math.pi
    b: Positive = 1.0
    linear = False

    def floor(self, metric: Value, unit: Value) -> Value:
        return metric

    def divide(self) -> Divide:
        return self

    def quotient(self, direction: Value, metric: Value) -> Value:
        """Return ``a * atan2(direction, b * metric)``."""
        return self.a * atan2(direction, self.b * metric)


def as_epsilon(eps: float | Epsilon, number: Callable[[float], Epsilon] = Outside) -> Epsilon:
    """Read a plain number as `Outside`, or as whatever the method at hand means by a number."""
    return eps if isinstance(eps, Epsilon) else number(eps)
