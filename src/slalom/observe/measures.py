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

from slalom.engine import real_view
from slalom.engine.shards import local
from slalom.observe.tails import tail, thinned

# What lies in one piece of memory while products are taken, in elements.
_CHUNK: Final = 1 << 20


def _pairs(*names: str) -> tuple[str, ...]:
    return tuple(one + other for one in names for other in names)


# Sums of what is known before the step and of what is known after it: w weight, g gradient, u update, h the gradient
# as the step left it; 0 marks those of the step before.
BEFORE: Final = (*_pairs("w", "g", "g0", "u0"), "there", "alive", "some", "x", "xx", "xxx", "xxxx", "logs", "top")
AFTER: Final = (*_pairs("u", "h", "u0"), "stuck", "energy", "known", "ample")

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


def products(tensors: Sequence[Tensor], size: int) -> Tensor:
    """Return the inner products of some tensors of one shape with each other, as a square of nan beyond them.

    Args:
        tensors: two or more.
        size: of the square.
    """
    flat = [tensor.flatten() for tensor in tensors]
    if flat[0].numel() <= _CHUNK:
        rows = torch.stack(flat).to(wide(flat[0]))
        total = rows @ rows.T
    else:
        total = torch.zeros(len(flat), len(flat), dtype=wide(flat[0]), device=flat[0].device)
        for start in range(0, flat[0].numel(), _CHUNK):
            rows = torch.stack([one[start : start + _CHUNK] for one in flat]).to(total.dtype)
            total += rows @ rows.T
    if len(flat) < size:
        square = total.new_full((size, size), torch.nan)
        square[: len(flat), : len(flat)] = total
        return square
    return total


def before(weight: Tensor, gradient: Tensor, earlier: Earlier | None, scale: Tensor | None) -> Tensor:
    """Return the sums `BEFORE` for one parameter.

    Args:
        weight: as it is.
        gradient: what the step uses.
        earlier: gradient and update of the step before, if they were kept.
        scale: what a GradScaler multiplied the gradient by, if it still is.
    """
    if scale is not None:
        gradient = gradient / scale.to(gradient.device)
    past = [] if earlier is None else [earlier.gradient, earlier.update]
    gram = products([weight, gradient, *past], 4)
    there = gradient != 0
    alive = there.flatten(1).any(1) if gradient.ndim > 1 and gradient.numel() else there.new_zeros(0)
    if earlier is not None and len(alive):
        alive |= (earlier.gradient != 0).flatten(1).any(1)
    some = thinned(gradient).to(gram.dtype)
    square = some * some
    powers = torch.stack([some, square, square * some, square * square]).sum(1)
    counts = torch.stack([there.count_nonzero(), alive.count_nonzero()]).to(gram.dtype)
    return torch.cat([gram.flatten(), counts, gram.new_full((1,), some.numel()), powers, tail(some)])


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
    gram = products([update, gradient] if earlier is None else [update, gradient, earlier.update], 3)
    still = torch.logical_and(gradient, start).logical_and_(update == 0).count_nonzero()
    if squares is None:
        rest = [gram.new_full((3,), torch.nan)]
    else:
        mean = squares.mean
        counts = torch.stack([mean.count_nonzero(), (mean >= squares.correction * squares.eps**2).count_nonzero()])
        rest = [(mean.sum(dtype=gram.dtype) / squares.correction)[None], counts.to(gram.dtype)]
    return torch.cat([gram.flatten(), still.to(gram.dtype)[None], *rest])


def mean_square(group: Mapping[str, Any], state: Mapping[str, Any], weight: Tensor) -> Squares | None:
    """Return an adaptive optimizer's mean of squared gradients, if it has one for every element of a weight."""
    for key, corrected in _SQUARES.items():
        mean = dense(state[key]) if isinstance(state.get(key), Tensor) else None
        if mean is not None and mean.numel() == weight.numel():
            betas = group.get("betas")
            # a step count may lie on the device: it stays there
            correction = 1 - betas[1] ** state["step"] if corrected and betas and "step" in state else 1.0
            return Squares(mean, correction, float(group.get("eps", 0.0)))
    return None


def derived(sums: Mapping[str, float], elements: int, rows: int) -> list[float]:
    """Return the entries of `record.QUANTITIES` of one parameter; nan where sums are missing.

    Args:
        sums: `BEFORE` and `AFTER`, or some of them.
        elements: how many it has.
        rows: how many rows; 0 if it is no matrix.
    """

    def get(name: str) -> float:
        return sums.get(name, math.nan)

    known = get("known")
    return [
        _root(get("ww")),
        _root(get("gg")),
        _root(get("uu")),
        _root(get("g0g0")),
        _root(get("u0u0")),
        -_cosine(get("uh"), get("uu"), get("hh")),
        _cosine(get("uu0"), get("uu"), get("u0u0")),
        _cosine(get("gg0"), get("gg"), get("g0g0")),
        _cosine(get("gu0"), get("gg"), get("u0u0")),
        _cosine(get("wg"), get("ww"), get("gg")),
        _over(elements - get("there"), elements),
        _bad(sums, "gg"),
        _bad(sums, "ww"),
        _bad(sums, "uu"),
        _over(get("stuck"), elements),
        _over(max(rows - get("alive"), 0.0), rows),  # a row that is cut between ranks may be alive on several
        _kurtosis(*(get(name) for name in ("some", "x", "xx", "xxx", "xxxx"))),
        _over(get("top"), get("logs")),
        _over(get("energy"), get("gg")),
        _over(known - min(known, get("ample")), known),
    ]


def _bad(sums: Mapping[str, float], name: str) -> float:
    """Return 1 if a sum of squares shows nan or infinity among them, 0 if not; in double precision none overflows."""
    return float(not math.isfinite(sums[name])) if name in sums else math.nan


def _kurtosis(count: float, x: float, xx: float, xxx: float, xxxx: float) -> float:
    if not count > 0:
        return math.nan
    a, b, c, d = x / count, xx / count, xxx / count, xxxx / count
    variance = b - a * a
    return _over(d - 4 * a * c + 6 * a * a * b - 3 * a**4, variance * variance) - 3


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
