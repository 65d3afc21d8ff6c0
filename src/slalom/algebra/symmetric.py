"""Symmetric positive semi-definite matrices: products with the own transpose, eigenvectors, inverse roots.

Everything takes stacks of matrices in the leading dimensions. Nothing raises for a matrix that cannot be decomposed:
it becomes nan, which formulas notice, and the others of its stack are served.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

_LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]

# Rows from which halving pays: a smaller product takes as long as the copies.
_HALVED: Final = 512
# Columns from which a GPU is faster with one QR after the other: its batched one is made for small matrices.
_ALONE: Final = 256
# How far from the identity, entry by entry, an iteration may end that counts as a root.
_NEAR: Final = 0.1


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product. Of a stack of one it is that of the matrices: torch's for stacks ignores on a CPU, where one
    of them is turned, what `torch.set_float32_matmul_precision` allows.
    """
    if a.ndim == b.ndim == 3 and len(a) == len(b) == 1:
        return torch.mm(a[0], b[0]).unsqueeze(0)
    return a @ b


def gram(x: Tensor) -> Tensor:
    """Inner products of all rows, ``x x^T``; of a large matrix what mirrors something else is copied, not computed."""
    rows = x.shape[-2]
    if rows < _HALVED:
        return product(x, x.mT)
    half = rows // 2
    upper, lower = x[..., :half, :], x[..., half:, :]
    result = x.new_empty(*x.shape[:-1], rows)
    result[..., :half, :half] = gram(upper)
    result[..., half:, half:] = gram(lower)
    corner = product(lower, upper.mT)
    result[..., half:, :half] = corner
    result[..., :half, half:] = corner.mT
    return result


def decomposed(function: Callable[..., tuple[Tensor, ...]], x: Tensor, **options: bool) -> tuple[Tensor, ...]:
    """Decompose matrices; where that fails one by one in double precision, and into nan what fails there too.

    LAPACK may fail without a word: in single precision a matrix of low rank with many rows of zeros can become nan.
    """
    try:
        found = tuple(function(x, **options))
        if all(bool(torch.isfinite(part).all()) for part in found):
            return found
    except _LinAlgError:
        pass
    if x.ndim > 2:
        each = [decomposed(function, one, **options) for one in x.reshape(-1, *x.shape[-2:])]
        stacked = [torch.stack(parts) for parts in zip(*each, strict=True)]
        return tuple(part.reshape(*x.shape[:-2], *part.shape[1:]) for part in stacked)
    try:
        return tuple(part.to(x.dtype) for part in function(x.double(), **options))
    except _LinAlgError:
        return tuple(torch.full_like(part, math.nan) for part in function(torch.ones_like(x), **options))


def eigenvectors(x: Tensor) -> Tensor:
    """Eigenvectors as columns, largest eigenvalue first.

    A coordinate that nothing has ever touched, whose row is zero, is its own eigenvector, and such come last, in order.
    So what pads a block stays apart, and so does an unused row of an embedding.
    """
    jitter = 1e-30 * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    untouched = x.diagonal(dim1=-2, dim2=-1) == 0
    _, vectors = decomposed(torch.linalg.eigh, _apart(x, untouched) + jitter)
    places = untouched.to(torch.uint8).argsort(dim=-1, stable=True)  # the untouched last
    units = torch.nn.functional.one_hot(places, x.shape[-1]).mT.to(x.dtype)
    last = untouched.gather(-1, places).unsqueeze(-2)
    return _checked(torch.where(last | untouched.unsqueeze(-1), units * last, vectors.flip(-1)), "an eigenbasis")


def _apart(x: Tensor, untouched: Tensor) -> Tensor:
    """Give untouched coordinates eigenvalues of their own, below all others."""
    size = x.diagonal(dim1=-2, dim2=-1).sum(dim=-1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    below = -size * (1 + torch.arange(x.shape[-1], dtype=x.dtype, device=x.device) / x.shape[-1])
    return x + torch.where(untouched, below, 0.0).diag_embed()


def orthonormal(x: Tensor) -> Tensor:
    """Orthonormal columns that span those of ``x`` (QR)."""
    if x.device.type == "cuda" and x.ndim > 2 and x.shape[-1] >= _ALONE:
        each = [torch.linalg.qr(one).Q for one in x.reshape(-1, *x.shape[-2:])]
        return torch.stack(each).reshape(*x.shape[:-2], *each[0].shape)
    q: Tensor = torch.linalg.qr(x).Q
    return q


def refreshed_eigenvectors(x: Tensor, basis: Tensor) -> Tensor:
    """Improve an old eigenbasis by one step of orthogonal iteration: a power step, then QR.

    QR favours the first columns, so they go into it sorted by their Rayleigh quotients, largest first, and come back
    to their places.
    """
    untouched = x.diagonal(dim1=-2, dim2=-1) == 0
    if not bool(untouched.any()):
        return _checked(_power_step(x, basis), "an eigenbasis")
    untouched = untouched & ((basis != 0).sum(dim=-1) == 1)
    improved = _power_step(_apart(x, untouched), basis)
    own = (basis * untouched.unsqueeze(-1)).any(dim=-2, keepdim=True)
    # exactly, not to rounding
    return _checked(torch.where(own | untouched.unsqueeze(-1), basis, improved), "an eigenbasis")


def _power_step(x: Tensor, basis: Tensor) -> Tensor:
    power = product(x, basis)
    order = (power * basis).sum(dim=-2).argsort(dim=-1, descending=True, stable=True)
    places = order.unsqueeze(-2).expand_as(power)
    q = orthonormal(power.gather(-1, places))
    return torch.empty_like(q).scatter_(-1, places, q)


# --- inverse roots ---------------------------------------------------------------------------------------


def inverse_root(x: Tensor, eps: float, *, root: int, relative: bool, method: str, dtype: str, steps: int) -> Tensor:
    """``x^(-1 / root)``; nan where it cannot be had, with one warning.

    Args:
        x: matrices.
        eps: added to all eigenvalues.
        root: which root.
        relative: ``eps`` is meant in units of the mean eigenvalue.
        method: "eigh" or "newton".
        dtype: what is computed in: "float32", "float64", or "same" as the matrices.
        steps: at most so many iterations.
    """
    y = x if dtype == "same" else x.to(getattr(torch, dtype))
    ridge = torch.as_tensor(eps, dtype=y.dtype, device=y.device)
    if relative:
        ridge = (ridge * y.diagonal(dim1=-2, dim2=-1).mean(dim=-1)).clamp(min=1e-16)[..., None, None]
    result = _by_eigenvalues(y, ridge, root) if method == "eigh" else coupled_newton(y, ridge, root, steps)
    return _checked(result, f"the inverse root (-1/{root})").to(x.dtype)


def _by_eigenvalues(x: Tensor, ridge: Tensor, root: int) -> Tensor:
    """By eigh. Negative eigenvalues, which only rounding makes, are shifted to 0 before the ridge is added."""
    values, vectors = decomposed(torch.linalg.eigh, x)
    values = values - values.amin(dim=-1, keepdim=True).clamp(max=0.0) + (ridge[..., 0] if ridge.ndim else ridge)
    result: Tensor = (vectors * values.pow(-1.0 / root).unsqueeze(-2)) @ vectors.mT
    return result


def coupled_newton(x: Tensor, ridge: Tensor, root: int, steps: int, tolerance: float = 1e-6) -> Tensor:
    """By products alone: the coupled Newton iteration for ``x^(-1 / p)`` (Guo & Higham 2006; Anil et al. 2020).

        A = x + ridge I,   z = (p + 1) / (2 |A|),   X = z^(1/p) I,   M = z A
        X <- X T,   M <- T^p M     with T = ((p + 1) I - M) / p,     until M is close to I

    Small eigenvalues are raised by a factor of at most ((p + 1) / p)^p, less than e, in a step, and rounding limits how
    small they may be: in single precision the ridge should be a millionth of the largest eigenvalue or more.
    """
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    a = x + ridge * identity
    z = (root + 1) / (2 * torch.linalg.matrix_norm(a))[..., None, None]
    best, m = z ** (1 / root) * identity, z * a
    y, least = best, (m - identity).abs().amax(dim=(-2, -1))
    for _ in range(steps):
        t = ((root + 1) * identity - m) / root
        y = y @ t
        m = torch.linalg.matrix_power(t, root) @ m
        error = (m - identity).abs().amax(dim=(-2, -1))
        better = error < least  # nan is never better
        best = torch.where(better[..., None, None], y, best)
        least = torch.where(better, error, least)
        # near the end rounding drives the iteration away again; at the beginning errors may grow for a while
        over = (least <= tolerance) | ((least < _NEAR) & ~better) | ~torch.isfinite(error)
        if bool(over.all()):
            break
    return torch.where((least < _NEAR)[..., None, None], best, math.nan)


def _checked(result: Tensor, what: str) -> Tensor:
    """Return what was computed of factors, with a warning if it is not finite."""
    if not bool(torch.isfinite(result).all()):
        warnings.warn(
            f"{what} of a preconditioner's factor is not finite: the one before stays in use. "
            "slalom.observe.failed_roots(optimizer) counts such failures; lower the learning rate, or give a larger "
            "eps.",
            RuntimeWarning,
            stacklevel=2,
        )
    return result
