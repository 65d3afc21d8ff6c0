"""How heavy the tails of a set of numbers are: Hill's index, and which numbers it is taken from."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# Tails are of a sample where there are more: sorting an embedding of a billion numbers costs more than the step.
SAMPLE: Final = 1 << 16
TOP: Final = 0.02
FEWEST: Final = 5


def hill(values: Tensor, top: float = TOP) -> Tensor:
    """Return Hill's index of the magnitudes' tail: P(|x| > r) falls as r^-alpha; below 2 the variance is infinite.

        alpha = 1 / mean of ln(|x|_(i) / |x|_(k+1)) over the k largest

    Source: Hill 1975, "A simple general approach to inference about the tail of a distribution".

    Args:
        values: real numbers of any shape.
        top: which share of them counts as the tail; at least 5 values do.

    Returns:
        One number; nan of fewer than 6 values or where the tail reaches zeros, infinite if the largest are all equal.
    """
    logs, count = tail(values, top).unbind()
    return torch.div(count, logs)


def tail(values: Tensor, top: float = TOP) -> Tensor:
    """Return sum and count of the logarithms that `hill` takes the mean of; 0 and 0 of too few values."""
    sizes = values.flatten().abs()
    k = max(FEWEST, round(top * sizes.numel()))
    if sizes.numel() <= k:
        return sizes.new_zeros(2)
    logs = sizes.topk(k + 1).values.log()
    return torch.stack([logs.sum() - (k + 1) * logs[k], logs.new_full((), k)])


def stride(count: int) -> int:
    """Return how far apart the values lie that are taken of so many: odd, to fall into no step with rows of 2^k."""
    return (-(-count // SAMPLE)) | 1


def thinned(values: Tensor) -> Tensor:
    """Return at most 65,536 of the values, evenly spread; the same ones for the same shape."""
    return values.flatten()[:: stride(values.numel())]


__all__ = ["hill", "tail", "thinned"]
