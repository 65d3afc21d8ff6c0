"""Eigenvalues and the trace of a symmetric matrix that can only be multiplied with."""

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


def lanczos(
    product: Product, start: Tensor, draw: Callable[[], Tensor], *, top: int, most: int, tolerance: float
) -> Spectrum:
    """Return the ends of a spectrum by Lanczos' recurrence, every vector made orthogonal to all before it, twice.

    One vector per iteration is kept. Where the recurrence ends early, in an invariant subspace, it goes on from a new
    random vector: small matrices are found whole, equal eigenvalues included. In large ones an eigenvalue that occurs
    twice may be told once.

    Args:
        product: multiplies a vector.
        start: where to begin, at random.
        draw: another random vector.
        top: how many of the largest eigenvalues.
        most: iterations, at most.
        tolerance: of residuals, relative to the largest eigenvalue's size.
    """
    most = min(most, start.numel())
    basis = torch.empty(most, start.numel(), dtype=start.dtype, device=start.device)
    diagonal: list[float] = []
    beside: list[float] = []
    vector = start / torch.linalg.vector_norm(start)
    for step in range(most):
        basis[step] = vector
        image = product(vector)
        diagonal.append(float(torch.dot(image, vector)))
        for _ in range(2):
            image = image - basis[: step + 1].T @ (basis[: step + 1] @ image)
        length = float(torch.linalg.vector_norm(image))
        values, vectors = _ritz(diagonal, beside)
        size = float(values.abs().max())
        residuals = (length * vectors[-1]).abs()
        wanted = min(top, step + 1)
        done = step + 1 >= min(top + 2, most) and bool(
            (torch.cat([residuals[-wanted:], residuals[:1]]) <= tolerance * size).all()
        )
        ended = length <= 10 * torch.finfo(start.dtype).eps * max(size, 1e-30)
        if step + 1 == most or (done and not ended):
            break
        if ended:
            length, image = 0.0, draw()
            for _ in range(2):
                image = image - basis[: step + 1].T @ (basis[: step + 1] @ image)
        beside.append(length)
        vector = image / torch.linalg.vector_norm(image)
    best = basis[: len(diagonal)].T @ vectors[:, -1].to(basis)
    return Spectrum(
        tuple(float(values[-k]) for k in range(1, wanted + 1)),
        tuple(float(residuals[-k]) for k in range(1, wanted + 1)),
        float(values[0]),
        float(residuals[0]),
        best / torch.linalg.vector_norm(best),
    )


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
