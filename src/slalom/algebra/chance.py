"""Random numbers as functions: of a seed, a stream, a count and an element's index, so that nothing need be remembered.

A generator's numbers depend on who draws first. These depend on what they are for: equal in every executor, whatever
the threads, the chunks or the order of rows, after a resume and in a copy.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from slalom.algebra import shapes
from slalom.algebra.ops import OPS, Op, Value, apply, log

_LOW: Final = 0xFFFFFFFF
# The inverse of the normal distribution over 2 u - 1, as a polynomial in -log(4 u (1 - u)), which goes from 0 to 15.25
# over what `uniform` yields and is brought to [-1, 1]; fitted at Chebyshev nodes. Errors stay below 1e-5.
_SPAN: Final = 15.249238
_QUANTILE: Final = (
    -0.021858936, 0.031291325, 0.036278527, -0.09316982, 0.06719234, -0.021097859,
    -0.038004752, 0.15988931, -0.43879318, 1.9437799, 3.6691914,
)  # fmt: skip


def _mixed(x: Tensor) -> Tensor:
    """Scramble 32 bits, one to one (the finaliser of MurmurHash3, constants of Mulvey 2018, "lowbias32")."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW
    return x ^ (x >> 16)


def hashed(index: Tensor, stream: Tensor | float, t: Tensor | float, *, seed: int) -> Tensor:
    """Return numbers strictly between 0 and 1, multiples of 2^-24, in the dtype of ``stream``.

    Two rounds, each with 32 bits of its own from seed, stream and count: elements of one tensor never share a round's
    input, and tensors or steps that share the first round's key do not share the second's.
    """
    like = stream if isinstance(stream, Tensor) else torch.tensor(float(stream))
    names = [torch.as_tensor(name, device=index.device).to(torch.int64) for name in (stream, t)]
    first, second = (
        _mixed(_mixed(_mixed(torch.tensor(seed ^ salt, device=index.device) & _LOW) ^ names[0]) ^ names[1])
        for salt in (0, 0x9E3779B9)
    )
    bits = _mixed(_mixed((index & _LOW) ^ first) ^ second ^ (index >> 32))
    return ((bits >> 9).to(like.dtype) + 0.5) * 2.0**-23


def uniform(index: Value, stream: Value, t: Value, seed: int = 0) -> Value:
    """A number strictly between 0 and 1 for every element, independent between streams, counts and elements.

    Args:
        index: of the element (`Signals.position`).
        stream: a whole number that says whose numbers these are, such as a state that begins as ``"number"``.
        t: a whole number that says when.
        seed: a whole number of at most 32 bits.
    """
    return apply("uniform", index, stream, t, seed=seed)  # type: ignore[no-any-return]


def quantile(u: Value) -> Value:
    """The number below which a standard normal one lies with probability u: makes normal numbers of uniform ones."""
    return apply("quantile", u)  # type: ignore[no-any-return]


def quantile_formula(u: Value) -> Value:
    """What `quantile` computes, in simpler operations."""
    v = log(4 * u * (1 - u)) * (-2 / _SPAN) - 1
    p: Value = _QUANTILE[0]  # type: ignore[assignment]
    for coefficient in _QUANTILE[1:]:
        p = p * v + coefficient
    return p * (2 * u - 1)


def drawn(x: Tensor, epoch: float, seed: int, *, rank: int) -> Tensor:
    """Independent normal numbers with variance ``1 / rank``, of shape ``(n, rank)`` for matrices of n columns.

    Args:
        x: gives n, dtype and device; the rank is at most n.
        epoch: numbers of different epochs are independent.
        seed: as are those of different seeds.
        rank: how many columns.
    """
    columns = min(rank, x.shape[-1])
    device = "cpu" if x.device.type == "mps" else x.device  # which has no double precision
    place = torch.arange(x.shape[-1] * columns, device=device)
    nobody = torch.tensor(_LOW, dtype=torch.float64, device=device)  # a stream that no parameter has
    normal: Tensor = quantile_formula(hashed(place, nobody, float(epoch), seed=seed))  # type: ignore[arg-type, assignment]
    return (normal / math.sqrt(columns)).reshape(x.shape[-1], columns).to(x)


def gaussian(x: Value, rank: int, seed: int, epoch: Value | float) -> Value:
    """A random matrix that multiplies ``x`` from the right, always the same for one seed and epoch.

    Args:
        x: gives shape, dtype and device.
        rank: how many columns.
        seed: of all epochs.
        epoch: a number that is known on the host.
    """
    return apply("gaussian", x, epoch, seed, rank=rank)  # type: ignore[no-any-return]


# They join the table from here: it knows of tensors and numbers only.
OPS["uniform"] = Op("uniform", hashed)
OPS["quantile"] = Op("quantile", quantile_formula)
OPS["gaussian"] = Op("gaussian", drawn, None, shapes.thin)
