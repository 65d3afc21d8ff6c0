"""DIANA's idea: compress not the gradient but what is new about it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from slalom.compress.compressors import Compressor
from slalom.errors import UsageError


class Differences:
    """What a worker, or the server, remembers of gradients, so that messages are of differences alone.

        a worker     q = Q(g - h),   h <- h + a q
        the server   estimate = H + mean of q,   H <- H + a mean of q        H the mean of all h

    h goes to the gradient at the minimum, so what is compressed, and with it the error, goes to 0 (Mishchenko et al.
    2019, DIANA, arXiv:1901.09269). With a contractive compressor and a = 1 it is EF21 (Richtarik et al. 2021,
    arXiv:2106.05203). Without memory h stays 0 and nothing is kept.

    Memories have keys: one for each gradient that is compared with its own past. A message with a number that is none
    shows in the estimate and leaves no trace in them.

    Args:
        compressor: Q.
        rate: a; by default the most that theory allows, ``1 / (1 + omega)``, and 1 for contractive compressors.
        memory: False keeps h at 0.
        generator: for the compressor's chance.

    Raises:
        UsageError: for a compressor that is not unbiased and no memory, or a rate that is too large.
    """

    def __init__(
        self,
        compressor: Compressor,
        *,
        rate: float | None = None,
        memory: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        if not memory and not compressor.unbiased:
            raise UsageError(
                f"{compressor!r} without memory: what it leaves out it leaves out for good, so it needs shifts "
                "(EF21); unbiased compressors, as RandK, do without."
            )
        if rate is not None and not 0 < rate <= 1:
            raise UsageError(f"rate={rate!r}: it must be above 0 and at most 1.")
        self.compressor, self.memory, self.generator = compressor, memory, generator
        self._rate = rate
        self._mine: dict[Hashable, Tensor] = {}
        self._mean: dict[Hashable, Tensor] = {}

    def rate(self, size: int) -> float:
        """Return a for vectors of this size."""
        most = 1 / (1 + self.compressor.omega(size)) if self.compressor.unbiased else 1.0
        if self._rate is None:
            return most
        if self._rate > most * (1 + 1e-9):
            raise UsageError(f"rate={self._rate:g}: {self.compressor!r} allows at most {most:.3g} for {size} values.")
        return self._rate

    def send(self, key: Hashable, gradient: Tensor) -> Tensor:
        """Return a worker's message about a gradient, and remember what the others will know by it."""
        g = gradient.detach().flatten().to(_precision(gradient.dtype))
        if not self.memory:
            return self.compressor.encode(g, self.generator)
        h = self._mine.setdefault(key, torch.zeros_like(g))
        message = self.compressor.encode(g - h, self.generator)
        h.add_(_kept(self.compressor.decode(message, g.numel(), g.dtype)), alpha=self.rate(g.numel()))
        return message

    def receive(self, key: Hashable, messages: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return what all messages about one gradient together say of its mean, in the shape of ``like``.

        Messages are added up in their order, so whoever receives the same has the same bits.
        """
        size, dtype = like.numel(), _precision(like.dtype)
        mean, new = (torch.zeros(size, dtype=dtype, device=like.device) for _ in range(2))
        for message in messages:
            q = self.compressor.decode(message, size, dtype)
            mean += q / len(messages)
            if self.memory:
                new += _kept(q) / len(messages)
        if self.memory:
            known = self._mean.setdefault(key, torch.zeros_like(mean))
            mean += known
            known.add_(new, alpha=self.rate(size))
        return mean.to(like.dtype).reshape(like.shape)

    def state_dict(self) -> dict[str, Any]:
        """Return all memories, and where chance stands."""
        chance = self.generator.get_state() if self.generator is not None else None
        return {"mine": dict(self._mine), "mean": dict(self._mean), "chance": chance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, of the same worker."""
        self._mine, self._mean = (
            {key: value.clone() for key, value in state[name].items()} for name in ("mine", "mean")
        )
        if self.generator is not None and state["chance"] is not None:
            self.generator.set_state(state["chance"])


def _kept(q: Tensor) -> Tensor:
    """Return what memories learn of a message: nothing where it is no number, as when a loss scale is too large."""
    return torch.where(q.isfinite().all(), q, 0.0)


def _precision(dtype: torch.dtype) -> torch.dtype:
    """Return single precision at least: differences of what is nearly equal are lost in half."""
    return torch.float64 if dtype == torch.float64 else torch.float32
