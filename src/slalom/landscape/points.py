"""Points in the space of a model's parameters, directions between them, and getting there and back."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from slalom.errors import UsageError, unknown

Point: TypeAlias = "nn.Module | Mapping[str, Tensor] | Sequence[Tensor]"
Only: TypeAlias = "str | Sequence[str] | None"
Values: TypeAlias = list[Tensor]
Normalize: TypeAlias = Literal["filter", "layer", "none"]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's parameters, by name: a point of a trail, to be collected while training."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class Place:
    """Parameters of a model that are moved, and where they stood in the beginning.

    Args:
        model: the network.
        only: patterns of names ("*.weight"), of which a parameter must match one; all by default. What does not
            require gradients stays where it is.

    Raises:
        UsageError: if a pattern matches nothing.
    """

    def __init__(self, model: nn.Module, only: Only = None) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad and p.is_floating_point()}
        patterns = (only,) if isinstance(only, str) else only
        for pattern in patterns or ():
            if not fnmatch.filter(trained, pattern):
                raise unknown("parameter", pattern, trained)
        chosen = {
            name: p
            for name, p in trained.items()
            if patterns is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }
        if not chosen:
            raise UsageError("the model has no parameter that requires gradients, so there is nowhere to go.")
        self.names = list(chosen)
        self.parameters = list(chosen.values())
        self.origin: Values = [parameter.detach().clone() for parameter in self.parameters]

    def read(self, point: Point) -> Values:
        """Return where a point has these parameters.

        Raises:
            UsageError: if it lacks one, or has one of another shape.
        """
        if isinstance(point, nn.Module):
            point = dict(point.named_parameters())
        if isinstance(point, Mapping):
            missing = [name for name in self.names if name not in point]
            if missing:
                raise unknown("parameter", missing[0], point, owner="the other point")
            values = [point[name] for name in self.names]
        else:
            values = list(point)
        for name, value, own in zip(self.names, values, self.parameters, strict=False):
            if value.shape != own.shape:
                raise UsageError(f'"{name}" is {tuple(own.shape)} here and {tuple(value.shape)} at the other point.')
        if len(values) != len(self.names):
            raise UsageError(f"the other point has {len(values)} tensors, and {len(self.names)} parameters are moved.")
        return [
            origin if _same(value, own) else value.detach().to(own)  # what the model holds now is about to move
            for value, own, origin in zip(values, self.parameters, self.origin, strict=True)
        ]

    @torch.no_grad()
    def go(self, start: Values, *steps: tuple[float, Values]) -> None:
        """Set the parameters to ``start`` plus so much of each direction; always from there, so no rounding adds up."""
        for place, parameter in enumerate(self.parameters):
            parameter.copy_(start[place])
            for length, direction in steps:
                parameter.add_(direction[place], alpha=length)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors lie in the same memory."""
    return a is b or (a.device == b.device and a.data_ptr() == b.data_ptr())


def random_direction(place: Place, seed: int, normalize: Normalize = "filter") -> Values:
    """Return a Gaussian direction, as long as the weights are.

    "filter" gives every filter, which is a row of a matrix or a kernel of a convolution, the length of the one that is
    there, and vectors (biases, gains of norms) none: then the picture does not change when a network is rescaled
    without changing what it computes. "layer" does so for whole tensors. "none" leaves the Gaussian alone.

    Source: Li et al. 2017, Visualizing the Loss Landscape of Neural Nets, arXiv:1712.09913.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for weight in place.origin:
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        drawn = torch.randn(weight.shape, generator=generator, dtype=dtype).to(weight.device)
        if normalize != "none":
            drawn = torch.zeros_like(drawn) if weight.ndim < 2 else _as_long_as(drawn, weight.to(dtype), normalize)
        found.append(drawn.to(weight.dtype))
    return found


def _as_long_as(drawn: Tensor, weight: Tensor, normalize: Normalize) -> Tensor:
    over = tuple(range(1, weight.ndim)) if normalize == "filter" else None
    lengths = torch.linalg.vector_norm(drawn, dim=over, keepdim=True)
    wanted: Tensor = torch.linalg.vector_norm(weight, dim=over, keepdim=True)
    found: Tensor = drawn * (wanted / lengths.clamp_min(1e-30))
    return found


def difference(a: Values, b: Values) -> Values:
    """Return b - a."""
    return [end - start for start, end in zip(a, b, strict=True)]


def inner(a: Values, b: Values) -> float:
    """Return the inner product, added up in double precision."""
    return sum(float(torch.dot(x.double().flatten(), y.double().flatten())) for x, y in zip(a, b, strict=True))


def combined(values: Sequence[Values], weights: Sequence[float]) -> Values:
    """Return a sum of points with weights."""
    return [
        sum((w * value.double() for value, w in zip(column, weights, strict=True)), torch.zeros(())).to(column[0])
        for column in zip(*values, strict=True)
    ]
