"""Norms, each with the unit vector that goes up fastest: what "steepest" means depends on how length is measured.

The oracle of a norm is ``argmax <u, x> over |x| = 1``; ``<u, oracle(u)>`` is the dual norm of u (Bernstein & Newhouse
2024, "Old Optimizer, New Norm", arXiv:2409.20325). Matrices are (outputs, inputs), kernels (out, in * k * k).
"""

from __future__ import annotations

from slalom.algebra import Value, largest, leading, norm, sign, sqrt, total, where
from slalom.parts.base import Part
from slalom.parts.polar import Iteration, NewtonSchulz
from slalom.parts.signals import Signals

_WHICH = """\
Which X of length 1 goes up fastest along u (and −X down), that is, has the largest ⟨u, X⟩ = Σ uᵢⱼ Xᵢⱼ? It depends on \
how length is measured:

  squares sum to 1      u / ‖u‖    normalised gradient
  no entry above 1      sign(u)    sign descent
  no input stretched    U Vᵀ       Muon

"""


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

    lesson = _WHICH + (
        "The first: ⟨u, X⟩ is the product of both lengths and of the cosine between them, so X points along u. "
        "Entries move in proportion to u, and a step is as long near the minimum as far from it."
    )

    def oracle(self, u: Value, x: Signals) -> Value:
        return _unit(u, norm(u))


class RootMeanSquare(Norm):
    """``|x|_2 / sqrt(size)``, for vectors of any length alike: biases and gains in Scion."""

    lesson = (
        "Vectors are measured by the root mean square of their entries. Among those of 1 the one along u goes up "
        "fastest along u: entries move in proportion to u, by 1 in the mean, whatever the width."
    )

    def oracle(self, u: Value, x: Signals) -> Value:
        return sqrt(x.size) * _unit(u, norm(u))


class MaxEntry(Norm):
    """``max |x_i|``, for matrices the norm from l1 to l-infinity; dual: the sum. Steepest descent is signSGD."""

    lesson = _WHICH + (
        "The second: the sum is largest, Σ |uᵢⱼ|, where every Xᵢⱼ is as large as it may be and has the sign of its "
        "uᵢⱼ. So all weights move alike, however small their gradients. Adam with averages that forget at once takes "
        "this step."
    )

    def oracle(self, u: Value, x: Signals) -> Value:
        return sign(u)


class MaxRowSum(Norm):
    """``d_in max |x_ij|``: `MaxEntry` in units that do not depend on the width, for output layers (Scion's Sign)."""

    lesson = (
        "Here no output may change by more than 1 where no input is above 1: sums of absolute values along rows are "
        "at most 1, and certainly so where no entry is above 1 / columns. Among those sign(u) / columns goes up "
        "fastest along u: every entry is as large as it may be and has the sign of its uᵢⱼ."
    )

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

    lesson = _WHICH + (
        "The last is the spectral norm, the largest singular value: by so much a matrix stretches an input at the "
        "most. With u = U S Vᵀ it is ⟨u, X⟩ = Σ sᵢ uᵢᵀ X vᵢ. An X that stretches nothing has no uᵢᵀ X vᵢ above 1, and "
        "U Vᵀ has them all at 1: that is the most, Σ sᵢ. So all directions of u move alike, weak ones as much as "
        "strong ones, and no output changes by more than its input is long."
    )
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

    lesson = (
        "Of all X that stretch no input U Vᵀ goes up fastest along u = U S Vᵀ: ⟨u, X⟩ = Σ sᵢ uᵢᵀ X vᵢ, and no uᵢᵀ X vᵢ "
        "is above 1. Where inputs and outputs are measured by root mean squares, such an X may be √(rows / columns) "
        "times as large: steps then change what a layer puts out alike at every width."
    )
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

    lesson = (
        "An input picks one row of a table (or one column of a weight), and that row is the output. If the root mean "
        "square of no output may change by more than 1, every row has a bound of its own: each goes along its own "
        "gradient, all by the same length, rare ones as much as frequent ones."
    )
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
