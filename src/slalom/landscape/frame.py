"""Planes in the space of parameters: through three points, or nearest to all points of some trails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from slalom.errors import UsageError
from slalom.landscape.points import Values, combined, difference, inner


@dataclass(frozen=True)
class Frame:
    """A plane: a point of it and two orthogonal directions of length 1.

    Attributes:
        origin: where both coordinates are 0.
        across: the first direction.
        up: the second.
        shares: of the trails' variance that each direction holds, if the plane was made for trails.
    """

    origin: Values
    across: Values
    up: Values
    shares: tuple[float, float] | None = None

    def place(self, point: Values) -> tuple[float, float, float]:
        """Return a point's coordinates in the plane, and how far off the plane it is."""
        arrow = difference(self.origin, point)
        x, y = inner(arrow, self.across), inner(arrow, self.up)
        rest = combined([arrow, self.across, self.up], [1.0, -x, -y])
        return x, y, math.sqrt(inner(rest, rest))


def through_three(a: Values, b: Values, c: Values) -> Frame:
    """Return the plane through three points, the first its origin, the second on its first axis.

    Raises:
        UsageError: if they lie on a line.
    """
    across = _unit(difference(a, b), 0.0)
    arrow = difference(a, c)
    up = _unit(combined([arrow, across], [1.0, -inner(arrow, across)]), math.sqrt(inner(arrow, arrow)))
    return Frame(a, across, up)


def nearest(points: Sequence[Values]) -> Frame:
    """Return the plane with the least sum of squared distances to points: their first two principal components.

    Raises:
        UsageError: if they lie on a line.
    """
    count = len(points)
    if count < 3:
        raise UsageError(f"{count} points span no plane: record at least three.")
    centre = combined(points, [1 / count] * count)
    arrows = [difference(centre, point) for point in points]
    products = torch.tensor([[inner(a, b) for b in arrows] for a in arrows], dtype=torch.float64)
    sizes, vectors = torch.linalg.eigh(products)
    total = float(sizes.clamp_min(0).sum())
    if not float(sizes[-2]) > 1e-12 * total:
        raise UsageError("the points lie on a line and span no plane: use `line`, or record more of the way.")
    axes = [combined(arrows, (vectors[:, -k] / sizes[-k].sqrt()).tolist()) for k in (1, 2)]
    return Frame(centre, axes[0], axes[1], (float(sizes[-1]) / total, float(sizes[-2]) / total))


def _unit(arrow: Values, whole: float) -> Values:
    length = math.sqrt(inner(arrow, arrow))
    if not length > 1e-7 * whole:
        raise UsageError("the three points lie on a line and span no plane: use `line` for two points.")
    return combined([arrow], [1 / length])
