"""Greedy or lazy: how the step, the metric and the penalties become the new parameter."""

from __future__ import annotations

from typing import Any

from slalom.algebra import State, let, maximum, sign, where
from slalom.parts.base import Form, Memory, Signals


def _is_zero(value: Any) -> bool:
    """Return whether no part has set this signal: its neutral default is a plain number."""
    return isinstance(value, (int, float)) and value == 0


class Greedy(Form):
    """Proximal mirror descent: from where we are, one step (``eta = rate / D``).

    w <- soft(w - rate (u / D + pull), eta l1) / (1 + eta l2)
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        w = x.w - x.rate * (x.quotient() + x.pull)
        if not _is_zero(x.l1):
            w = sign(w) * maximum(abs(w) - x.rate / x.metric * x.l1, 0.0)
        if not _is_zero(x.l2):
            w = w / (1 + x.rate * (x.l2 / x.metric))
        return x.replace(result=w)


class FTRL(Form, name="ftrl"):
    """FTRL-Proximal: the minimum of everything seen so far (McMahan et al. 2013, "Ad Click Prediction", KDD).

        h = D / rate,   sigma = h - h_prev                    (h_prev = 0 at the first step)
        z <- z + u + pull D - sigma w
        w = 0 where |z| <= l1, else  -(z - sign(z) l1) / (h + l2)

    Without penalties it is the greedy form, even where sigma is negative. Starting from h_prev = 0 centres it on the
    initial parameter, so that random initialisation survives until the first gradient of a coordinate.
    """

    z = State()
    h = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        if not x.divide.linear:
            raise ValueError(
                "FTRL needs the metric itself, but this scale divides by an angle (Atan2): "
                "give it another epsilon, such as Outside(), or use the form Greedy()."
            )
        moves = x.rate > 0  # at a rate of 0 the step, like a greedy one, leaves everything as it is
        h = let("H", x.metric / x.rate)
        u = x.direction if _is_zero(x.pull) else x.direction + x.pull * x.metric
        z = s.z + u - (h - s.h) * x.w
        w = -z / (h + x.l2)
        if not _is_zero(x.l1):
            w = where(abs(z) > x.l1, -(z - sign(z) * x.l1) / (h + x.l2), 0.0)
        s.z = where(moves, z, s.z)
        s.h = where(moves, h, s.h)
        return x.replace(result=where(moves, w, x.w))
