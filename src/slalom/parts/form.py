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
        h = let("H", x.metric / x.rate)
        u = x.direction if _is_zero(x.pull) else x.direction + x.pull * x.metric
        s.z = s.z + u - (h - s.h) * x.w
        s.h = h
        if _is_zero(x.l1):
            return x.replace(result=-s.z / (h + x.l2))
        w = -(s.z - sign(s.z) * x.l1) / (h + x.l2)
        return x.replace(result=where(abs(s.z) > x.l1, w, 0.0))
