"""Scales from online learning, whose squares are summed or whose memory grows; see scale.py for running averages."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from slalom.algebra import State, exp, lerp, let, maximum, mean, sqrt, where
from slalom.parts.base import Scale
from slalom.parts.epsilon import Epsilon, as_epsilon
from slalom.parts.memory import Memory
from slalom.parts.ranges import NonNegative, Positive, Within
from slalom.parts.signals import Signals

Share: TypeAlias = Annotated[float, Within(0, 1, low_open=True)]


class RowAccumulated(Scale):
    """Row-wise AdaGrad: one sum for all of a row, as for the embeddings of recommenders (Naumov et al. 2019, DLRM).

        v_i <- v_i + mean of e^2 along row i
        D = sqrt(v_i) + eps                          a vector is one row

    State is one number per row, and one length of step per row leaves the direction of a row's gradient as it is.

    Args:
        eps: see `slalom.parts.epsilon`.
    """

    eps: NonNegative | Epsilon = 1e-10
    v = State(per="row")

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.v = s.v + mean(x.energy * x.energy, "row")
        eps = as_epsilon(self.eps)
        return x.replace(metric=eps.root(s.v, x.unit), divide=eps.divide())


class ColumnAccumulated(Scale):
    """AdaGrad with one sum per column, for choosing whole dimensions of an embedding by a group penalty.

        v_j <- v_j + mean of e^2 along column j
        D = sqrt(v_j) + eps

    Args:
        eps: see `slalom.parts.epsilon`.
    """

    eps: NonNegative | Epsilon = 1e-10
    v = State(per="column")

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.v = s.v + mean(x.energy * x.energy, "column")
        eps = as_epsilon(self.eps)
        return x.replace(metric=eps.root(s.v, x.unit), divide=eps.divide())


class OnlineMoment(Scale):
    """Online RMSprop: a memory that grows with time (Mukkamala & Hein 2017, arXiv:1706.05507).

        v <- (1 - gamma / t) v + (gamma / t) e^2
        D = sqrt(t v) + eps

    With gamma = 1 it is AdaGrad, since t v is then the sum of squares. Steps shrink as ``1 / sqrt(t)``, and the
    metric never falls. The first v is ``gamma e^2``, which the authors do not correct.

    Args:
        gamma: share of the newest square, in (0, 1].
        eps: see `slalom.parts.epsilon`.
    """

    gamma: Share = 0.9
    eps: NonNegative | Epsilon = 1e-8
    v = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.v = lerp(s.v, x.energy * x.energy, self.gamma / x.t)
        eps = as_epsilon(self.eps)
        return x.replace(metric=eps.root(x.t * s.v, x.unit), divide=eps.divide())


class StronglyConvex(Scale):
    """SC-AdaGrad: the sum of squares without a root, for strongly convex losses (arXiv:1706.05507).

        v <- v + e^2
        D = v + xi2 exp(-xi1 v)

    Steps shrink as ``1 / t`` and scale inversely with the loss: the rate belongs on the scale of one over the strong
    convexity. The authors' Keras code starts at xi2 = 0.1, as here.

    Args:
        xi1: how fast the floor vanishes.
        xi2: the floor at the start.
    """

    xi1: NonNegative = 0.1
    xi2: Positive = 0.1
    v = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.v = s.v + x.energy * x.energy
        return x.replace(metric=_without_root(x, s.v, self.xi1, self.xi2))


class StronglyConvexMoment(Scale):
    """SC-RMSprop: Online RMSprop without a root (Mukkamala & Hein 2017, arXiv:1706.05507).

        v <- (1 - gamma / t) v + (gamma / t) e^2
        D = t v + xi2 exp(-xi1 t v)

    With gamma = 1 it is `StronglyConvex`.

    Args:
        gamma: share of the newest square, in (0, 1].
        xi1: how fast the floor vanishes.
        xi2: the floor at the start.
    """

    gamma: Share = 0.9
    xi1: NonNegative = 0.1
    xi2: Positive = 0.1
    v = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.v = lerp(s.v, x.energy * x.energy, self.gamma / x.t)
        return x.replace(metric=_without_root(x, x.t * s.v, self.xi1, self.xi2))


def _without_root(x: Signals, v: Any, xi1: float, xi2: float) -> Any:
    unit = x.unit * x.unit  # v is a square: what magnifies gradients on purpose magnifies the floor squared
    return v + xi2 * unit * exp(-xi1 * v / unit)


class Unrooted(Scale, name="kate"):
    """KATE: AdaGrad without the root, invariant to the scale of features (Choudhury et al. 2024, arXiv:2403.02648).

        b <- b + e^2
        m <- m + eta e^2 + e^2 / (b + eps)
        D = (b + eps) / sqrt(m)

    With eta = 0 the loss of a generalised linear model follows the same path however its features are scaled. A first
    step is ``rate / g`` long: tiny gradients are followed far.

    Args:
        eta: weight of the squares in m; invariance asks for 0.
        eps: added to b wherever it is used; the authors do not accumulate it.
    """

    eta: NonNegative = 0.0
    eps: NonNegative = 1e-8
    b = State()
    m = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        square = let("e²", x.energy * x.energy)
        s.b = s.b + square
        floored = s.b + self.eps * x.unit * x.unit
        s.m = s.m + self.eta * square + square / maximum(floored, 1e-38)
        # Where there was no gradient yet the metric is infinite, which lazy forms cannot hold; any other will do.
        return x.replace(metric=where(s.m > 0, floored / sqrt(s.m), 1.0))
