"""How sharp a minimum is: the ends of the Hessian's spectrum, its trace, and how far the loss rises nearby."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slalom.errors import UsageError
from slalom.landscape.hessian import Method
from slalom.landscape.lanczos import hutchinson, lanczos
from slalom.landscape.points import Only, Values
from slalom.landscape.probing import Measure, Probe, probed, whole
from slalom.landscape.surface import BatchNorm, Loss, Progress


@dataclass(frozen=True)
class Sharpness:
    """How the loss curves around a point.

    Attributes:
        eigenvalues: the largest of the Hessian, the largest first.
        residuals: how far each may be from an eigenvalue.
        smallest: the smallest eigenvalue: below 0 the point is no minimum.
        trace: the sum of all, estimated; nan if no samples were asked for.
        trace_error: its standard error.
        rise: how much the loss rises within a ball of radius ``rho``, along the gradient and the sharpest direction,
            whichever is worse: at most the largest rise there is, SAM's sharpness. None unless ``rho`` was given.
        rho: the radius, or None.
        measure: of what the eigenvalues are, in words.
        method: how products with the Hessian were formed.
        products: how many.
        parameters: how many the Hessian has rows.
        converged: whether the residuals came below the tolerance.
    """

    eigenvalues: tuple[float, ...]
    residuals: tuple[float, ...]
    smallest: float
    trace: float
    trace_error: float
    rise: float | None
    rho: float | None
    measure: str
    method: Method
    products: int
    parameters: int
    converged: bool

    @property
    def largest(self) -> float:
        """The largest eigenvalue, which is what "sharpness" means without further words."""
        return self.eigenvalues[0]

    def as_json(self) -> dict[str, Any]:
        """Return everything as data; what is not a number as None."""
        facts = asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}

    def __str__(self) -> str:
        rows = [f"sharpness of {self.measure}, {self.parameters:,} parameters"]
        largest = ", ".join(f"{value:.4g}" for value in self.eigenvalues)
        rows.append(f"  largest     {largest}" + ("" if self.converged else f"  (to within {max(self.residuals):.1g})"))
        rows.append(f"  smallest    {self.smallest:.4g}")
        if math.isfinite(self.trace):
            rows.append(f"  trace       {self.trace:.4g} ± {self.trace_error:.2g}")
        if self.rise is not None:
            rows.append(f"  rise        {self.rise:.4g} at a distance of {self.rho:g}")
        rows.append(f"  by          {self.products} products, {self.method}")
        return "\n".join(rows)


def sharpness(
    model: nn.Module,
    loss: Loss,
    *,
    measure: Measure = "plain",
    top: int = 1,
    samples: int = 16,
    rho: float | None = None,
    only: Only = None,
    batch_norm: BatchNorm = "running",
    method: Method = "auto",
    iterations: int = 80,
    tolerance: float = 1e-4,
    seed: int = 0,
    progress: Progress = None,
) -> Sharpness:
    """Measure how sharp the loss is where the model stands.

        print(slalom.landscape.sharpness(model, lambda model: loss_of(model(x), y)))

    Gradient descent with rate lr cannot rest where the largest eigenvalue exceeds 2 / lr, and tends to end just there.
    Three measures:

    - "plain": the Hessian H. Rescaling a network without changing what it computes makes this as large as one likes
      (Dinh et al. 2017, arXiv:1703.04933), so compare it within one run only.
    - "relative": W H W with W = diag |w|: curvature per relative change of the weights, which such rescaling leaves
      as it is (the metric of ASAM, Kwon et al. 2021, arXiv:2102.11600).
    - an optimizer of slalom's, of these parameters, that has taken steps: E H E with E = diag sqrt(eta), eta being
      what it multiplies directions by, rate over metric; not where a geometry or a guard changes directions as well.
      Full-batch training tends to hover at the edge of stability of its own measure: near 2 without momentum, near
      2 (1 + beta) / (1 - beta), which is 38, for Adam with beta = 0.9 (Cohen et al. 2021, 2022, arXiv:2103.00065 and
      2207.14484).

    Everything runs as in validation and is left as it was, as with `line`.

    Args:
        model: where to measure.
        loss: called with the model; returns the loss on data that are the same every time.
        measure: see above.
        top: how many of the largest eigenvalues.
        samples: random vectors for the trace; 0 leaves it out.
        rho: radius within which to look for the largest rise; only with the plain measure.
        only: patterns of the parameters in which to differentiate: one layer, one group.
        batch_norm: as for `line`.
        method: how to multiply with the Hessian: "double backward", "finite differences", or "auto": the former
            unless an operation has no second derivative.
        iterations: the most that Lanczos' method may take; it keeps a vector for each.
        tolerance: it ends earlier when eigenvalues are known this well, relative to the largest.
        seed: of the random vectors.
        progress: called with the number of products formed.

    Raises:
        ValueError: for arguments that make no sense, a loss without gradient, or an optimizer that does more than
            divide by a metric.
    """
    whole(1, top=top, iterations=iterations)
    whole(0, samples=samples)
    if rho is not None and not (rho > 0 and measure == "plain"):
        raise UsageError(f"rho={rho:g}: give a radius above 0, with the plain measure.")
    how: dict[str, Any] = {"measure": measure, "only": only, "batch_norm": batch_norm, "method": method, "seed": seed}
    with probed(model, loss, **how, progress=progress) as probe:
        ends = lanczos(probe.product, probe.draw(), probe.draw, top=top, most=iterations, tolerance=tolerance)
        trace, error = hutchinson(probe.product, probe.signs, samples) if samples else (math.nan, math.nan)
        rise = None if rho is None else _rise(probe, ends.vector, rho)
    hessian = probe.hessian
    size = max(abs(ends.top[0]), abs(ends.bottom))
    return Sharpness(
        eigenvalues=ends.top,
        residuals=ends.residuals,
        smallest=ends.bottom,
        trace=trace,
        trace_error=error,
        rise=rise,
        rho=rho,
        measure=probe.words,
        method=hessian.method,
        products=hessian.products,
        parameters=hessian.size,
        converged=max(*ends.residuals, ends.bottom_residual) <= tolerance * size,
    )


@torch.no_grad()
def _rise(probe: Probe, sharpest: Tensor, rho: float) -> float:
    """Return the largest rise of the loss at a distance, along the gradient and both ways along a direction."""
    place, hessian = probe.place, probe.hessian

    def at(*steps: tuple[float, Values]) -> float:
        place.go(place.origin, *steps)
        return float(hessian.loss(hessian.model))

    gradient = hessian.gradient()
    length = float(torch.linalg.vector_norm(gradient))
    ways = [sharpest, -sharpest, *([gradient / length] if length > 0 else [])]
    here = at()
    worst = max(at((rho, [d.to(w) for d, w in zip(hessian.pieces(way), place.origin, strict=True)])) for way in ways)
    place.go(place.origin)
    return worst - here


__all__ = ["Sharpness", "sharpness"]
