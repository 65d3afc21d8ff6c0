"""Handwritten digits: scikit-learn's 1797 images of 8 x 8 pixels, which are installed with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from slalom.race.workload import Workload
from slalom.race.workloads.nets import ACTIVATIONS, Norm, Vit, perceptron
from slalom.race.workloads.schedules import warmup_cosine

BATCH = 64
VALIDATION = 500


class Images(NamedTuple):
    """Images in [-1, 1] and their classes, with the digest of both."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    sha256: str


@lru_cache(maxsize=1)
def images() -> Images:
    """Load and split the digits; the split is the same for every seed."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    digest = hashlib.sha256(pixels.astype("uint8").tobytes() + classes.astype("uint8").tobytes()).hexdigest()
    x = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1
    y = torch.from_numpy(classes).long()
    order = torch.randperm(len(x), generator=Generator().manual_seed(0))
    validation, train = order[:VALIDATION], order[VALIDATION:]
    return Images((x[train], y[train]), (x[validation], y[validation]), digest)


class Digits(Workload[tuple[Tensor, Tensor]]):
    """Classify handwritten digits; the subclasses choose the model."""

    lr_scale = 6.0

    def batches(self, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw images with replacement, each shifted by up to one pixel each way."""
        x, y = images().train
        # Padding once and cropping at a random corner is the cheapest random shift.
        padded = functional.pad(x, (1, 1, 1, 1), value=-1.0)
        crops = torch.stack([padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)])
        while True:
            picked = torch.randint(len(x), (BATCH,), generator=generator)
            corner = torch.randint(len(crops), (BATCH,), generator=generator)
            yield crops[corner, picked], y[picked]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy."""
        x, y = batch
        return functional.cross_entropy(model(x), y)

    def evaluate(self, model: nn.Module) -> dict[str, float | Tensor]:
        """Return cross-entropy and accuracy on the held-out images, which are not shifted."""
        x, y = images().validation
        logits = model(x)
        return {
            "loss": functional.cross_entropy(logits, y),
            "accuracy": (logits.argmax(1) == y).float().mean(),
        }

    def schedule(self, progress: float) -> float:
        """Warm up, then follow a cosine."""
        return warmup_cosine(progress)

    def data_hash(self) -> str:
        """Return the digest of pixels and classes."""
        return images().sha256


class DigitsMlp(Digits):
    """Handwritten digits, perceptron 64-128-128-10."""

    steps = 600
    width = 128
    activation = "relu"
    init = 1.0

    def model(self) -> nn.Module:
        """Return two hidden layers."""
        sizes = (64, self.width, self.width, 10)
        return nn.Sequential(nn.Flatten(), *perceptron(sizes, self.activation, self.init))


class DigitsCnn(Digits):
    """Handwritten digits, three convolutions with batch norm."""

    steps = 700
    norm = "batch"
    activation = "relu"
    init = 1.0

    def model(self) -> nn.Module:
        """Return a network that halves the image twice and then averages what is left."""

        def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            norm = nn.BatchNorm2d(outputs) if self.norm == "batch" else nn.GroupNorm(4, outputs)
            nn.init.constant_(norm.weight, self.init)
            return [convolution, norm, ACTIVATIONS[self.activation]()]

        layers = [*block(1, 24, 1), *block(24, 48, 2), *block(48, 64, 2)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class DigitsVit(Digits):
    """Handwritten digits, two-layer vision transformer."""

    steps = 700
    width = 32
    layers = 2
    norm: Norm = "pre"
    activation = "gelu"

    def model(self) -> nn.Module:
        """Return a transformer over 16 patches."""
        return Vit(self.width, self.layers, 4, self.norm, self.activation, channels=1, side=8, patch=2)
