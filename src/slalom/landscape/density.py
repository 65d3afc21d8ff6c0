"""How the Hessian's eigenvalues are spread: the bulk near zero, the few that stick out, those below zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from slalom import pictures
from slalom.landscape.hessian import Method
from slalom.landscape.lanczos import quadrature
from slalom.landscape.points import Only
from slalom.landscape.probing import Measure, probed, whole
from slalom.landscape.surface import BatchNorm, Loss, Progress

_POINTS: Final = 401  # of a curve
_BLUR: Final = 1 / 100  # of the spectrum's extent: what a picture cannot tell apart
_NEAR: Final = 0.01  # of the largest: what counts as near zero


@dataclass(frozen=True)
class Density:
    """The spectrum of a Hessian as random vectors see it.

    Attributes:
        nodes: for each vector, where it sees eigenvalues.
        weights: which share of all eigenvalues it sees at each.
        measure: of what the eigenvalues are, in words.
        method: how products with the Hessian were formed.
        products: how many.
        parameters: how many eigenvalues there are.
    """

    nodes: tuple[tuple[float, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    measure: str
    method: Method
    products: int
    parameters: int

    @property
    def smallest(self) -> float:
        """The smallest eigenvalue, or a little above it."""
        return min(map(min, self.nodes))

    @property
    def largest(self) -> float:
        """The largest eigenvalue, or a little below it."""
        return max(map(max, self.nodes))

    @property
    def size(self) -> float:
        """The largest size of an eigenvalue."""
        return max(abs(self.smallest), abs(self.largest))

    @property
    def trace(self) -> float:
        """The sum of all eigenvalues, estimated."""
        return self.parameters * self._first_power()[0]

    @property
    def trace_error(self) -> float:
        """Its standard error; nan with one vector."""
        return self.parameters * self._first_power()[1]

    def share(self, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
        """Return which share of the eigenvalues lies from ``low`` to ``high``, with its standard error.

        The error is nan with one vector. It is that of chance: where ``low`` or ``high`` lies within the bulk, nodes on
        one side of it stand for eigenvalues on the other too.
        """
        return self._mean([sum(w for x, w in self._pairs(k) if low <= x <= high) for k in range(self._count)])

    def at(self, value: float, blur: float | None = None) -> float:
        """Return the density at a value: eigenvalues per unit, as a share of all, blurred by a Gaussian.

        Args:
            value: where.
            blur: the Gaussian's standard deviation; by default a hundredth of the spectrum's extent.
        """
        blur = self._blur() if blur is None else blur
        sums = [
            sum(w * math.exp(-(((value - x) / blur) ** 2) / 2) for x, w in self._pairs(k)) for k in range(self._count)
        ]
        return self._mean(sums)[0] / (blur * math.sqrt(2 * math.pi))

    def picture(self) -> pictures.Picture:
        """Return the density as a curve, cut off at half of what one eigenvalue shows."""
        return together({"": self})

    def svg(self, title: str = "eigenvalues of the Hessian") -> str:
        """Return the curve as SVG."""
        return pictures.svg(self.picture(), title)

    def draw(self, width: int = 90) -> str:
        """Draw the curve for a terminal, and say in numbers what it shows."""
        rows = pictures.dots(self.picture(), max(24, min(width - 14, 84)))
        return "\n".join(
            [*(f"  {row}" for row in rows), "  share of the eigenvalues, against eigenvalue", "", *self.facts()]
        )

    def facts(self) -> list[str]:
        """Say in numbers how the eigenvalues are spread."""
        near = _NEAR * self.size
        parts = {
            f"below {-near:.2g}": self.share(high=-near),
            f"within ± {near:.2g}": self.share(-near, near),
            f"above {near:.2g}": self.share(low=near),
            f"above {10 * near:.2g}": self.share(low=10 * near),
        }
        space = max(map(len, parts))
        ends = f"from {self.smallest:.3g} to {self.largest:.3g}; trace {self.trace:.3g} ± {self.trace_error:.2g}"
        rows = [f"  {ends}; limits: 1 % and 10 % of the largest"]
        for words, (share, error) in parts.items():
            count = f"about {share * self.parameters:,.0f} of {self.parameters:,}"
            rows.append(f"  {words:<{space}}  {_percent(share):>7} ± {_percent(error)}, {count}")
        return rows

    def as_json(self) -> dict[str, Any]:
        """Return everything as data."""
        return {
            "nodes": [list(one) for one in self.nodes],
            "weights": [list(one) for one in self.weights],
            "smallest": self.smallest,
            "largest": self.largest,
            "trace": self.trace,
            "trace_error": self.trace_error if len(self.nodes) > 1 else None,
            "measure": self.measure,
            "method": self.method,
            "products": self.products,
            "parameters": self.parameters,
        }

    def __str__(self) -> str:
        return f"spectrum of {self.measure}, {self.parameters:,} eigenvalues\n{self.draw()}"

    @property
    def _count(self) -> int:
        return len(self.nodes)

    def _first_power(self) -> tuple[float, float]:
        return self._mean([sum(x * w for x, w in self._pairs(k)) for k in range(self._count)])

    def _pairs(self, vector: int) -> list[tuple[float, float]]:
        return list(zip(self.nodes[vector], self.weights[vector], strict=True))

    def _mean(self, values: list[float]) -> tuple[float, float]:
        several = torch.tensor(values, dtype=torch.float64)
        error = float(several.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return float(several.mean()), error

    def _blur(self) -> float:
        return _BLUR * (self.largest - self.smallest) or 1e-3 * (self.size or 1.0)


def together(spectra: Mapping[str, Density]) -> pictures.Picture:
    """Return several densities in one picture, all blurred alike.

    Args:
        spectra: by name.
    """
    low, high = min(one.smallest for one in spectra.values()), max(one.largest for one in spectra.values())
    blur = _BLUR * (high - low) or 1e-3 * (max(abs(low), abs(high)) or 1.0)
    low, high = low - 3 * blur, high + 3 * blur
    at = [low + (high - low) * k / (_POINTS - 1) for k in range(_POINTS)]
    # what half an eigenvalue would show, in the largest of the models
    floor = 0.5 / max(one.parameters for one in spectra.values()) / (blur * math.sqrt(2 * math.pi))
    curves = tuple(
        pictures.Curve(at, [max(one.at(value, blur), floor) for value in at], name) for name, one in spectra.items()
    )
    return pictures.Picture(curves, "eigenvalue", "density", log_y=True, low=floor)


def density(
    model: nn.Module,
    loss: Loss,
    *,
    measure: Measure = "plain",
    vectors: int = 8,
    only: Only = None,
    batch_norm: BatchNorm = "running",
    method: Method = "auto",
    iterations: int = 60,
    seed: int = 0,
    progress: Progress = None,
) -> Density:
    """Measure how the eigenvalues of the Hessian are spread, by stochastic Lanczos quadrature.

        spectrum = slalom.landscape.density(model, lambda model: loss_of(model(x), y))
        print(spectrum)                                # the curve, and how many eigenvalues lie where
        spectrum.share(high=-1e-3)                     # below -0.001: a share of all, and its standard error

    Each random vector sees the whole spectrum through as many nodes as there are iterations; their mean is without
    bias. Eigenvalues that stick out are found as such; the bulk is known as its blurred shape. Of a trained
    classifier one sees a bulk at zero and about as many large eigenvalues as classes (Sagun et al. 2016,
    arXiv:1611.07476; Ghorbani et al. 2019, arXiv:1901.10159).

    Everything runs as in validation and is left as it was, as with `line`.

    Args:
        model: where to measure.
        loss: called with the model; returns the loss on data that are the same every time.
        measure: as for `sharpness`.
        vectors: random vectors; the error falls with their square root.
        only: patterns of the parameters in which to differentiate: one layer, one group.
        batch_norm: as for `line`.
        method: as for `sharpness`.
        iterations: products per vector, at most; memory is one vector of all parameters for each.
        seed: of the random vectors.
        progress: called with the number of products formed.

    Raises:
        ValueError: as `sharpness`.
    """
    whole(1, vectors=vectors, iterations=iterations)
    how: dict[str, Any] = {"measure": measure, "only": only, "batch_norm": batch_norm, "method": method, "seed": seed}
    with probed(model, loss, **how, progress=progress) as probe:
        seen = [quadrature(probe.product, probe.signs(), iterations) for _ in range(vectors)]
    return Density(
        nodes=tuple(_plain(nodes) for nodes, _ in seen),
        weights=tuple(_plain(weights) for _, weights in seen),
        measure=probe.words,
        method=probe.hessian.method,
        products=probe.hessian.products,
        parameters=probe.hessian.size,
    )


def _plain(values: Tensor) -> tuple[float, ...]:
    return tuple(map(float, values))


def _percent(share: float) -> str:
    return "?" if math.isnan(share) else f"{100 * share:.3g} %"


__all__ = ["Density", "density", "together"]
