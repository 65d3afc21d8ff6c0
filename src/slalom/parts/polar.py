"""How the orthogonal factor of a matrix is found: ``polar(U S V^T) = U V^T``."""

from __future__ import annotations

from typing import Literal

from slalom.algebra import Value, exact_polar, polar
from slalom.algebra.matrix import MUON_QUINTIC, polar_express
from slalom.parts.base import Part
from slalom.parts.ranges import Constant


class Iteration(Part, abstract=True):
    """A way to the polar factor."""

    slot = "iteration"

    def polar(self, u: Value) -> Value:
        """Return the orthogonal factor, as well as this way can."""
        raise NotImplementedError


class NewtonSchulz(Iteration):
    """One odd quintic, again and again (Jordan et al. 2024, Muon): fast, and not quite orthogonal.

        A = X X^T,   X <- a X + (b A + c A^2) X,   (a, b, c) = (3.4445, -4.7750, 2.0315),   X_0 = u / |u|

    Five steps take singular values from 0.01 to 1 into [0.68, 1.13]; smaller ones grow 485-fold.

    Args:
        steps: how many.
        dtype: what the products are computed in.
    """

    lesson = (
        "polar(u) comes near U Vᵀ by products of matrices alone: in every step each singular value s of u / ‖u‖ "
        "becomes 3.4445 s − 4.775 s³ + 2.0315 s⁵, and U and V stay. After five, all that began above 0.01 lie between "
        "0.68 and 1.13, which does."
    )
    steps: int = 5
    dtype: Literal["bfloat16", "float32", "float64"] = "bfloat16"

    def polar(self, u: Value) -> Value:
        return polar(u, self.steps, MUON_QUINTIC, self.dtype)


class PolarExpress(Iteration):
    """Another quintic in every step, the best for what the last one left (Amsel et al. 2025, arXiv:2505.16932).

    The coefficients are computed when the part is made: each quintic is the minimax approximation of 1 on the interval
    that singular values can lie in by then, beginning with ``[lower, 1]``. Five steps from 0.001 end within 14 % of 1,
    eight at rounding.

    Args:
        steps: how many.
        lower: the smallest singular value, relative to the norm, that should arrive.
        safety: by how much products may overshoot in low precision; 1.02 for bfloat16, 1 in exact arithmetic.
        cushion: the interval's lower end is not below this part of the upper one, which keeps the first steps tame.
        dtype: what the products are computed in.
    """

    lesson = (
        "polar(u) comes near U Vᵀ by products of matrices alone: in every step each singular value s of u / ‖u‖ "
        "becomes a s + b s³ + c s⁵, and U and V stay. a, b and c are, in each step, those that bring all singular "
        "values nearest to 1 from wherever the steps before can have left them."
    )
    steps: int = 5
    lower: Constant = 1e-3
    safety: Constant = 1.02
    cushion: Constant = 0.02
    dtype: Literal["bfloat16", "float32", "float64"] = "bfloat16"

    def __post_init__(self) -> None:
        if not (0 < self.lower < 1 and 0 <= self.cushion < 1 <= self.safety):
            raise ValueError(
                f"PolarExpress(lower={self.lower}, cushion={self.cushion}, safety={self.safety}): "
                "lower and cushion lie between 0 and 1, safety is 1 or more."
            )

    def polar(self, u: Value) -> Value:
        table = polar_express(self.steps, self.lower, self.cushion, self.safety)
        return polar(u, self.steps, table, self.dtype, self.safety)


class ExactPolar(Iteration):
    """By singular values, for reference: slow, exact. Directions without gradient stay without step."""

    def polar(self, u: Value) -> Value:
        return exact_polar(u)
