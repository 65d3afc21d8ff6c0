"""Which point is handed back."""

from __future__ import annotations

from slalom.algebra import State, Value, lerp, let, maximum
from slalom.parts.base import Average, Fraction, Memory, NonNegative, Signals


class ScheduleFree(Average):
    """Schedule-Free averaging around any recipe (Defazio et al. 2024, "The Road Less Scheduled", arXiv:2405.15682).

        z <- z + step                                        (the recipe's own step, taken at y)
        c = weight / sum of weights,   weight = t^r (largest rate so far)^power
        y <- (1 - c) y + c z + (1 - beta (1 - c)) step
    so that  x <- (1 - c) x + c z  and  y = (1 - beta) z + beta x

    The parameter holds y while training; `readout` gives x, which is what to evaluate and to keep.

    Args:
        beta: how close to the average gradients are taken, in (0, 1).
        r: power of the step count in the weights.
        power: power of the rate in the weights.
    """

    beta: Fraction = 0.9
    r: NonNegative = 0.0
    power: NonNegative = 2.0
    z = State(init="parameter")
    weights = State(per="tensor")
    rate = State(per="tensor")

    def apply(self, x: Signals, s: Memory) -> Signals:
        step = let("step", x.result - x.w)
        s.rate = maximum(s.rate, x.rate)
        weight = x.t**self.r * s.rate**self.power
        s.weights = s.weights + weight
        c = let("c", weight / maximum(s.weights, 1e-38))
        y = lerp(x.w, s.z, c) + (1 - self.beta * (1 - c)) * step
        s.z = s.z + step
        return x.replace(result=y)

    def readout(self, x: Signals, s: Memory) -> Value:
        return lerp(x.w, s.z, 1 - 1 / self.beta)
