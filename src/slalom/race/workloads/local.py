"""Workloads of the GPU tier: ordinary models on data sets that a person has on disk. Nothing is downloaded.

A path is recognised by what lies there: a folder with CIFAR-10's binary batches, a folder with a data set in the IDX
format (MNIST and its relatives), or a file, which is read as text. They run on a GPU if torch sees one, and on the CPU
for somebody with patience. They have no frozen targets: the data are not ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from slalom.errors import UsageError
from slalom.race.loaders import read_cifar10, read_idx, read_text
from slalom.race.workload import Batch, Workload
from slalom.race.workloads.nets import Gpt, Norm, Vit, resnet18
from slalom.race.workloads.schedules import warmup_cosine

PADDING = 4


class Pictures(NamedTuple):
    """Images as bytes of shape (n, channels, height, width), and their classes."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]


class Local(Workload[Batch]):
    """A workload on a path; the subclasses choose data and model."""

    tier = "gpu"

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def precision(self) -> AbstractContextManager[Any]:
        """Compute products in bfloat16 on a GPU, whose units for them would idle otherwise; a CPU stays exact."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu")

    def schedule(self, progress: float) -> float:
        """Warm up, then follow a cosine."""
        return warmup_cosine(progress)


class ImageClasses(Local[tuple[Tensor, Tensor]]):
    """Classify images, each shifted by up to four pixels; colour images are mirrored half the time."""

    steps = 3000
    batch = 256
    width = 64

    @property
    def data(self) -> Pictures:
        """The images."""
        return read_pictures(self.path)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.data.train[1].max()) + 1

    def model(self) -> nn.Module:
        """Return ResNet-18 for small images, of 11 million parameters unless the width says otherwise."""
        return resnet18(self.data.train[0].shape[1], self.classes, self.width).to(self.device)

    def batches(self, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw images with replacement. Chance comes from the CPU, so that it does not depend on the device."""
        images, labels = (part.to(self.device) for part in self.data.train)
        count, channels, height, width = images.shape
        padded = functional.pad(images, (PADDING,) * 4)
        rows, columns = torch.arange(height, device=self.device), torch.arange(width, device=self.device)
        while True:
            picked = torch.randint(count, (self.batch,), generator=generator).to(self.device)
            corner = torch.randint(2 * PADDING + 1, (2, self.batch, 1), generator=generator).to(self.device)
            mirrored = (torch.rand(self.batch, generator=generator) < 0.5).to(self.device)
            down, along = rows + corner[0], columns + corner[1]
            if channels == 3:
                along = torch.where(mirrored[:, None], along.flip(1), along)
            crop = padded[picked[:, None, None], :, down[:, :, None], along[:, None, :]]
            yield self._scaled(crop.permute(0, 3, 1, 2)), labels[picked]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy."""
        x, y = batch
        with self.precision():
            logits = model(x)
        return functional.cross_entropy(logits.float(), y)

    def evaluate(self, model: nn.Module) -> dict[str, float | Tensor]:
        """Return cross-entropy and accuracy on the held-out images as they are."""
        images, labels = (part.to(self.device) for part in self.data.validation)
        with self.precision():
            logits = torch.cat([model(self._scaled(part)).float() for part in torch.split(images, 500)])
        return {
            "loss": functional.cross_entropy(logits, labels),
            "accuracy": (logits.argmax(1) == labels).float().mean(),
        }

    def data_hash(self) -> str:
        """Return the digest of all images and classes."""
        digest = hashlib.sha256()
        for part in (*self.data.train, *self.data.validation):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()

    @staticmethod
    def _scaled(images: Tensor) -> Tensor:
        return images.float() / 64 - 2


class ImagePatches(ImageClasses):
    """Classify images with a vision transformer."""

    width = 192
    layers = 6
    heads = 6
    norm: Norm = "pre"
    activation = "gelu"

    def model(self) -> nn.Module:
        """Return a transformer over patches of 4 x 4 pixels, of 2.7 million parameters."""
        _, channels, height, width = self.data.train[0].shape
        if height != width or height % 4:
            raise UsageError(f"{self.path}: images of {height} x {width}; patches of 4 x 4 want squares of 4 k pixels.")
        return Vit(
            *(self.width, self.layers, self.heads, self.norm, self.activation),
            channels=channels,
            side=height,
            patch=4,
            classes=self.classes,
        ).to(self.device)


class TextBytes(Local[Tensor]):
    """Predict the next byte of a text; the last tenth is held out."""

    steps = 3000
    batch = 64
    context = 256
    width = 384
    layers = 6
    heads = 6
    windows = 128

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        """The bytes for training and validation."""
        text = _text(self.path)
        cut = len(text) * 9 // 10
        if len(text) - cut <= self.context + 1:
            wanted = 10 * (self.context + 2)
            raise UsageError(f'"{self.path}" has {len(text)} bytes; a text to learn from needs at least {wanted}.')
        return text[:cut], text[cut:]

    def model(self) -> nn.Module:
        """Return a GPT; of 11 million parameters, unless attributes say otherwise."""
        return Gpt(256, self.context, self.width, self.layers, self.heads).to(self.device)

    def batches(self, generator: Generator) -> Iterator[Tensor]:
        """Cut windows at random places; one byte longer than the context, because the target is shifted."""
        windows = self.data[0].to(self.device).unfold(0, self.context + 1, 1)
        while True:
            picked = torch.randint(len(windows), (self.batch,), generator=generator).to(self.device)
            yield windows[picked].long()

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return nats per byte."""
        with self.precision():
            logits = model(batch[:, :-1])
        return functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(self, model: nn.Module) -> dict[str, float | Tensor]:
        """Return nats per byte on fixed windows, spread evenly over the held-out text."""
        held_out = self.data[1].to(self.device)
        starts = torch.linspace(0, len(held_out) - self.context - 1, self.windows, device=self.device).long()
        windows = held_out[starts[:, None] + torch.arange(self.context + 1, device=self.device)].long()
        return {"loss": torch.stack([self.loss(model, part) for part in torch.split(windows, 32)]).mean()}

    def data_hash(self) -> str:
        """Return the digest of the text."""
        return hashlib.sha256(torch.cat(self.data).numpy().tobytes()).hexdigest()


def from_path(path: Path) -> list[Local[Any]]:
    """Return the workloads on what lies at a path.

    Raises:
        UsageError: if nothing lies there, or nothing that is recognised.
    """
    if path.is_file():
        text = TextBytes(path, f"{_word(path.stem)}_gpt")
        text.title = f"Bytes of {path.name}, six-layer GPT"
        return [text]
    if not path.is_dir():
        raise UsageError(f'--data "{path}": there is no such file or folder.')
    stem = "cifar10" if (path / "test_batch.bin").exists() else _word(path.name)
    _kind(path)
    resnet, vit = ImageClasses(path, f"{stem}_resnet"), ImagePatches(path, f"{stem}_vit")
    resnet.title, vit.title = f"Images of {path.name}, ResNet-18", f"Images of {path.name}, six-layer transformer"
    return [resnet, vit]


@lru_cache(maxsize=4)
def _text(path: Path) -> Tensor:
    return read_text(path)


@lru_cache(maxsize=4)
def read_pictures(path: Path) -> Pictures:
    """Read a folder in either format, checked that images and classes belong together."""
    if _kind(path) == "cifar10":
        return Pictures(read_cifar10(path, train=True), read_cifar10(path, train=False))
    parts = []
    for train in (True, False):
        pair = _idx_pair(path, train=train)
        if pair is None:
            raise UsageError(f'"{path}": t10k-images-idx3-ubyte or t10k-labels-idx1-ubyte is missing.')
        images, labels = (read_idx(file) for file in pair)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or images.dtype != torch.uint8:
            raise UsageError(
                f'"{path}": {len(images)} images of shape {tuple(images.shape[1:])} do not fit the labels.'
            )
        parts.append((images[:, None], labels.long()))
    return Pictures(*parts)


def _kind(folder: Path) -> str:
    """Tell what a folder holds."""
    if (folder / "data_batch_1.bin").exists():
        return "cifar10"
    if _idx_pair(folder, train=True):
        return "idx"
    raise UsageError(
        f'--data "{folder}": neither data_batch_1.bin (CIFAR-10, binary version) nor train-images-idx3-ubyte (IDX) '
        "lies there; for a text name the file itself."
    )


def _idx_pair(folder: Path, *, train: bool) -> tuple[Path, Path] | None:
    """Find images and labels by the names that MNIST gave them, gzipped or not."""
    found = []
    for stem in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        names = [f"{'train' if train else kind}-{stem}{end}" for kind in ("t10k", "test") for end in ("", ".gz")]
        file = next((folder / name for name in names if (folder / name).exists()), None)
        if file is None:
            return None
        found.append(file)
    return found[0], found[1]


def _word(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower()).strip("_") or "data"
