"""Greedy or lazy: how the step, the metric and the penalties become the new parameter."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

from slalom.algebra import State, lerp, let, maximum, minimum, sign, where
from slalom.parts.base import Form
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, Positive
from slalom.parts.signals import Signals


def _is_zero(value: Any) -> bool:
    """Return whether no part has set this signal: its neutral default is a plain number."""
    return isinstance(value, (int, float)) and value == 0


class Greedy(Form):
    """Proximal mirror descent: from where we are, one step (``eta = rate / D``).

    w <- soft(w - rate (u / D + pull), eta l1) / (1 + eta l2)

    Other penalties follow, each as its own proximal step at the curvature ``1 / eta + l2``.
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        w = x.w - x.rate * (x.quotient() + x.pull)
        if not _is_zero(x.l1):
            w = sign(w) * maximum(abs(w) - x.rate / x.metric * x.l1, 0.0)
        if not _is_zero(x.l2):
            w = w / (1 + x.rate * (x.l2 / x.metric))
        if x.penalties:
            curvature = let("C", x.metric / x.rate + x.l2)
            point = w
            for penalty, now, _ in x.penalties:
                point = penalty.shrink(point, curvature, now)
            w = where(x.rate > 0, point, w)  # a rate of 0 leaves everything as it is
        return x.replace(result=w)


class Inertial(Form):
    """Momentum of all that moves the weights, decay and penalties included: Amos's, if it is given any.

        d <- beta d + (1 - beta) (w - what the inner form makes of it)
        w <- w - d

    Not corrected: the first steps are short. A momentum in its own slot sees the gradient alone.

    Args:
        inner: the form that is smoothed.
        beta: decay of the average.
    """

    inner: Form = field(default_factory=Greedy)
    beta: Decay = 0.9
    d = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        y = self.inner.apply(x, s.of(self.inner))
        s.d = lerp(s.d, x.w - y.result, 1 - self.beta)
        return y.replace(result=where(x.rate > 0, x.w - s.d, x.w))


class FTRL(Form, name="ftrl"):
    """FTRL-Proximal: the minimum of everything seen so far (McMahan et al. 2013, "Ad Click Prediction", KDD).

        h = D / rate,   sigma = h - h_prev                    (h_prev = 0 at the first step)
        z <- z + u + pull D - sigma w
        w = 0 where |z| <= l1, else  -(z - sign(z) l1) / (h + l2)

    Without penalties it is the greedy form, even where sigma is negative. Starting from h_prev = 0 centres it on the
    initial parameter, epsilon included, and a coordinate that never had a gradient is left alone: random
    initialisation survives both. The formula in production (z = 0 at the start) takes every weight that it has not
    seen for 0 and pulls the others to 0 by ``eps / rate``; the two agree for weights that start at 0.

    Args:
        clamp: let h never fall, so that no sigma is negative (it changes the method: adaptive scales then ratchet).
    """

    clamp: bool = False
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
        if self.clamp:
            h = let("H", maximum(h, s.h))
        u = x.direction if _is_zero(x.pull) else x.direction + x.pull * x.metric
        unseen = let("seen", abs(u) + s.h) <= 0  # not "> 0": nan must show
        z = let("Z", s.z + u - (h - s.h) * x.w)
        l1, curvature = x.l1 + x.l1_past, h + (x.l2 + x.l2_past)
        w = -z / curvature
        if not _is_zero(l1):
            w = where(abs(z) > l1, -(z - sign(z) * l1) / curvature, 0.0)
        for penalty, now, past in x.penalties:
            w = penalty.shrink(w, curvature, now + past)
        s.z = where(moves, where(unseen, 0.0, z), s.z)
        s.h = where(moves, where(unseen, 0.0, h), s.h)
        return x.replace(result=where(moves, where(unseen, x.w, w), x.w))


class Tunnel(Form):
    """No weight rests near zero: it stops at a floor, and jumps to the other side if it still wants to ("tunnelling").

        old > 0 and new < floor:    new = floor if old > floor, else -floor           the mirror image for old <= 0
        then  |new| <= limit

    Where weights multiply, the gradient of one is in proportion to the other and both stall at 0. Weights that begin
    inside the floor are on its other side after their first step inwards, and exact zeros cannot be. What helps is less
    the jump than the stop: no step crosses 0 in one go, so that larger rates hold (docs/tricks.md). In the original a
    coordinate that was stopped also counts as having no gradient for `Arrested`; here parts do not know of each other.

    Source: Babkin, FloatNeuralNet of the Triceps project ("weight floor"), which limits weights to 1 as well.

    Args:
        inner: how the step is made otherwise.
        floor: how near weights come to 0.
        limit: how far from it; inf for no limit.
    """

    inner: Form = field(default_factory=Greedy)
    floor: Positive = 1e-4
    limit: Positive = math.inf

    def apply(self, x: Signals, s: Memory) -> Signals:
        y = self.inner.apply(x, s.of(self.inner))
        side = where(x.w > 0, 1.0, -1.0)
        old, new = side * x.w, side * minimum(maximum(y.result, -self.limit), self.limit)
        stopped = maximum(new, self.floor)
        return y.replace(result=side * where((new < self.floor) & (old <= self.floor), -stopped, stopped))
