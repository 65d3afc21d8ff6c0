"""Sharpness-aware steps: the gradient is taken where the loss is worst nearby. For any optimizer, with any scaler.

optimizer.step(closure, sharpness=SAM(0.05))
optimizer.step(lambda: loss_of(batch), sharpness=SAM(0.05), scaler=scaler)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from slalom.batchnorm import statistics_kept

_HALVES: Final = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class SAM:
    """Sharpness-aware minimization: step with the gradient at the worst point of a ball around the parameters.

        e = rho g / |g|                  g = grad L(w), its length over all parameters
        w <- step from w with grad L(w + e)

    Every step evaluates the closure twice. While the second evaluation runs, a copy of the parameters is kept, from
    which they are restored to the bit. Gradients scaled for mixed precision have the same direction, so nothing needs
    to be unscaled between the two. Parameters that ascend (``maximize=True``) are moved the other way.

    Batch norm's running statistics are those of the first evaluation; in the second layers still normalise by the
    batch.

    Source: Foret et al. 2020, arXiv:2010.01412.

    Args:
        rho: radius of the ball.

    Raises:
        ValueError: if ``rho`` is negative.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.rho < math.inf:
            raise ValueError(f"rho={self.rho}: the radius must be 0 or more.")

    def stretch(self, parameter: Tensor) -> Tensor | None:
        """Return the radii of the ball along a parameter's coordinates, in units of rho; None if all are 1."""
        return None

    @contextlib.contextmanager
    @torch.no_grad()
    def perturbed(self, groups: Sequence[Mapping[str, Any]]) -> Iterator[bool]:
        """Move parameters to the worst point nearby while the block runs, and back to the bit.

        Args:
            groups: parameter groups; the gradients tell where the worst point is.

        Yields:
            Whether they were moved: not if a gradient is not finite, since there is no direction then.
        """
        moving = [
            (parameter, bool(group.get("maximize")))
            for group in groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        directions = [self._stretched(parameter, parameter.grad) for parameter, _ in moving]
        length = _length(directions)
        if not math.isfinite(length):
            yield False
            return
        kept = [parameter.detach().clone() for parameter, _ in moving]
        for (parameter, ascends), direction in zip(moving, directions, strict=True):
            offset = self._stretched(parameter, direction) * ((-self.rho if ascends else self.rho) / (length + 1e-12))
            parameter.add_(offset)
        try:
            with statistics_kept():
                yield True
        finally:
            for (parameter, _), value in zip(moving, kept, strict=True):
                parameter.copy_(value)

    def _stretched(self, parameter: Tensor, values: Tensor) -> Tensor:
        stretch = self.stretch(parameter)
        return values if stretch is None else values * stretch


def _length(directions: Sequence[Tensor]) -> float:
    """Return the norm over all tensors, with one number read from the device."""
    lengths = [torch.linalg.vector_norm(d.float() if d.dtype in _HALVES else d).double() for d in directions]
    return torch.stack([length.to(lengths[0].device) for length in lengths]).norm().item() if lengths else 0.0


@dataclass(frozen=True)
class ASAM(SAM):
    """Adaptive SAM: the ball is stretched along large weights, so it does not see layers scaled against each other.

        e = rho T^2 g / |T g|            T = |w| + eta for matrices and kernels, 1 for vectors

    Source: Kwon et al. 2021, arXiv:2102.11600. The authors' code takes |w| + eta for parameters whose name contains
    "weight", gains of norms among them; here, where names may be missing, the number of dimensions decides.

    Args:
        rho: radius, in units of the weights' size; about ten times SAM's.
        eta: keeps small weights from standing still.

    Raises:
        ValueError: if ``rho`` or ``eta`` is negative.
    """

    rho: float = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta={self.eta}: it must be 0 or more.")

    def stretch(self, parameter: Tensor) -> Tensor | None:
        """Return the weights' magnitudes; None for vectors."""
        return parameter.detach().abs() + self.eta if parameter.ndim > 1 else None
