"""Matrix operations by their names, computed by torch; batches of matrices in the leading dimensions are fine."""

from __future__ import annotations

import functools
import math
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from slalom.algebra.symmetric import decomposed

Coefficients: TypeAlias = tuple[tuple[float, float, float], ...]

# Jordan et al. 2024 (Muon): a quintic that pushes every singular value above about 0.01 into [0.68, 1.13] in 5 steps.
MUON_QUINTIC: Final[Coefficients] = ((3.4445, -4.7750, 2.0315),)

# Bytes of matrices that go through an iteration together, for each thread: about what stays near it.
_NEAR_A_THREAD: Final = 1 << 23


def polar(
    x: Tensor, *, steps: int, coefficients: Coefficients, dtype: str, safety: float = 1.0, spent: bool = False
) -> Tensor:
    """Approximate the orthogonal polar factor ``U V^T`` of ``x = U S V^T`` by Newton-Schulz iterations.

    Each step maps the singular values by an odd quintic: ``X <- a X + (b A + c A^2) X`` with ``A = X X^T``.

    Args:
        x: matrices of shape ``(..., m, n)``.
        steps: number of iterations.
        coefficients: one triple ``(a, b, c)`` per step; the last is repeated.
        dtype: what the products are computed in: "bfloat16", "float32" or "float64".
        safety: the iteration starts at ``x / (safety |x|)``.
        spent: nobody needs ``x`` any more, so that the result may take its place.

    Returns:
        Matrices of the shape and dtype of ``x``. They are orthogonal only as far as the coefficients go.
    """
    stack = x.reshape(-1, *x.shape[-2:])
    in_place = spent and stack.is_contiguous()
    result = stack if in_place else torch.empty_like(stack, memory_format=torch.contiguous_format)
    if not result.numel():
        return result.reshape(x.shape)
    kind = getattr(torch, dtype)
    wide, high = sorted(x.shape[-2:], reverse=True)
    each = 2 * high * (wide + high)
    most = len(stack)
    if x.device.type == "cpu":  # where the products of some matrices stay near their thread, and memory is reused
        # a whole number for every thread: torch gives each its own, and is slower where they share one
        most = min(most, torch.get_num_threads() * math.ceil(_NEAR_A_THREAD / (each * kind.itemsize)))
    space = x.new_empty(most * each, dtype=kind)  # at once: a freed piece this large is kept for the next call
    for first in range(0, len(stack), most):
        given, left = stack[first : first + most], result[first : first + most]
        _polar(given, left, space[: len(given) * each], steps, coefficients, safety)
    return result.reshape(x.shape)


def _polar(x: Tensor, out: Tensor, space: Tensor, steps: int, coefficients: Coefficients, safety: float) -> None:
    """Run the iterations of `polar` on a stack, in a space for two matrices of its shape and two squares for each."""
    count, rows, columns = x.shape
    high, wide = min(rows, columns), max(rows, columns)
    sizes = [count * high * wide] * 2 + [count * high * high] * 2
    y, spare, gram, inner = (part.view(count, high, -1) for part in torch.split(space, sizes))
    # the wide way round, laid out so: torch multiplies what lies in rows, and short numbers are turned fastest
    if rows > columns:
        y.copy_(spare.view(x.shape).copy_(x).mT)
    else:
        y.copy_(x)
    y.div_((safety * torch.linalg.vector_norm(y, dim=(-2, -1), keepdim=True)).clamp(min=1e-7))
    for step in range(steps):
        a, b, c = coefficients[min(step, len(coefficients) - 1)]
        torch.bmm(y, y.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=inner)
        # a X is added to the product and not a I to the polynomial: in bfloat16 that doubles the error
        torch.baddbmm(y, inner, y, beta=a, out=spare)
        y, spare = spare, y
    out.copy_(spare.view(x.shape).copy_(y.mT) if rows > columns else y)


@functools.cache
def polar_express(steps: int, lower: float, cushion: float, safety: float) -> Coefficients:
    """Compute the quintics of Polar Express (Amsel et al. 2025, arXiv:2505.16932), one triple per step.

    Args:
        steps: how many.
        lower: where the interval of singular values begins; it ends at 1.
        cushion: each quintic is fitted on an interval that begins at this part of its end or higher.
        safety: every step but the last expects its input magnified by this.
    """
    low, high = lower, 1.0
    found = []
    for step in range(steps):
        a, b, c = _minimax_quintic(max(low, cushion * high), high)
        if cushion * high > low:  # fitted on less than the interval: centre it on 1 again
            ends = [a * s + b * s**3 + c * s**5 for s in (low, high)]
            a, b, c = (2 / sum(ends) * number for number in (a, b, c))
        s = safety if step < steps - 1 else 1.0
        a, b, c = a / s, b / s**3, c / s**5
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
        found.append((a, b, c))
    return tuple(found)


def _minimax_quintic(low: float, high: float) -> tuple[float, float, float]:
    """Return the odd quintic that stays closest to 1 on an interval (Remez: its error swings between four points)."""
    if high - low < 1e-4 * high:  # here the points of the fit can no longer be told apart in double precision
        middle = (low + high) / 2
        return 15 / 8 / middle, -10 / 8 / middle**3, 3 / 8 / middle**5
    inner = np.array([(3 * low + high) / 4, (low + 3 * high) / 4])
    error = math.inf
    for _ in range(100):  # a handful suffices
        points = np.array([low, *inner, high])
        system = np.stack([points, points**3, points**5, np.array([1.0, -1.0, 1.0, -1.0])], axis=1)
        a, b, c, new = np.linalg.solve(system, np.ones(4))
        if abs(new - error) < 1e-15:
            break
        error = new
        root = math.sqrt(9 * b * b - 20 * a * c)  # where the slope a + 3 b x^2 + 5 c x^4 vanishes
        inner = np.sqrt((np.array([-root, root]) - 3 * b) / (10 * c))
    return float(a), float(b), float(c)


def exact_polar(x: Tensor) -> Tensor:
    """Orthogonal polar factor by singular values; what has none keeps none."""
    left, values, right = decomposed(torch.linalg.svd, x, full_matrices=False)
    floor = values[..., :1] * max(x.shape[-2:]) * torch.finfo(x.dtype).eps
    result: Tensor = (left * (values > floor).to(x.dtype).unsqueeze(-2)) @ right
    return result


def leading(x: Tensor) -> Tensor:
    """First singular vectors as a matrix of rank one, ``u_1 v_1^T``; 0 for 0."""
    left, values, right = decomposed(torch.linalg.svd, x, full_matrices=False)
    result: Tensor = left[..., :, :1] * (values[..., :1] > 0).to(x.dtype).unsqueeze(-2) @ right[..., :1, :]
    return result


def turned(x: Tensor, rows: float, columns: float) -> Tensor:
    """Matrices with their longer side as rows, or such matrices turned back."""
    return x.mT if rows < columns else x


def strongest(scores: Tensor, fraction: float) -> Tensor:
    """Return the places of the highest scores, ``ceil(fraction n)`` of n, the earlier where two are equal.

    Args:
        scores: rows of shape ``(..., 1, n)``.
        fraction: how many, in (0, 1].
    """
    count = max(1, math.ceil(fraction * scores.shape[-1]))
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :count]


def pick(x: Tensor, which: Tensor) -> Tensor:
    """Columns of matrices, by their places."""
    return torch.take_along_dim(x, which, dim=-1)


def placed(x: Tensor, which: Tensor, like: Tensor) -> Tensor:
    """Columns at their places in matrices of zeros."""
    return torch.zeros_like(like).scatter_(-1, which.expand(x.shape), x)


def right_vectors(x: Tensor, *, rank: int) -> Tensor:
    """First right singular vectors as columns, at most as many as there are.

    Their signs, which a decomposition leaves open, are such that the largest entry of each is positive.
    """
    vectors = decomposed(torch.linalg.svd, x, full_matrices=False)[2][..., :rank, :].mT
    largest = vectors.gather(-2, vectors.abs().argmax(dim=-2, keepdim=True))
    result: Tensor = vectors * torch.where(largest < 0, -1.0, 1.0).to(x.dtype)
    return result


@functools.cache
def square_shape(size: int) -> tuple[int, int]:
    """Return the most square shape of that many elements, its longer side first; a prime is a single column."""
    if size == 0:
        return 0, 1
    side = next(side for side in range(math.isqrt(size), 0, -1) if size % side == 0)
    return size // side, side
