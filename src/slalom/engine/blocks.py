"""Parameters that are several: matrices fused along their first dimension, or stacked in it.

Every block is a parameter of its own to whatever runs: a view of the parameter, of its gradient and of its state. So
no executor and no part knows of blocks.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Literal, TypeAlias

from torch import Tensor

Blocks: TypeAlias = int | tuple[int, ...] | Literal["batch"]


def places(length: int, blocks: Blocks) -> list[slice | int]:
    """Return where each block lies along a first dimension of this length."""
    if blocks == "batch":
        return list(range(length))
    rows = (length // blocks,) * blocks if isinstance(blocks, int) else blocks
    return [slice(first, last) for first, last in pairwise(accumulate(rows, initial=0))]


def pieces(tensor: Tensor, blocks: Blocks | None) -> list[Tensor]:
    """Return views of the blocks, or the tensor itself where it is whole."""
    return [tensor] if blocks is None else [tensor[place] for place in places(tensor.shape[0], blocks)]


def in_words(shape: tuple[int, ...], blocks: Blocks) -> str:
    """Say what the blocks of a parameter are: "3 of 64 x 64"."""
    if blocks == "batch":
        return f"{shape[0]} of {_by(shape[1:])}"
    if isinstance(blocks, int):
        return f"{blocks} of {_by((shape[0] // blocks, *shape[1:]))}"
    return " + ".join(_by((rows, *shape[1:])) for rows in blocks)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
