"""P2: test error has a peak where the parameters are just enough to fit the data, and falls again beyond it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

Array = NDArray[np.float64]
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.975, 1.0, 1.025, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0)


@phenomenon
@dataclass(frozen=True)
class DoubleDescent(Phenomenon):
    """Least squares on random features, of which there are fewer, as many, and more than samples.

    Args:
        samples: of the training set.
        inputs: coordinates of a sample.
        noise: the standard deviation of the noise in the labels.
        ridge: the weight of the squared weights in the regularised fit.
        trials: fits of which the median counts.
    """

    samples: int = 200
    inputs: int = 20
    noise: float = 0.5
    ridge: float = 0.05
    trials: int = 8

    name: ClassVar = "double-descent"
    title: ClassVar = "more parameters, more error, then less again"
    source: ClassVar = "Belkin, Hsu, Ma, Mandal 2019, arXiv:1812.11118; Nakkiran et al. 2020, arXiv:1912.02292"
    claim: ClassVar = (
        "Test error falls, then rises as the parameters become enough to fit every label, noise included. Where "
        "they are just enough there is one fit, and it is wild. Beyond, there are many, and the one of least "
        "length, to which gradient descent from zero goes, becomes tamer the more there are: the error falls a "
        "second time. Weight decay removes the peak."
    )
    here: ClassVar = (
        "Random ReLU features of Gaussian inputs and a linear target, fitted in closed form with the least squares "
        "solution of least length; the papers train networks on images. In this setting the second descent ends "
        "above the best small model, unless there is ridge or less noise. Nothing was tuned."
    )
    signs: ClassVar = (
        Sign("place", "where the test error is largest: features per sample",
             "paper: 1, where all labels are just fitted", low=0.9, high=1.1),
        Sign("peak", "the peak, over the best error of fewer features", "measured before: 166 / 0.257 = 646", low=10),
        Sign("second", "the error with 16 features per sample, over the peak", "measured before: 0.319 / 166 = 0.002",
             high=0.1),
        Sign("fits", "training error with as many features as samples, over that of half as many",
             "theory: 0", high=1e-6),
        Sign("ridge", "with ridge: the largest error from half as many features on, over the smallest",
             "measured before: no peak; 0.222 / 0.085 = 2.6", high=4.0),
        Sign("noiseless", "without noise in the labels: the peak, over the peak with it",
             "Nakkiran: noise raises the peak", high=0.5),
    )  # fmt: skip
    seconds: ClassVar = (2.0, 0.3)
    quick: ClassVar = {"samples": 100, "trials": 4}
    variants: ClassVar = {
        "double-descent:noise=0.1": "with cleaner labels the largest models win",
        "double-descent:inputs=5": "fewer inputs: an easier map, the peak stays",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Fit all sizes."""
        sizes = [max(1, round(share * self.samples)) for share in _SHARES]
        kinds = ("test", "train", "with ridge", "no noise")
        errors: dict[str, list[float]] = {kind: [] for kind in kinds}
        for place, features in enumerate(sizes):
            fits = [self._fit(np.random.default_rng([seed, trial]), features) for trial in range(self.trials)]
            for column, kind in enumerate(kinds):
                errors[kind].append(float(np.median([fit[column] for fit in fits])))
            progress((place + 1) / len(sizes))
        test, half, one = errors["test"], _SHARES.index(0.5), _SHARES.index(1.0)
        peak = max(test)
        values = {
            "place": _SHARES[test.index(peak)],
            "peak": peak / min(test[:one]),
            "second": test[-1] / peak,
            "fits": errors["train"][one] / errors["train"][half],
            "ridge": max(errors["with ridge"][half:]) / min(errors["with ridge"][half:]),
            "noiseless": max(errors["no noise"]) / peak,
        }
        floor = min(test) / 100
        curves = tuple(Curve(_SHARES, [max(e, floor) for e in errors[kind]], kind) for kind in kinds)
        shown = [k for k, share in enumerate(_SHARES) if share in (0.25, 0.5, 0.9, 1.0, 1.1, 2.0, 16.0)]
        rows = {kind: tuple(errors[kind][k] for k in shown) for kind in kinds}
        picture = Picture(curves, "features per sample", "mean squared error", log_x=True, log_y=True)
        return Run(values, {f"Error of the shortest fit to {self.samples} samples": picture},
                   Table(("features per sample", *(f"{_SHARES[k]:g}" for k in shown)), rows))  # fmt: skip

    def _fit(self, generator: np.random.Generator, features: int) -> tuple[float, float, float, float]:
        """Return test and training error of the shortest fit, and test errors with ridge and without noise."""
        target = generator.standard_normal(self.inputs) / np.sqrt(self.inputs)
        x, fresh = (generator.standard_normal((count, self.inputs)) for count in (self.samples, 1000))
        extra = self.noise * generator.standard_normal(self.samples)
        map_ = generator.standard_normal((self.inputs, features)) / np.sqrt(self.inputs)
        z, z_fresh = np.maximum(x @ map_, 0), np.maximum(fresh @ map_, 0)
        clean, wanted = x @ target, fresh @ target
        u, s, vt = np.linalg.svd(z, full_matrices=False)

        def weights(labels: Array, ridge: float) -> Array:
            inverse = np.where(s > 1e-12 * s[0], s / (s * s + ridge), 0.0)
            return np.asarray(vt.T @ (inverse * (u.T @ labels)))

        def error(w: Array) -> float:
            return float(np.square(z_fresh @ w - wanted).mean())

        shortest = weights(clean + extra, 0.0)
        train = float(np.square(z @ shortest - clean - extra).mean())
        ridged = weights(clean + extra, self.ridge * self.samples)
        return error(shortest), train, error(ridged), error(weights(clean, 0.0))
