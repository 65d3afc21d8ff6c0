"""Tensors cut into chunks for the programs of a pass, and the tables that say where each begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import Tensor

from slalom.engine.plan import Plan
from slalom.engine.triton.emit import RANGES, by_extent
from slalom.engine.triton.places import Places

# Elements of a chunk; sums of rows, or columns, that a program combines.
BLOCK: Final = 2048
ABREAST: Final = 64
# Tiles of a row, of narrow matrices, of others: few shapes, since Triton compiles each pass for each of them.
_TILES: Final = ((1, 4096), (256, 16), (64, 64))


@dataclass(frozen=True)
class Shape:
    """How one kind of chunk is cut, and the chunks of that kind: a slice of the table."""

    sizes: tuple[int, ...]
    aligned: bool
    first: int
    count: int


def table(
    at: Places,
    parameters: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    shapes: Sequence[tuple[int, int]],
    counts: Sequence[int],
) -> tuple[np.ndarray[Any, Any], int]:
    """Return the rows of addresses and sizes, and how much room vectors need."""
    arrays, vectors = at.base.arrays, at.base.vectors.values()
    made = np.zeros((len(parameters), at.base.width), dtype=np.int64)
    room = 0
    for row, (parameter, state, (rows, columns)) in enumerate(zip(parameters, states, shapes, strict=True)):
        addresses = [
            parameter.data_ptr() if name == "w" else 0 if name == "g" else state[name].data_ptr() for name in arrays
        ]
        offsets = []
        for _, node in vectors:
            offsets.append(room)
            room += rows if node.dims[0] != "1" else columns
        made[row] = [*addresses, rows, columns, rows * columns, *offsets, counts[row]]
    return made, room


def cut(
    plan: Plan, shapes: Sequence[tuple[int, int]], *, aligned: bool
) -> tuple[np.ndarray[Any, Any], list[Shape], np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]], int]:
    """Cut tensors into chunks, those of one shape behind each other.

    Returns:
        The chunks (tensor, first element, how many, whether all of a block; for tiles tensor, first row, first column,
        whether all of the tile exists), their kinds, the ranges of `emit_triton`, where programs that combine rows
        and columns begin, and how many partial sums of rows and columns there are.
    """
    many = {extent: max(len(by_extent(stage)[extent]) for stage in plan.stages) for extent in ("row", "column")}
    kinds: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    for tensor, (rows, columns) in enumerate(shapes):
        sizes: tuple[int, ...] = (BLOCK,)
        wide = aligned
        if plan.two_dimensional:
            sizes = _TILES[0] if rows == 1 else _TILES[1] if columns <= _TILES[1][1] else _TILES[2]
            wide = aligned and columns % 16 == 0
        kinds.setdefault((sizes, wide), []).append(tensor)
    chunks: list[np.ndarray[Any, Any]] = []
    found: list[Shape] = []
    ranges = np.zeros((len(shapes), RANGES), dtype=np.int64)
    lists: dict[str, list[tuple[int, int]]] = {"row": [], "column": []}
    total = room = 0
    for (sizes, wide), tensors in kinds.items():
        first = total
        for tensor in tensors:
            rows, columns = shapes[tensor]
            mine = (_tiles if plan.two_dimensional else _runs)(tensor, rows, columns, sizes)
            down, across = (-(-rows // sizes[0]), -(-columns // sizes[-1])) if plan.two_dimensional else (0, 0)
            of_rows = many["row"] * rows * across
            ranges[tensor] = (total, len(mine), down, across, room, room + of_rows)
            room += of_rows + many["column"] * columns * down
            total += len(mine)
            chunks.append(mine)
            for extent, length in (("row", rows), ("column", columns)):
                lists[extent] += [(tensor, begin) for begin in range(0, length, ABREAST) if many[extent]]
        found.append(Shape(sizes, wide, first, total - first))
    arrays = {extent: np.array(places, dtype=np.int64) for extent, places in lists.items() if places}
    return np.concatenate(chunks), found, ranges, arrays, room


def _runs(tensor: int, rows: int, columns: int, sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    first = np.arange(0, rows * columns, sizes[0], dtype=np.int64)
    count = np.minimum(rows * columns - first, sizes[0])
    return np.stack([np.full_like(first, tensor), first, count, count == sizes[0]], axis=1)


def _tiles(tensor: int, rows: int, columns: int, sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    high, wide = sizes
    grid = np.meshgrid(np.arange(0, rows, high), np.arange(0, columns, wide), indexing="ij")
    i, j = (axis.reshape(-1).astype(np.int64) for axis in grid)
    return np.stack([np.full_like(i, tensor), i, j, (i + high <= rows) & (j + wide <= columns)], axis=1)
