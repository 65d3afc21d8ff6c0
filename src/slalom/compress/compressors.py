"""What a worker sends in place of a gradient. A message is bytes, so that what it costs is its length.

An unbiased compressor Q has  E Q(x) = x  and  E |Q(x) - x|^2 <= omega |x|^2; the mean over workers then loses little.
A contractive one is wrong on average but never by more than a share of ``|x|``; it needs error feedback.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from slalom.compress.bits import bools, packed
from slalom.errors import UsageError

_UNDEFINED = 255  # Natural's code for what is no number


@dataclass(frozen=True)
class Compressor:
    """A way to write a vector down in fewer bytes."""

    unbiased: ClassVar[bool] = True

    def omega(self, size: int) -> float:
        """Return the relative variance for vectors of this size; of what is not unbiased, the share that is lost."""
        raise NotImplementedError

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the message, bytes, for a vector in single or double precision; its length depends on x's alone."""
        raise NotImplementedError

    def decode(self, message: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """Return the vector that a message stands for."""
        raise NotImplementedError

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return what arrives of a tensor."""
        flat = x.flatten()
        return self.decode(self.encode(flat, generator), flat.numel(), x.dtype).reshape(x.shape)


@dataclass(frozen=True)
class Identity(Compressor):
    """Nothing is lost: ``omega = 0``."""

    def omega(self, size: int) -> float:
        return 0.0

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return _bytes(x)

    def decode(self, message: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        return _values(message, dtype)


@dataclass(frozen=True)
class RandK(Compressor):
    """A random share of the coordinates, magnified by its inverse: ``omega = d / k - 1``.

    The message is k values and the seed they were chosen by. Workers choose each for itself: with one choice for all,
    a sum could be formed of k values on the way, but the workers' errors would be alike and no mean would lower them.

    Args:
        share: k / d, in (0, 1]; at least one coordinate is sent.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        _check_share(self)

    def omega(self, size: int) -> float:
        return size / _count(self.share, size) - 1 if size else 0.0

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        device = generator.device if generator is not None else "cpu"
        seed = torch.randint(2**62, (1,), generator=generator, device=device).to(x.device)
        chosen = self._chosen(seed, x.numel())
        return torch.cat([_bytes(seed), _bytes(x[chosen] * (x.numel() / max(len(chosen), 1)))])

    def decode(self, message: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        x = torch.zeros(size, dtype=dtype, device=message.device)
        x[self._chosen(_values(message[:8], torch.int64), size)] = _values(message[8:], dtype)
        return x

    def _chosen(self, seed: Tensor, size: int) -> Tensor:
        ours = torch.Generator().manual_seed(int(seed))
        return torch.randperm(size, generator=ours)[: _count(self.share, size)].to(seed.device)


@dataclass(frozen=True)
class QSGD(Compressor):
    """Random rounding to s levels of the vector's length (Alistarh et al. 2017, arXiv:1610.02132).

        Q(x)_i = |x| sign(x_i) floor(s |x_i| / |x| + xi) / s        xi uniform in [0, 1)
        omega = min(d / s^2, sqrt(d) / s)

    A byte for each value up to 127 levels, two up to 32767. The authors code the many zeros more shortly.

    Args:
        levels: s.
    """

    levels: int = 127

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 32767:
            raise UsageError(f"QSGD(levels={self.levels!r}): levels must be a whole number from 1 to 32767.")

    def omega(self, size: int) -> float:
        return min(size / self.levels**2, math.sqrt(size) / self.levels)

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        length = x.norm()
        up = _uniform(x, generator)
        levels = (self.levels * x.abs() / torch.where(length > 0, length, 1.0) + up).floor()
        return torch.cat([_bytes(length[None]), _bytes((levels * x.sign()).to(self._kind))])

    def decode(self, message: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        width = dtype.itemsize
        length = _values(message[:width], dtype)
        return length * _values(message[width:], self._kind).to(dtype) / self.levels

    @property
    def _kind(self) -> torch.dtype:
        return torch.int8 if self.levels <= 127 else torch.int16


@dataclass(frozen=True)
class Natural(Compressor):
    """Random rounding to a power of two: a sign and an exponent (Horvath et al. 2019, arXiv:1905.10988).

    ``omega = 1/8`` whatever the size; nine bits for each value. Below 2^-126 it rounds to that or to 0.
    """

    def omega(self, size: int) -> float:
        return 1 / 8

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        size = x.abs()
        mantissa, exponent = torch.frexp(size)  # in [1/2, 1), and 2^exponent
        small = (exponent < -125) | (size == 0)
        up = _uniform(x, generator)
        code = exponent + 126 + (up < 2 * mantissa - 1).to(exponent.dtype)  # 1 is 2^-126
        code = torch.where(small, (up < size * 2.0**126).to(code.dtype), code)
        code = torch.where(size.isfinite() & (code < _UNDEFINED), code, _UNDEFINED)
        return torch.cat([code.to(torch.uint8), packed(x < 0)])

    def decode(self, message: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        code, negative = message[:size], bools(message[size:], size)
        # the code is the exponent as single precision has it, so 0 is 0
        x = (code.to(torch.int32) << 23).view(torch.float32).to(dtype)
        return torch.where(code == _UNDEFINED, torch.nan, torch.where(negative, -x, x))


@dataclass(frozen=True)
class TopK(Compressor):
    """The largest coordinates, as they are: of ``|x|^2`` at most ``1 - k / d`` is lost.

    What is small is never sent, so a mean of such messages is wrong for good unless what was lost is remembered
    (EF21: Richtarik et al. 2021, arXiv:2106.05203).

    Args:
        share: k / d, in (0, 1]; at least one coordinate is sent.
    """

    unbiased: ClassVar[bool] = False
    share: float = 0.1

    def __post_init__(self) -> None:
        _check_share(self)

    def omega(self, size: int) -> float:
        return 1 - _count(self.share, size) / size if size else 0.0

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        places = x.abs().topk(_count(self.share, x.numel())).indices
        return torch.cat([_bytes(places), _bytes(x[places])])

    def decode(self, message: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        places = 8 * _count(self.share, size)
        x = torch.zeros(size, dtype=dtype, device=message.device)
        x[_values(message[:places], torch.int64)] = _values(message[places:], dtype)
        return x


def _check_share(one: RandK | TopK) -> None:
    if not 0 < one.share <= 1:
        raise UsageError(f"{type(one).__name__}(share={one.share!r}): the share must be above 0 and at most 1.")


def _count(share: float, size: int) -> int:
    return min(size, max(1, round(share * size)))


def _uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else x.device
    return torch.rand(x.shape, dtype=x.dtype, generator=generator, device=device).to(x.device)


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)


def _values(message: Tensor, dtype: torch.dtype) -> Tensor:
    return message.clone().view(dtype)  # a copy begins where every type may
