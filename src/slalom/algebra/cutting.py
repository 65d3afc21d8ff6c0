"""Matrices cut into blocks of equal shape, as stacks: what is done to each block is done to all in one call."""

from __future__ import annotations

import torch
from torch import Tensor


def block_shape(rows: int, columns: int, size: int) -> tuple[int, int, int]:
    """Return how many blocks a matrix is cut into and the shape of each.

    A side longer than ``size`` is cut into as few pieces as it takes, of equal length: 50257 rows under 1024 are 50
    pieces of 1006, and 43 rows too many, which hold zeros.
    """
    high, wide = (-(-side // size) or 1 for side in (rows, columns))
    return high * wide, -(-rows // high), -(-columns // wide)


def blocks(x: Tensor, *, size: int) -> Tensor:
    """Cut matrices of shape ``(..., m, n)`` into blocks, row by row of blocks, stacked in a new first dimension."""
    *lead, rows, columns = x.shape
    count, high, wide = block_shape(rows, columns, size)
    if count == 1:
        return x.unsqueeze(0)
    down, across = -(-rows // high), -(-columns // wide)
    padded = torch.nn.functional.pad(x, (0, across * wide - columns, 0, down * high - rows))
    grid = padded.reshape(*lead, down, high, across, wide)
    place = len(lead)
    order = (place, place + 2, *range(place), place + 1, place + 3)
    return grid.permute(order).reshape(count, *lead, high, wide)


def unblocks(x: Tensor, like: Tensor) -> Tensor:
    """Put blocks together again to matrices of the shape of ``like``."""
    *lead, rows, columns = like.shape
    if x.shape[0] == 1:
        return x[0]
    high, wide = x.shape[-2:]
    down, across = -(-rows // high), -(-columns // wide)
    grid = x.reshape(down, across, *lead, high, wide)
    place = 2 + len(lead)
    order = (*range(2, place), 0, place, 1, place + 1)
    return grid.permute(order).reshape(*lead, down * high, across * wide)[..., :rows, :columns]
