"""Regions above a height, as closed loops: marching squares on a grid with a rim beneath every height."""

from __future__ import annotations

import math
from collections.abc import Sequence

Spot = tuple[float, float]
# Which sides of a cell a contour connects, by which corners are above: bit 1 lower left, 2 lower right, 4 upper right,
# 8 upper left. Sides: 0 bottom, 1 right, 2 top, 3 left.
_SIDES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 0),), 2: ((0, 1),), 3: ((3, 1),), 4: ((1, 2),), 6: ((0, 2),), 7: ((3, 2),), 8: ((2, 3),),
    9: ((2, 0),), 11: ((2, 1),), 12: ((1, 3),), 13: ((1, 0),), 14: ((0, 3),),
}  # fmt: skip


def regions(values: Sequence[Sequence[float]], height: float) -> list[list[Spot]]:
    """Return the borders of all that is above a height, as closed loops in units of the grid; even-odd fills them.

    What is not finite counts as above everything.

    Args:
        values: rows of numbers, upwards.
        height: of the contour.
    """
    rows, columns = len(values), len(values[0])

    def above(j: int, i: int) -> bool:
        if not (0 <= j < rows and 0 <= i < columns):
            return False
        return not values[j][i] <= height

    def spot(j: int, i: int, k: int, h: int) -> Spot:
        """Return where a contour crosses between two neighbours, one of which may be on the rim."""
        inside = [0 <= a < rows and 0 <= b < columns for a, b in ((j, i), (k, h))]
        if not all(inside):
            y, x = (j, i) if inside[0] else (k, h)
            return float(min(max(x, 0), columns - 1)), float(min(max(y, 0), rows - 1))
        first, second = values[j][i], values[k][h]
        part = 0.5 if not (math.isfinite(first) and math.isfinite(second)) else (height - first) / (second - first)
        return i + part * (h - i), j + part * (k - j)

    links: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    spots: dict[tuple[int, int, int], Spot] = {}
    for j in range(-1, rows):
        for i in range(-1, columns):
            corners = (above(j, i), above(j, i + 1), above(j + 1, i + 1), above(j + 1, i))
            case = sum(1 << place for place, one in enumerate(corners) if one)
            ends = _SIDES.get(case, ())
            if case in (5, 10):
                # A saddle: the middle decides whether the high corners are one region.
                four = [values[b][a] for b in (j, j + 1) for a in (i, i + 1) if 0 <= b < rows and 0 <= a < columns]
                joined = len(four) == 4 and not sum(four) / 4 <= height
                ends = ((3, 2), (1, 0)) if (case == 5) == joined else ((3, 0), (1, 2))
            for a, b in ends:
                keys = []
                for side in (a, b):
                    key, pair = {
                        0: ((0, j, i), (j, i, j, i + 1)),
                        1: ((1, j, i + 1), (j, i + 1, j + 1, i + 1)),
                        2: ((0, j + 1, i), (j + 1, i, j + 1, i + 1)),
                        3: ((1, j, i), (j, i, j + 1, i)),
                    }[side]
                    spots.setdefault(key, spot(*pair))
                    keys.append(key)
                links.setdefault(keys[0], []).append(keys[1])
                links.setdefault(keys[1], []).append(keys[0])
    return _loops(links, spots)


def _loops(
    links: dict[tuple[int, int, int], list[tuple[int, int, int]]], spots: dict[tuple[int, int, int], Spot]
) -> list[list[Spot]]:
    """Walk along the links until all are used."""
    found = []
    left = {key: list(ends) for key, ends in links.items()}
    for start in links:
        if not left[start]:
            continue
        loop, here = [spots[start]], start
        while left[here]:
            there = left[here].pop()
            left[there].remove(here)
            loop.append(spots[there])
            here = there
        found.append(loop)
    return found
