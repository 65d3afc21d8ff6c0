"""What is measured of a parameter around a step: sums on its own device, which the host reads all at once.

Everything is a sum over elements, so that shards only need to be added up. Two passes of products give every norm and
cosine: one over what is known before the step (weights, gradient, and gradient and update of the step before), one
over what the step made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from slalom.engine.shards import local
from slalom.loading import real_view
from slalom.observe.tails import excess_kurtosis, hill, thinned

# What lies in one piece of memory while products are taken, in elements.
_CHUNK: Final = 1 << 20

# Columns of what is known before the step, and of what is known after it.
BEFORE: Final = (
    "ww", "wg", "gg", "gg0", "gu0", "g0g0", "u0u0",
    "zeros", "bad", "weight_bad", "dead", "rows", "elements", "kurtosis", "tail",
)  # fmt: skip
AFTER: Final = ("uu", "uu0", "ug", "gg_after", "stuck", "update_bad", "energy", "small", "scaled")

# Where optimizers keep their mean of squared gradients, and whether it starts at 0 and is divided by 1 - beta^t.
_SQUARES: Final = {
    "exp_avg_sq": True,  # torch, and many after it
    "square_avg": False,
    "second_moment.v": True,
}


@dataclass
class Earlier:
    """What is kept of one parameter from a step to the one after it."""

    gradient: Tensor
    update: Tensor


@dataclass(frozen=True)
class Squares:
    """An optimizer's mean of squared gradients, what it is divided by, and the epsilon beside its root."""

    mean: Tensor
    correction: Tensor | float
    eps: float


def part(parameter: Tensor) -> Tensor:
    """Return this rank's part of a parameter, as real numbers."""
    return real_view(local(parameter.detach()))


def dense(tensor: Tensor | None) -> Tensor | None:
    """Return the same of a tensor that may not be there or list rows; None then."""
    if tensor is None or tensor.is_sparse:
        return None
    return part(tensor)


def wide(tensor: Tensor) -> torch.dtype:
    """Return the dtype that sums are taken in: squares of gradients under- and overflow in single precision."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def products(tensors: Sequence[Tensor]) -> Tensor:
    """Return the inner products of some tensors of one shape with each other, as a matrix."""
    first = tensors[0]
    total = torch.zeros(len(tensors), len(tensors), dtype=wide(first), device=first.device)
    flat = [tensor.flatten() for tensor in tensors]
    for start in range(0, first.numel(), _CHUNK):
        rows = torch.stack([one[start : start + _CHUNK].to(total.dtype) for one in flat])
        total += rows @ rows.T
    return total


def before(weight: Tensor, gradient: Tensor, earlier: Earlier | None, scale: Tensor | None) -> Tensor:
    """Return the sums `BEFORE` for one parameter.

    Args:
        weight: as it is.
        gradient: what the step uses.
        earlier: gradient and update of the step before, if they were kept.
        scale: what a GradScaler multiplied the gradient by, if it still is.
    """
    nothing = torch.full((), torch.nan, dtype=wide(weight), device=weight.device)
    if scale is not None:
        gradient = gradient / scale.to(gradient.device)
    if earlier is None:
        gram = products([weight, gradient])
        sums = [gram[0, 0], gram[0, 1], gram[1, 1], nothing, nothing, nothing, nothing]
    else:
        gram = products([weight, gradient, earlier.gradient, earlier.update])
        sums = [gram[0, 0], gram[0, 1], gram[1, 1], gram[1, 2], gram[1, 3], gram[2, 2], gram[3, 3]]
    there = gradient != 0
    counts = [gradient.numel() - there.sum(), _bad(gradient), _bad(weight)]
    if gradient.ndim > 1 and gradient.numel():
        alive = there.flatten(1).any(1)
        if earlier is not None:
            alive |= (earlier.gradient != 0).flatten(1).any(1)
        counts.append(len(alive) - alive.sum())
        rows = len(alive)
    else:
        counts.append(torch.zeros((), device=weight.device))
        rows = 0
    some = thinned(gradient).to(torch.float32) if gradient.numel() else gradient
    tails = [excess_kurtosis(some), hill(some)] if gradient.numel() else [nothing, nothing]
    sizes = [torch.full_like(nothing, rows), torch.full_like(nothing, gradient.numel())]
    return torch.stack([one.to(nothing.dtype) for one in (*sums, *counts, *sizes, *tails)])


def after(weight: Tensor, gradient: Tensor, start: Tensor, earlier: Earlier | None, squares: Squares | None) -> Tensor:
    """Return the sums `AFTER` for one parameter.

    Args:
        weight: as the step left it.
        gradient: as the step left it.
        start: the weight before the step.
        earlier: gradient and update of the step before, if they were kept.
        squares: the optimizer's, if it has any.
    """
    update = weight - start
    nothing = torch.full((), torch.nan, dtype=wide(weight), device=weight.device)
    gram = products([update, gradient] if earlier is None else [update, gradient, earlier.update])
    still = ((update == 0) & (gradient != 0) & (start != 0)).sum()
    found = [gram[0, 0], nothing if earlier is None else gram[0, 2], gram[0, 1], gram[1, 1], still, _bad(update)]
    if squares is None:
        found += [nothing, nothing, nothing]
    else:
        known = squares.mean > 0  # a coordinate that never had a gradient has no step that epsilon could shorten
        found += [
            squares.mean.sum(dtype=nothing.dtype) / squares.correction,
            (known & (squares.mean < squares.correction * squares.eps**2)).sum(),
            known.sum(),
        ]
    return torch.stack([one.to(nothing.dtype) for one in found])


def _bad(values: Tensor) -> Tensor:
    return values.numel() - values.isfinite().sum()


def mean_square(group: Mapping[str, Any], state: Mapping[str, Any], parameter: Tensor) -> Squares | None:
    """Return an adaptive optimizer's mean of squared gradients, if it has one for every element."""
    for key, corrected in _SQUARES.items():
        mean = dense(state[key]) if isinstance(state.get(key), Tensor) else None
        if mean is not None and mean.numel() == parameter.numel():
            betas = group.get("betas")
            # a step count may lie on the device: it stays there
            correction = 1 - betas[1] ** state["step"] if corrected and betas and "step" in state else 1.0
            return Squares(mean.reshape(parameter.shape), correction, float(group.get("eps", 0.0)))
    return None


def derived(sums: Mapping[str, float]) -> list[float]:
    """Return the entries of `record.QUANTITIES` from the sums of one parameter; nan for those that need others."""

    def get(name: str) -> float:
        return sums.get(name, math.nan)

    return [
        _root(get("ww")),
        _root(get("gg")),
        _root(get("uu")),
        _root(get("g0g0")),
        _root(get("u0u0")),
        -_cosine(get("ug"), get("uu"), get("gg_after")),
        _cosine(get("uu0"), get("uu"), get("u0u0")),
        _cosine(get("gg0"), get("gg"), get("g0g0")),
        _cosine(get("gu0"), get("gg"), get("u0u0")),
        _cosine(get("wg"), get("ww"), get("gg")),
        *(_over(get(name), get("elements")) for name in ("zeros", "bad", "weight_bad", "update_bad", "stuck")),
        _over(get("dead"), get("rows")),
        get("kurtosis"),
        get("tail"),
        _over(get("energy"), get("gg")),
        _over(get("small"), get("scaled")),
    ]


def _root(square: float) -> float:
    return math.sqrt(square) if square >= 0 else math.nan


def _over(share: float, whole: float) -> float:
    return share / whole if whole else math.nan


def _cosine(dot: float, one: float, other: float) -> float:
    return _over(dot, _root(one) * _root(other))


__all__ = [
    "AFTER",
    "BEFORE",
    "Earlier",
    "Squares",
    "after",
    "before",
    "dense",
    "derived",
    "mean_square",
    "part",
    "wide",
]
