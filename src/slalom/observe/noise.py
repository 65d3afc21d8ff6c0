"""How much of a gradient is noise, and how large a batch would have to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slalom.observe.record import Run


@dataclass(frozen=True)
class NoiseScale:
    """What two batch sizes say about the gradient.

    Attributes:
        signal: squared norm of the true gradient.
        noise: sum of the variances of one item's gradient, over all coordinates.
        critical_batch: the batch at which both are equal; below it twice the batch is worth twice the steps. nan if
            the norms say nothing, because the estimate of either is negative.
    """

    signal: float
    noise: float

    @property
    def critical_batch(self) -> float:
        """Noise over signal, in items."""
        return self.noise / self.signal if self.signal > 0 and self.noise >= 0 else math.nan


def noise_scale(small: float, large: float, small_batch: float, large_batch: float) -> NoiseScale:
    """Return the noise scale from gradients of batches of two sizes: micro-batches, or ranks, and their mean.

        |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b)        tr S = (|g_b|^2 - |g_B|^2) / (1/b - 1/B)

    Both are unbiased; of a single step they are very noisy: average squared norms over steps before.

    Source: McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", arXiv:1812.06162, appendix A.1.

    Args:
        small: mean squared norm of gradients of the smaller batches.
        large: mean squared norm of gradients of the larger ones.
        small_batch: items in the smaller ones.
        large_batch: items in the larger ones.

    Raises:
        ValueError: unless ``0 < small_batch < large_batch``.
    """
    if not 0 < small_batch < large_batch:
        raise ValueError(f"{small_batch=}, {large_batch=}: two batch sizes are needed, the smaller one first.")
    signal = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    noise = (small - large) / (1 / small_batch - 1 / large_batch)
    return NoiseScale(signal, noise)


def noise_to_batch(run: Run, first: int = 0) -> float:
    """Return how many batches would make one in which signal and noise are equal, from gradients of successive steps.

        E g_t . g_{t-1} = |G|^2        E |g|^2 = |G|^2 + tr S / B

    since two batches have the true gradient in common and nothing else, as far as it has not changed within one step.

    Args:
        run: what was measured.
        first: the first sample to use.

    Returns:
        ``tr S / (B |G|^2)``; infinite where successive gradients have nothing in common, nan if none were measured.
    """
    lengths, befores = run["gradient"][max(first, 0) :], run["gradient_before"][max(first, 0) :]
    dots = run["agree"][max(first, 0) :] * lengths * befores
    known = dots.isfinite()
    if not bool(known.any()):
        return math.nan
    squares = float(lengths[known].square().sum() + befores[known].square().sum()) / 2
    common = float(dots[known].sum())
    return (squares - common) / common if common > 0 else math.inf


__all__ = ["NoiseScale", "noise_scale", "noise_to_batch"]
