"""Norms, each with the unit vector that goes up fastest: what "steepest" means depends on how length is measured.

The oracle of a norm is ``argmax <u, x> over |x| = 1``; ``<u, oracle(u)>`` is the dual norm of u (Bernstein & Newhouse
2024, "Old Optimizer, New Norm", arXiv:2409.20325). Matrices are (outputs, inputs), kernels (out, in * k * k).
"""

from __future__ import annotations

from slalom.algebra import Value, largest, leading, norm, sign, sqrt, total, where
from slalom.parts.base import Part
from slalom.parts.polar import Iteration, NewtonSchulz
from slalom.parts.signals import Signals


class Norm(Part, abstract=True):
    """A way to measure the length of a step."""

    slot = "norm"
    matrices = False  # whether it is defined for matrices only

    def oracle(self, u: Value, x: Signals) -> Value:
        """Return the step of length 1 that u agrees with most; where u is 0, no step."""
        raise NotImplementedError


def _unit(u: Value, length: Value) -> Value:
    return u / where(length > 0, length, 1.0)


class Euclidean(Norm):
    """``|x|_2``, Frobenius for matrices; dual to itself. Steepest descent is normalised gradient descent."""

    def oracle(self, u: Value, x: Signals) -> Value:
        return _unit(u, norm(u))


class RootMeanSquare(Norm):
    """``|x|_2 / sqrt(size)``, for vectors of any length alike: biases and gains in Scion."""

    def oracle(self, u: Value, x: Signals) -> Value:
        return sqrt(x.size) * _unit(u, norm(u))


class MaxEntry(Norm):
    """``max |x_i|``, for matrices the norm from l1 to l-infinity; dual: the sum. Steepest descent is signSGD."""

    def oracle(self, u: Value, x: Signals) -> Value:
        return sign(u)


class MaxRowSum(Norm):
    """``d_in max |x_ij|``: `MaxEntry` in units that do not depend on the width, for output layers (Scion's Sign)."""

    def oracle(self, u: Value, x: Signals) -> Value:
        return sign(u) / x.columns


class SumOfEntries(Norm):
    """``sum |x_i|``; dual: the largest. Steepest descent moves one coordinate, the steepest; ties share the step."""

    def oracle(self, u: Value, x: Signals) -> Value:
        top = where(abs(u) >= largest(abs(u)), sign(u), 0.0)
        return _unit(top, total(abs(top)))


class SpectralNorm(Norm):
    """The largest singular value; dual: their sum. The oracle is the polar factor ``U V^T``: Muon.

    Args:
        iteration: how it is found; all but `ExactPolar` only come close to length 1.
    """

    iteration: Iteration = NewtonSchulz()
    matrices = True

    def oracle(self, u: Value, x: Signals) -> Value:
        return self.iteration.polar(u)


class RmsToRms(Norm):
    """The largest gain from the inputs' RMS to the outputs': ``sqrt(d_in / d_out)`` times the largest singular value.

    Steps in this norm change what a layer puts out alike at every width (Scion, Dion).

    Args:
        iteration: how the polar factor is found.
    """

    iteration: Iteration = NewtonSchulz()
    matrices = True

    def oracle(self, u: Value, x: Signals) -> Value:
        return sqrt(x.rows / x.columns) * self.iteration.polar(u)


class Nuclear(Norm):
    """The sum of singular values; dual: the largest. The oracle has rank one, ``u_1 v_1^T`` (Frank-Wolfe)."""

    matrices = True

    def oracle(self, u: Value, x: Signals) -> Value:
        return leading(u)


class LargestColumn(Norm):
    """From l1 to l2: the length of the longest column; dual: the sum of lengths."""

    matrices = True

    def oracle(self, u: Value, x: Signals) -> Value:
        return _unit(u, norm(u, "column"))


class OneHotToRms(Norm):
    """From l1 to RMS: the RMS of the largest output that a one-hot input can cause; for embeddings (Scion's ColNorm).

    Args:
        table: the weight is kept as (inputs, outputs), as an embedding's table is, and not as (outputs, inputs).
    """

    table: bool = True
    matrices = True

    def oracle(self, u: Value, x: Signals) -> Value:
        if self.table:
            return sqrt(x.columns) * _unit(u, norm(u, "row"))
        return sqrt(x.rows) * _unit(u, norm(u, "column"))


class RmsToLargest(Norm):
    """From RMS to l-infinity: ``sqrt(d_in)`` times the longest row; for output layers (Scion's RowNorm)."""

    matrices = True

    def oracle(self, u: Value, x: Signals) -> Value:
        return _unit(u, norm(u, "row")) / sqrt(x.columns)
