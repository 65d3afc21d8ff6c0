"""A model's curvature, ready to be multiplied with, while the model is kept as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from slalom.errors import UsageError
from slalom.landscape.hessian import Hessian, Method
from slalom.landscape.points import Only, Place
from slalom.landscape.surface import BatchNorm, Loss, Progress, undisturbed
from slalom.observe import inverse_rates
from slalom.optimizer import Optimizer
from slalom.schedules.base import one_of

Measure: TypeAlias = "Literal['plain', 'relative'] | Optimizer"


@dataclass
class Probe:
    """The matrix that a measure of curvature is about, and random vectors for it.

    Attributes:
        place: the parameters.
        hessian: the matrix.
        words: what it is.
        generator: of the vectors.
        progress: told how many products were formed.
    """

    place: Place
    hessian: Hessian
    words: str
    generator: torch.Generator
    progress: Progress

    def product(self, vector: Tensor) -> Tensor:
        """Return the matrix times a vector."""
        found = self.hessian.times(vector)
        if self.progress is not None:
            self.progress(self.hessian.products)
        return found

    def draw(self) -> Tensor:
        """Return a Gaussian vector."""
        size, dtype = self.hessian.size, self.hessian.dtype
        return torch.randn(size, generator=self.generator, dtype=dtype).to(self.hessian.device)

    def signs(self) -> Tensor:
        """Return a vector of random signs."""
        return self.draw().sign()


@contextlib.contextmanager
def probed(
    model: nn.Module,
    loss: Loss,
    *,
    measure: Measure,
    only: Only,
    batch_norm: BatchNorm,
    method: Method,
    seed: int,
    progress: Progress,
) -> Iterator[Probe]:
    """Evaluate a model as in validation while the block runs; what `sharpness` says of the arguments holds."""
    one_of("method", method, ("auto", "double backward", "finite differences"))
    one_of("batch_norm", batch_norm, ("running", "batch"))
    place = Place(model, only)
    scales, words = _scales(place, measure)
    with undisturbed(model, loss, batch_norm):
        hessian = Hessian(model, loss, place.parameters, method, scales)
        yield Probe(place, hessian, words, torch.Generator().manual_seed(seed), progress)


def whole(least: int, **counts: int) -> None:
    """Refuse counts that are too small or no whole numbers."""
    for name, value in counts.items():
        if value != int(value) or value < least:
            raise UsageError(f"{name}={value}: give a whole number of at least {least}.")


def _scales(place: Place, measure: Measure) -> tuple[list[Tensor] | None, str]:
    """Return S of S H S, and what that is called."""
    if measure == "plain":
        return None, "the Hessian"
    if measure == "relative":
        return [weight.abs() for weight in place.origin], "|w| H |w|"
    if not isinstance(measure, Optimizer):
        raise UsageError(f'measure={measure!r}: give "plain", "relative", or an optimizer of slalom\'s.')
    words = type(measure).__name__
    refusal = f'{words} does more than divide each coordinate by a metric, so it measures no sharpness; use "plain".'
    recipes = [measure.recipe(group) for group in measure.param_groups]
    if any(recipe.parts("geometry") or recipe.parts("guard") for recipe in recipes):
        raise UsageError(refusal)
    try:
        known = inverse_rates(measure)
    except UsageError:
        raise
    except ValueError:
        raise UsageError(refusal) from None
    if any(parameter not in known for parameter in place.parameters):
        raise UsageError("the optimizer has not all of these parameters: name those that it has with `only`.")
    rates = [known[parameter] for parameter in place.parameters]
    return [torch.where(one > 0, one.rsqrt(), 0.0) for one in rates], f"the Hessian as {words} sees it"


__all__ = ["Measure", "Probe", "probed", "whole"]
