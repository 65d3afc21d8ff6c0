"""What is refused or re-scaled once the direction and its metric are known."""

from __future__ import annotations

from slalom.algebra import let, maximum, mean, norm, sqrt, where
from slalom.parts.base import Guard, Memory, Positive, Signals


class TrustRatio(Guard):
    """Layer-wise ratio: tensors move by equal fractions of their length (You et al. 2019, LAMB, arXiv:1904.00962).

        r = |w| / |u|,   1 where either norm is 0,   u = direction / metric + pull
        direction, pull <- r direction, r pull

    A decay that stands before it in the recipe's order is inside the ratio, as in the paper.
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        length, step = norm(x.w), norm(x.quotient() + x.pull)
        r = let("r", where((length > 0) & (step > 0), length / step, 1.0))
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


class Cautious(Guard):
    """Move only where momentum still agrees with the gradient (Liang et al. 2024, arXiv:2411.16085).

        direction <- direction [u g > 0] n / (number of ones + 1)

    The stored momentum is left alone. The count is per tensor; the ``+ 1`` is the paper's (others clamp the mean).
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        agree = where(x.direction * x.grad > 0, 1.0, 0.0)
        return x.replace(direction=x.direction * agree * (x.size / (mean(agree) * x.size + 1.0)))
