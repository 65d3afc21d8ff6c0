"""How heavy the tails of a set of numbers are: one statistic of all of it, one of the largest alone."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# Tails are of a sample where there are more: sorting an embedding of a billion numbers costs more than the step.
SAMPLE: Final = 1 << 16
TOP: Final = 0.02


def excess_kurtosis(values: Tensor) -> Tensor:
    """Return the fourth standardised moment less 3: 0 for a Gaussian, infinite in the limit for heavy tails.

    Args:
        values: real numbers of any shape.

    Returns:
        One number; nan if all values are equal.
    """
    centred = values.flatten() - values.mean()
    squares = centred.square()
    return squares.square().mean() / squares.mean().square() - 3


def hill(values: Tensor, top: float = TOP) -> Tensor:
    """Return Hill's index of the magnitudes' tail: P(|x| > r) falls as r^-alpha; below 2 the variance is infinite.

        alpha = 1 / mean of ln(|x|_(i) / |x|_(k+1)) over the k largest

    Source: Hill 1975, "A simple general approach to inference about the tail of a distribution".

    Args:
        values: real numbers of any shape.
        top: which share of them counts as the tail; at least 5 values do.

    Returns:
        One number; nan where fewer than 6 values are not 0, infinite where the largest are all equal.
    """
    sizes = values.flatten().abs()
    k = max(5, round(top * sizes.numel()))
    if sizes.numel() <= k:
        return torch.full((), torch.nan, dtype=sizes.dtype, device=sizes.device)
    largest = sizes.topk(k + 1).values
    return 1 / (largest[:k] / largest[k]).log().mean()


def thinned(values: Tensor, most: int = SAMPLE) -> Tensor:
    """Return at most so many of the values, evenly spread; the same ones for the same shape."""
    flat = values.flatten()
    # An odd stride, so that it does not fall into step with rows whose lengths are powers of two.
    stride = (-(-flat.numel() // most)) | 1
    return flat[::stride]


__all__ = ["excess_kurtosis", "hill", "thinned"]
