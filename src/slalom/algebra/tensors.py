"""Arithmetic on tensors, with numbers mixed in: what torch has no function for, or another convention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slalom.algebra import matrix
from slalom.algebra.expr import Per


def maximum(a: Tensor | float, b: Tensor | float) -> Tensor:
    """The larger; nan if either is."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.maximum(a, b)
    return a.clamp(min=b) if isinstance(a, Tensor) else b.clamp(min=a)  # type: ignore[union-attr]


def minimum(a: Tensor | float, b: Tensor | float) -> Tensor:
    """The smaller; nan if either is."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.minimum(a, b)
    return a.clamp(max=b) if isinstance(a, Tensor) else b.clamp(max=a)  # type: ignore[union-attr]


def lerp(a: Tensor | float, b: Tensor | float, weight: Tensor | float) -> Tensor:
    """Move from ``a`` towards ``b``."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape:
        return torch.lerp(a, b, weight)
    return a + weight * (b - a)  # type: ignore[return-value]


def where(condition: Any, a: Tensor | float, b: Tensor | float) -> Tensor | float:
    """Choose."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    plain = not (isinstance(a, Tensor) or isinstance(b, Tensor))
    if plain and not condition.ndim and condition.device.type != "mps":  # torch would make single precision of them
        a, b = (condition.new_full((), n, dtype=torch.float64) for n in (a, b))  # type: ignore[arg-type]
    return torch.where(condition, a, b)


def in_double(x: Tensor) -> Tensor:
    """The same in double precision, where the device has it."""
    return x if x.device.type == "mps" else x.double()


def as_precise_as(x: Tensor, like: Tensor) -> Tensor:
    """The same in another tensor's precision."""
    return x.to(like.dtype)


def atan2(a: Tensor | float, b: Tensor | float) -> Tensor:
    """Angle."""
    like = a if isinstance(a, Tensor) else b
    return torch.atan2(torch.as_tensor(a).to(like), torch.as_tensor(b).to(like))  # type: ignore[arg-type]


def _axes(per: Per, x: Tensor) -> tuple[int, ...]:
    """Return what to reduce over: the sides of a matrix, or of every block in a stack of them, or everything."""
    if per in ("row", "column") and x.ndim not in (2, 3):
        raise ValueError(f"a value per {per} needs the matrix view; this tensor has shape {tuple(x.shape)}")
    if per == "block" and x.ndim == 3:
        return (-2, -1)
    return {"row": (-1,), "column": (-2,)}.get(per, tuple(range(x.ndim)))


def _keeps(per: Per, x: Tensor) -> bool:
    return per in ("row", "column") or (per == "block" and x.ndim == 3)


def total(x: Tensor, *, per: Per, label: str = "") -> Tensor:
    """Sum."""
    return x.sum(dim=_axes(per, x), keepdim=_keeps(per, x))


def largest(x: Tensor, *, per: Per, label: str = "") -> Tensor:
    """Maximum."""
    return x.amax(dim=_axes(per, x), keepdim=_keeps(per, x))


def mean(x: Tensor, *, per: Per) -> Tensor:
    """Mean."""
    return x.mean(dim=_axes(per, x), keepdim=_keeps(per, x))


def norm(x: Tensor, *, per: Per) -> Tensor:
    """Euclidean norm."""
    result: Tensor = torch.linalg.vector_norm(x, dim=_axes(per, x), keepdim=_keeps(per, x))
    return result


def fold(x: Tensor) -> Tensor:
    """The most square view."""
    return x.reshape(matrix.square_shape(x.numel()))


def unfold(x: Tensor, like: Tensor) -> Tensor:
    """The view of ``like``."""
    return x.reshape(like.shape)


def blockwise(x: Tensor, *, blocks: int) -> Tensor:
    """The mean of its block, for every row."""
    rows = x.shape[0]
    length = -(-rows // blocks)
    block = torch.arange(rows, device=x.device) // length
    sums = torch.zeros(blocks, dtype=x.dtype, device=x.device).index_add_(0, block, x.flatten())
    return (sums / torch.bincount(block, minlength=blocks))[block].reshape(x.shape)
