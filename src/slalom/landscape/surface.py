"""The loss along a line and over a plane of parameter space, measured on a model that is left as it was to the bit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slalom import pictures
from slalom.errors import UsageError
from slalom.keeping import kept, random_states_kept
from slalom.landscape.frame import Frame, nearest, through_three
from slalom.landscape.points import Normalize, Only, Place, Point, Values, difference, inner, random_direction
from slalom.schedules.base import one_of

Loss: TypeAlias = Callable[[nn.Module], Tensor]
BatchNorm: TypeAlias = Literal["running", "batch"]
Progress: TypeAlias = Callable[[int], None] | None


@dataclass(frozen=True)
class Line:
    """The loss along a line.

    Attributes:
        at: coordinates: 0 is the model as it stands; 1 the other point, or one length of the direction.
        losses: the loss at each; nan or infinity where it is that.
        label: what the coordinate is.
        batch_norm: by what batch norms normalised; None if there are none.
    """

    at: tuple[float, ...]
    losses: tuple[float, ...]
    label: str
    batch_norm: BatchNorm | None

    def picture(self) -> pictures.Picture:
        """Return the curve."""
        return pictures.Picture((pictures.Curve(self.at, self.losses),), self.label, "loss")

    def svg(self, title: str = "loss along a line") -> str:
        """Return the curve as SVG."""
        return pictures.svg(self.picture(), title)

    def draw(self, width: int = 90) -> str:
        """Draw the curve for a terminal."""
        rows = pictures.dots(self.picture(), max(24, min(width - 14, 84)))
        return "\n".join([*(f"  {row}" for row in rows), f"  {self.label}"])

    def as_json(self) -> dict[str, Any]:
        """Return everything as data; what is not finite as None."""
        return {"at": list(self.at), "losses": _finite(self.losses), "label": self.label, "batch_norm": self.batch_norm}

    def __str__(self) -> str:
        return self.draw()


@dataclass(frozen=True)
class Trail:
    """The way that training took, seen in a plane.

    Attributes:
        name: whose way it is.
        x: coordinates in the plane, point by point.
        y: the same, upwards.
        off: how far each point is from the plane, in the plane's own unit. What a picture shows at (x, y) is the loss
            there, not the loss at the point, unless this is 0.
        losses: the loss at each point itself.
        shown: the loss where the picture has it.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    off: tuple[float, ...]
    losses: tuple[float, ...]
    shown: tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """The loss over a plane.

    Attributes:
        x: coordinates, left to right.
        y: coordinates, upwards.
        losses: a row of losses for each y.
        kind: which plane it is, in words.
        batch_norm: by what batch norms normalised; None if there are none.
        trails: ways through it.
        shares: of the trails' variance that the axes hold, where the plane was made for them.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    kind: str
    batch_norm: BatchNorm | None
    trails: tuple[Trail, ...] = ()
    shares: tuple[float, float] | None = None

    def levels(self, count: int = 12) -> list[float]:
        """Return heights for contours, closer where the loss is low; what is far above all trails is cut off."""
        seen = sorted(value for row in self.losses for value in row if math.isfinite(value))
        if not seen:
            return []
        low, high = seen[0], seen[-1]
        tops = [trail.shown[0] for trail in self.trails if math.isfinite(trail.shown[0])]
        if tops:
            high = min(high, low + 2.0 * (max(tops) - low)) if max(tops) > low else high
        return [low + (high - low) * (k / count) ** 2.5 for k in range(1, count + 1)] if high > low else []

    def svg(self, title: str = "loss surface") -> str:
        """Return a contour map as SVG, with the trails."""
        from slalom.landscape.drawing import svg

        return svg(self, title)

    def draw(self, width: int = 90) -> str:
        """Draw a map for a terminal, with the trails as letters."""
        from slalom.landscape.drawing import draw

        return draw(self, width)

    def as_json(self) -> dict[str, Any]:
        """Return everything as data; what is not finite as None."""
        trails = {
            one.name: {
                "x": list(one.x), "y": list(one.y), "off": list(one.off),
                "losses": _finite(one.losses), "shown": _finite(one.shown),
            }
            for one in self.trails
        }  # fmt: skip
        return {
            "kind": self.kind,
            "batch_norm": self.batch_norm,
            "x": list(self.x),
            "y": list(self.y),
            "losses": [_finite(row) for row in self.losses],
            "trails": trails,
            "shares": self.shares,
        }

    def __str__(self) -> str:
        return self.draw()


def line(
    model: nn.Module,
    loss: Loss,
    to: Point | None = None,
    *,
    points: int = 51,
    low: float | None = None,
    high: float = 1.0,
    seed: int = 0,
    normalize: Normalize = "filter",
    only: Only = None,
    batch_norm: BatchNorm | None = None,
    progress: Progress = None,
) -> Line:
    """Measure the loss along a line from the model's parameters: in a random direction, or towards another point.

        print(slalom.landscape.line(model, lambda model: loss_of(model(x), y)))
        print(slalom.landscape.line(model, loss, to=other_model, low=-0.2, high=1.2))

    Everything runs as in validation, without dropout, from the same random state at every point. Batch norms take
    their running statistics ("running"), as in the paper on one model; or normalise by the data of the loss
    ("batch"), which is the default between two points, where the statistics of one are wrong for the other.
    Afterwards parameters, gradients, buffers, modes and random states are as they were, also if the loss raises.

    Args:
        model: where the line begins.
        loss: called with the model; returns the loss on data that are the same every time.
        to: another point, at 1: a model, its parameters by name, or in a list.
        points: how many, at equal distances.
        low: the first coordinate; by default 0 towards another point, and -1 in a random direction.
        high: the last.
        seed: of the random direction.
        normalize: of the random direction, see `random_direction`.
        only: patterns of the parameters that are moved.
        batch_norm: see above.
        progress: called with the number of points measured.

    Raises:
        ValueError: for arguments that make no sense, or a point that does not fit the model.
    """
    low = (-1.0 if to is None else 0.0) if low is None else low
    _check_grid("points", points)
    if not low < high:
        raise UsageError(f"low={low:g}, high={high:g}: low must be below high.")
    one_of("normalize", normalize, ("filter", "layer", "none"))
    survey = _Survey(model, loss, only, _chosen(batch_norm, "running" if to is None else "batch"), progress)
    if to is None:
        direction = random_direction(survey.place, seed, normalize)
        label = f"along a random direction, {_as_long(normalize)}"
    else:
        direction = difference(survey.place.origin, survey.place.read(to))
        label = "from one point (0) to the other (1)"
    at = [low + (high - low) * k / (points - 1) for k in range(points)]
    with survey:
        losses = [survey.at(survey.place.origin, (length, direction)) for length in at]
    return Line(tuple(at), tuple(losses), label, survey.norms)


def plane(
    model: nn.Module,
    loss: Loss,
    *,
    trails: Mapping[str, Sequence[Point]] | None = None,
    through: Sequence[Point] | None = None,
    size: int = 25,
    radius: float = 1.0,
    margin: float = 0.25,
    seed: int = 0,
    normalize: Normalize = "filter",
    only: Only = None,
    batch_norm: BatchNorm | None = None,
    progress: Progress = None,
) -> Plane:
    """Measure the loss on a grid over a plane of parameter space.

        print(slalom.landscape.plane(model, loss))                              # two random directions
        points.append(slalom.landscape.snapshot(model))                         # now and then while training
        surface = slalom.landscape.plane(model, loss, trails={"adamw": points})
        open("surface.svg", "w").write(surface.svg())

    Without trails the plane has the model in its middle and is spanned by two random directions, which are hardly ever
    parallel in so many dimensions. With trails it is the plane nearest to all their points, by principal components;
    ``through`` puts it through three points instead, which are shown where they are. How far off the plane each
    point of a trail lies is told, and the loss there beside the loss that the picture shows at its place: a trail that
    seems to cross a ridge may run far above or beneath it.

    Args:
        model: any module; what holds for `line` holds here.
        loss: as for `line`.
        trails: points that training passed, in order, by name.
        through: three points in the plane; the first is the origin.
        size: points of the grid each way.
        radius: how far to go along random directions.
        margin: how far to go beyond trails and points, as a share of their extent.
        seed: of the random directions.
        normalize: of the random directions, see `random_direction`.
        only: patterns of the parameters that are moved; others stay as the model has them.
        batch_norm: by default "running" around one model, "batch" with trails or points.
        progress: called with the number of points measured.

    Raises:
        ValueError: for arguments that make no sense, points that do not fit the model, or that lie on a line.

    Source: Goodfellow et al. 2014, arXiv:1412.6544; Li et al. 2017, arXiv:1712.09913.
    """
    _check_grid("size", size)
    one_of("normalize", normalize, ("filter", "layer", "none"))
    if not radius > 0 or not margin >= 0:
        raise UsageError(f"radius={radius:g}, margin={margin:g}: radius must be above 0 and margin 0 or more.")
    around = not trails and through is None
    survey = _Survey(model, loss, only, _chosen(batch_norm, "running" if around else "batch"), progress)
    place = survey.place
    ways = {name: [place.read(point) for point in points] for name, points in (trails or {}).items()}
    if around:
        across, up = (random_direction(place, 2 * seed + k, normalize) for k in range(2))
        cosine = inner(across, up) / math.sqrt(inner(across, across) * inner(up, up) or 1.0)
        kind = f"two random directions, {_as_long(normalize)}; the cosine between them is {cosine:.2g}"
        frame = Frame(place.origin, across, up)
        low = [-radius, -radius]
        high = [radius, radius]
    else:
        frame, kind = _frame(ways, None if through is None else [place.read(point) for point in through])
        marks = [frame.place(point) for way in ways.values() for point in way]
        marks += [frame.place(place.read(point)) for point in through or ()]
        low, high = _extent([mark[:2] for mark in marks], margin)
    x, y = ([low[k] + (high[k] - low[k]) * i / (size - 1) for i in range(size)] for k in range(2))
    with survey:
        rows = [tuple(survey.at(frame.origin, (a, frame.across), (b, frame.up)) for a in x) for b in y]
        seen = tuple(_trail(survey, frame, name, way) for name, way in ways.items())
    return Plane(tuple(x), tuple(y), tuple(rows), kind, survey.norms, seen, frame.shares)


def _frame(ways: Mapping[str, Sequence[Values]], three: Sequence[Values] | None) -> tuple[Frame, str]:
    if three is None:
        frame = nearest([point for way in ways.values() for point in way])
        assert frame.shares is not None
        first, second = frame.shares
        return (
            frame,
            f"the plane nearest to the trails, its axes with {first:.0%} and {second:.0%} of their variance",
        )
    if len(three) != 3:
        raise UsageError(f"{len(three)} points were given: a plane goes through three.")
    return through_three(*three), "the plane through three points, in units of distance"


def _extent(marks: Sequence[tuple[float, ...]], margin: float) -> tuple[list[float], list[float]]:
    """Return the corners of a frame around points, with room on all sides."""
    low = [min(mark[k] for mark in marks) for k in range(2)]
    high = [max(mark[k] for mark in marks) for k in range(2)]
    room = [margin * (high[k] - low[k]) for k in range(2)]
    return [low[k] - room[k] for k in range(2)], [high[k] + room[k] for k in range(2)]


def _trail(survey: _Survey, frame: Frame, name: str, way: Sequence[Values]) -> Trail:
    placed = [frame.place(point) for point in way]
    return Trail(
        name,
        tuple(x for x, _, _ in placed),
        tuple(y for _, y, _ in placed),
        tuple(off for _, _, off in placed),
        tuple(survey.at(point) for point in way),
        tuple(survey.at(frame.origin, (x, frame.across), (y, frame.up)) for x, y, _ in placed),
    )


class _Survey:
    """A model that is moved from point to point while the block runs, and is put back afterwards."""

    def __init__(self, model: nn.Module, loss: Loss, only: Only, batch_norm: BatchNorm, progress: Progress) -> None:
        self.model, self.loss, self.batch_norm, self.progress = model, loss, batch_norm, progress
        self.place = Place(model, only)
        normed = any(isinstance(module, _BatchNorm) for module in model.modules())
        self.norms: BatchNorm | None = batch_norm if normed else None
        self.done = 0
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> _Survey:
        self.stack.enter_context(undisturbed(self.model, self.loss, self.batch_norm))
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    @torch.no_grad()
    def at(self, start: Values, *steps: tuple[float, Values]) -> float:
        """Return the loss at ``start`` plus so much of each direction."""
        self.place.go(start, *steps)
        with random_states_kept():  # every point sees the same chance
            value = float(self.loss(self.model))
        self.done += 1
        if self.progress is not None:
            self.progress(self.done)
        return value


@contextlib.contextmanager
def undisturbed(model: nn.Module, loss: Any, batch_norm: BatchNorm) -> Iterator[None]:
    """Evaluate a model as in validation while the block runs, and leave it as it was to the bit."""
    with kept([model, *([loss] if isinstance(loss, nn.Module) else [])]):
        model.eval()
        for module in model.modules():
            if batch_norm == "batch" and isinstance(module, _BatchNorm):
                module.train()
        yield


def _chosen(batch_norm: BatchNorm | None, default: BatchNorm) -> BatchNorm:
    if batch_norm is None:
        return default
    one_of("batch_norm", batch_norm, ("running", "batch"))
    return batch_norm


def _as_long(normalize: Normalize) -> str:
    return {
        "filter": "each filter as long as the model's",
        "layer": "each tensor as long as the model's",
        "none": "Gaussian",
    }[normalize]


def _check_grid(name: str, count: int) -> None:
    if count != int(count) or count < 2:
        raise UsageError(f"{name}={count}: give a whole number of at least 2.")


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


__all__ = ["Line", "Plane", "Trail", "line", "plane", "undisturbed"]
