"""How gradients, or any numbers, are spread: moments, quantiles, tails, and a histogram of fixed bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from slalom.engine.shards import local
from slalom.observe.tails import hill, thinned

LEVELS: Final = (0.001, 0.01, 0.5, 0.99, 0.999)
# Bins are powers of two from the smallest number of bfloat16 to far beyond what a gradient is.
LOWEST, HIGHEST = -133, 40
_BAR: Final = 20


@dataclass(frozen=True)
class Distribution:
    """What is known of a set of numbers.

    Attributes:
        count: how many there are, nan and infinity not among them.
        bad: how many are nan or infinite.
        zeros: how many are exactly 0.
        mean, deviation: of those that are finite.
        smallest, largest: the range.
        skewness: of a symmetric distribution 0; below 0 the tail on the left is longer.
        kurtosis: beyond a Gaussian's, whose is 0; of Student's t with 4 degrees of freedom it is infinite.
        outside: share farther from the mean than 3 deviations; 0.0027 of a Gaussian.
        quantiles: at `LEVELS`.
        spread: the largest magnitude over the median one; infinite where that is 0.
        tail: Hill's index (see `tails.hill`): below 2 the variance of what was sampled from is infinite.
        negative, positive: how many lie in [2^k, 2^(k+1)) by magnitude, by k; what is farther out counts to the ends.
    """

    count: int
    bad: int
    zeros: int
    mean: float
    deviation: float
    smallest: float
    largest: float
    skewness: float
    kurtosis: float
    outside: float
    quantiles: tuple[float, ...]
    spread: float
    tail: float
    negative: Mapping[int, int]
    positive: Mapping[int, int]

    def lost(self, dtype: torch.dtype) -> float:
        """Return the share of what is not 0 that would become 0 in a dtype, or coarse: less than its smallest normal.

        float16 has no full precision below 2^-14: gradients that lie there want a scaler.
        """
        least = math.log2(torch.finfo(dtype).tiny)
        small = sum(n for half in (self.negative, self.positive) for k, n in half.items() if k < least)
        return small / (self.count - self.zeros) if self.count > self.zeros else 0.0

    def __str__(self) -> str:
        rows = [
            f"{self.count:,} numbers, {self.zeros / self.count if self.count else 0:.1%} of them 0"
            + (f"; {self.bad:,} more are nan or infinite" if self.bad else ""),
            f"  mean        {self.mean:.4g}, deviation {self.deviation:.4g}",
            f"  range       {self.smallest:.4g} to {self.largest:.4g}",
            f"  shape       skewness {self.skewness:.3g}, excess kurtosis {self.kurtosis:.3g} (normal: 0, 0)",
            f"  outside     {self.outside:.2%} beyond 3 deviations (normal: 0.27%)",
            "  quantiles   " + ", ".join(f"{q:.4g} at {p:g}" for p, q in zip(LEVELS, self.quantiles, strict=True)),
            f"  tail        index {self.tail:.3g} (below 2: infinite variance), "
            f"largest {self.spread:.3g} times the median",
        ]
        return "\n".join([*rows, *self._bars()])

    def _bars(self) -> list[str]:
        places = sorted({*self.negative, *self.positive})
        if not places:
            return []
        most = max(*self.negative.values(), *self.positive.values(), 1)
        rows = ["", f"  {'negative':>{_BAR}}  magnitude  positive"]
        for k in range(places[-1], places[0] - 1, -1):
            left, right = ("▇" * math.ceil(_BAR * half.get(k, 0) / most) for half in (self.negative, self.positive))
            rows.append(f"  {left:>{_BAR}}  {f'2^{k}':^9}  {right}".rstrip())
        return rows


@torch.no_grad()
def distribution(values: Tensor) -> Distribution:
    """Describe numbers: those of a gradient, of a parameter, per-sample norms, or anything else.

    Moments, range and histogram are of all of them; quantiles and tail of at most 65,536, evenly spread. One number of
    each kind is read from the device. A histogram of gradients that loses its long tail on one side and becomes
    normal, and one of float16 gradients that reaches below 2^-14, are worth a look.

    Args:
        values: real numbers of any shape and dtype; of a sharded tensor, this rank's.

    Raises:
        ValueError: for a complex tensor.
    """
    if values.is_complex():
        raise ValueError("complex numbers are in no order: give their real view, their magnitudes or their angles.")
    flat = local(values.detach()).flatten().double()
    finite = flat.isfinite()
    x = flat[finite]
    if not x.numel():
        nan = math.nan
        empty: dict[int, int] = {}
        return Distribution(0, flat.numel(), 0, *(nan,) * 7, (nan,) * len(LEVELS), nan, nan, empty, empty)
    mean = x.mean()
    centred = x - mean
    variance = centred.square().mean()
    deviation = variance.sqrt()
    some = thinned(x)
    median = some.abs().median()
    facts = torch.stack(
        [
            (x == 0).sum(),
            mean,
            deviation,
            x.min(),
            x.max(),
            centred.pow(3).mean() / (variance * deviation),
            centred.pow(4).mean() / variance.square() - 3,
            (centred.abs() > 3 * deviation).double().mean(),
            x.abs().max() / median,
            hill(some),
            *some.quantile(some.new_tensor(LEVELS)),
        ]
    ).tolist()
    zeros, mean_, deviation_, smallest, largest, skewness, kurtosis, outside, spread, tail = facts[:10]
    return Distribution(
        x.numel(),
        flat.numel() - x.numel(),
        int(zeros),
        mean_,
        deviation_,
        smallest,
        largest,
        skewness,
        kurtosis,
        outside,
        tuple(facts[10:]),
        spread,
        tail,
        _powers(-x[x < 0]),
        _powers(x[x > 0]),
    )


def _powers(sizes: Tensor) -> dict[int, int]:
    """Count magnitudes by the power of two below them."""
    exponents = torch.frexp(sizes).exponent.to(torch.int64) - 1
    places, counts = torch.unique(exponents.clamp(LOWEST, HIGHEST), return_counts=True)
    return dict(zip(places.tolist(), counts.tolist(), strict=True))


def gradients(model: nn.Module) -> dict[str, Distribution]:
    """Describe each gradient of a model as it is now, and under "all" all of them together.

    Called before and after clipping it shows what clipping did to the tail.

    Args:
        model: parameters without a gradient are left out, sparse gradients are described by the rows they list.
    """
    found = {
        name: parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    described = {name: distribution(_real(grad)) for name, grad in found.items()}
    if found:
        described["all"] = distribution(torch.cat([local(_real(grad)).flatten().double() for grad in found.values()]))
    return described


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


def sample_norms(model: nn.Module, loss: Callable[..., Tensor], inputs: Tensor, *targets: Tensor) -> Tensor:
    """Return the norm of each sample's own gradient over all parameters: the tail of the noise, not of coordinates.

    Describe them with `distribution`: a few samples that pull a hundred times as hard as the others, because they are
    rare or wrong, are seen here and in no mean gradient.

    Args:
        model: without layers that look at several samples at once, such as batch norm in training mode.
        loss: takes the model's output and targets, of one sample with a batch dimension of 1.
        inputs: samples along the first dimension.
        targets: likewise.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def of_one(chosen: dict[str, Tensor], *sample: Tensor) -> Tensor:
        first, *rest = (one.unsqueeze(0) for one in sample)
        output: Any = torch.func.functional_call(model, chosen, (first,))
        return loss(output, *rest)

    per_sample = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, *(0,) * len(targets)), randomness="same")
    grads = per_sample(parameters, inputs, *targets)
    squares = torch.stack([grad.flatten(1).square().sum(1) for grad in grads.values()]).sum(0)
    return squares.sqrt()


__all__ = ["LEVELS", "Distribution", "distribution", "gradients", "sample_norms"]
