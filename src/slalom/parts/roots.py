"""How the inverse root of a preconditioner's factor is taken: ``F^(-1/p)``."""

from __future__ import annotations

from typing import Literal

from slalom.algebra import Value, inverse_root
from slalom.parts.base import Part
from slalom.parts.ranges import check_count


class InverseRoot(Part, abstract=True):
    """A way to the inverse root of a symmetric positive semi-definite matrix."""

    slot = "inverse"

    def of(self, factor: Value, root: int, eps: Value | float) -> Value:
        """Return ``(factor + eps I)^(-1 / root)``; nan where it cannot be had."""
        raise NotImplementedError


class ByEigenvalues(InverseRoot):
    """By an eigendecomposition, after which every root costs the same.

        F = V diag(f) V^T,   F^(-1/p) = V diag(f - min(f, 0) + eps)^(-1/p) V^T

    Negative eigenvalues, which only rounding makes, are shifted away. A matrix whose decomposition fails is decomposed
    again in double precision, by itself.

    Args:
        relative: eps is meant in units of the mean eigenvalue.
        dtype: what is computed in; ``"same"``: the factors' own.
    """

    relative: bool = False
    dtype: Literal["same", "float32", "float64"] = "same"

    def of(self, factor: Value, root: int, eps: Value | float) -> Value:
        return inverse_root(factor, root, eps, relative=self.relative, method="eigh", dtype=self.dtype, steps=0)


class CoupledNewton(InverseRoot):
    """By products of matrices alone: the coupled Newton iteration (Guo & Higham 2006; Anil et al. 2020, 2002.09018).

        A = F + eps I,   z = (p + 1) / (2 |A|),   X = z^(1/p) I,   M = z A
        X <- X T,   M <- T^p M     with T = ((p + 1) I - M) / p,   until M = I to a millionth

    The fewer steps the better conditioned: in single precision eps should be a millionth of the largest eigenvalue or
    more. The step nearest to I counts; one that does not come within 0.1 of it has failed.

    Args:
        relative: eps is meant in units of the mean eigenvalue.
        dtype: what is computed in; ``"same"``: the factors' own.
        steps: at most so many.
    """

    relative: bool = True
    dtype: Literal["same", "float32", "float64"] = "same"
    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("CoupledNewton", "steps", self.steps)

    def of(self, factor: Value, root: int, eps: Value | float) -> Value:
        return inverse_root(
            factor, root, eps, relative=self.relative, method="newton", dtype=self.dtype, steps=self.steps
        )
