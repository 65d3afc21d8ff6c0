"""Eigenvalues, density and trace of a symmetric matrix that can only be multiplied with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """The ends of a spectrum.

    Attributes:
        top: the largest eigenvalues, the largest first.
        residuals: |A v - lambda v| of each; an eigenvalue lies at least as near to what is told.
        bottom: the smallest eigenvalue.
        bottom_residual: likewise.
        vector: a unit eigenvector of the largest.
    """

    top: tuple[float, ...]
    residuals: tuple[float, ...]
    bottom: float
    bottom_residual: float
    vector: Tensor


class _Recurrence:
    """Lanczos' recurrence, every vector made orthogonal to all before it, twice; one vector per iteration is kept.

    Args:
        product: multiplies a vector.
        start: where to begin.
        most: iterations, at most.
    """

    def __init__(self, product: Product, start: Tensor, most: int) -> None:
        self.product, self.most = product, min(most, start.numel())
        self.basis = torch.empty(self.most, start.numel(), dtype=start.dtype, device=start.device)
        self.basis[0] = start / torch.linalg.vector_norm(start)
        self.diagonal: list[float] = []
        self.beside: list[float] = []

    def step(self) -> None:
        """Multiply by the newest vector; what is left beside all of them is the next."""
        newest = self.basis[len(self.diagonal)]
        image = self.product(newest)
        self.diagonal.append(float(torch.dot(image, newest)))
        self.left = self._beside_all(image)
        self.length = float(torch.linalg.vector_norm(self.left))
        self.values, self.vectors = _ritz(self.diagonal, self.beside)

    @property
    def ended(self) -> bool:
        """Whether nothing but rounding was left: the vectors span a space that the matrix maps to itself."""
        eps = torch.finfo(self.basis.dtype).eps
        return self.length <= 10 * eps * max(float(self.values.abs().max()), 1e-30)

    @property
    def full(self) -> bool:
        """Whether no further vector is taken."""
        return len(self.diagonal) == self.most

    def go_on(self) -> None:
        """Take what is left as the next vector."""
        self._add(self.left, self.length)

    def go_elsewhere(self, vector: Tensor) -> None:
        """Take a vector from outside the space that was found."""
        self._add(self._beside_all(vector), 0.0)

    def _add(self, vector: Tensor, beside: float) -> None:
        self.basis[len(self.diagonal)] = vector / torch.linalg.vector_norm(vector)
        self.beside.append(beside)

    def _beside_all(self, vector: Tensor) -> Tensor:
        known = self.basis[: len(self.diagonal)]
        for _ in range(2):
            vector = vector - known.T @ (known @ vector)
        return vector


def lanczos(
    product: Product, start: Tensor, draw: Callable[[], Tensor], *, top: int, most: int, tolerance: float
) -> Spectrum:
    """Return the ends of a spectrum by Lanczos' recurrence.

    Where the recurrence ends early, in an invariant subspace, it goes on from a new random vector: small matrices are
    found whole, equal eigenvalues included. In large ones an eigenvalue that occurs twice may be told once.

    Args:
        product: multiplies a vector.
        start: where to begin, at random.
        draw: another random vector.
        top: how many of the largest eigenvalues.
        most: iterations, at most.
        tolerance: of residuals, relative to the largest eigenvalue's size.
    """
    found = _Recurrence(product, start, most)
    while True:
        found.step()
        values, residuals = found.values, (found.length * found.vectors[-1]).abs()
        wanted = min(top, len(values))
        done = len(values) >= min(top + 2, found.most) and bool(
            (torch.cat([residuals[-wanted:], residuals[:1]]) <= tolerance * float(values.abs().max())).all()
        )
        if found.full or (done and not found.ended):
            break
        if found.ended:
            found.go_elsewhere(draw())
        else:
            found.go_on()
    best = found.basis[: len(values)].T @ found.vectors[:, -1].to(found.basis)
    return Spectrum(
        tuple(float(values[-k]) for k in range(1, wanted + 1)),
        tuple(float(residuals[-k]) for k in range(1, wanted + 1)),
        float(values[0]),
        float(residuals[0]),
        best / torch.linalg.vector_norm(best),
    )


def quadrature(product: Product, start: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of the spectrum as a vector v sees it: v f(A) v / |v|^2 is the sum of weights times f.

    Exact for polynomials of degree below twice the number of nodes, and for all f once the recurrence ends by itself.
    Over vectors of random signs the mean is the trace of f(A), over the matrix's size.

    Source: Golub & Welsch 1969, Calculation of Gauss quadrature rules; Ghorbani, Krishnan, Xiao 2019, An Investigation
    into Neural Net Optimization via Hessian Eigenvalue Density, arXiv:1901.10159.

    Args:
        product: multiplies a vector.
        start: v.
        most: iterations, at most.
    """
    found = _Recurrence(product, start, most)
    found.step()
    while not (found.full or found.ended):
        found.go_on()
        found.step()
    return found.values, found.vectors[0].square()


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def hutchinson(product: Product, signs: Callable[[], Tensor], samples: int) -> tuple[float, float]:
    """Return an unbiased estimate of the trace, the mean of z A z over random signs z, and its standard error."""
    found = []
    for _ in range(samples):
        z = signs()
        found.append(float(torch.dot(z.double(), product(z).double())))
    estimates = torch.tensor(found, dtype=torch.float64)
    error = float(estimates.std() / samples**0.5) if samples > 1 else float("nan")
    return float(estimates.mean()), error
