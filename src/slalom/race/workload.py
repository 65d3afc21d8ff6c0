"""What is trained in a race: the class that a workload subclasses, and where its random numbers come from."""

from __future__ import annotations

import copy
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Literal, TypeVar

from torch import Generator as RandomGenerator
from torch import Tensor, nn, random

Batch = TypeVar("Batch")
W = TypeVar("W", bound="Workload[Any]")
Tier = Literal["laptop", "ladder", "gpu"]


class Workload(ABC, Generic[Batch]):
    """A small training problem: a model, batches, a loss, and a way to tell how good the model has become.

    Four methods make a workload. Put this into ``sine.py`` and run ``slalom race sine.py``:

        import torch
        from torch import nn
        from slalom.race import Workload

        class Sine(Workload):
            \"\"\"A two-layer network fits a sine.\"\"\"

            steps = 300
            target = 0.01                # optional: the validation loss that counts as "there"

            def model(self):
                return nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1))

            def batches(self, generator):
                while True:
                    x = 6 * torch.rand(64, 1, generator=generator) - 3
                    yield x, torch.sin(2 * x)

            def loss(self, model, batch):
                x, y = batch
                return (model(x) - y).square().mean()

            def evaluate(self, model):
                x = torch.linspace(-3, 3, 500)[:, None]
                return {"loss": (model(x) - torch.sin(2 * x)).square().mean()}

    Every contestant gets the same initial weights and the same batches for the same seed: the seed of
    torch is set before ``model()`` is called, and ``generator`` is the only source of chance that
    ``batches`` should use. A run therefore depends on the contestant, the learning rate and the seed alone.

    Attributes:
        name: what the workload is called on the command line; by default the class's name in snake_case.
        title: one line for people; by default the first line of the class's docstring.
        steps: the budget, in optimizer steps. It is the same for every contestant.
        evaluations: how often ``evaluate`` is called, evenly spaced over the run; once more before the first step.
        lr_scale: what the learning rates that recipes suggest are multiplied by, for everybody alike. They are meant
            for models of ordinary size; small ones trained for a few hundred steps want more.
        target: the validation loss that defines "time to target", or None.
        reference: the steps that a tuned AdamW takes to the target, or None; see `slalom.race.targets`.
        base: the workload of which this is a held-out variant, or None.
        tier: "ladder" for the sizes of one model and "gpu" for what wants one, which no race takes in by default; else
            "laptop".
        size: parameters of the model, where a series of sizes is raced; else None.
        device: where ``model`` and ``batches`` put what they return; not "cpu" if one trial at a time fills it.
    """

    name: str = ""
    title: str = ""
    steps: int = 500
    evaluations: int = 25
    lr_scale: float = 1.0
    target: float | None = None
    reference: float | None = None
    base: str | None = None
    tier: Tier = "laptop"
    size: int | None = None
    device: str = "cpu"

    def __init_subclass__(cls) -> None:
        """Derive the name and the title that a subclass does not state."""
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        if "title" not in cls.__dict__:
            documentation = (cls.__doc__ or "").strip()
            cls.title = documentation.splitlines()[0].rstrip(".") if documentation else cls.name

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a new model with random initial weights."""

    @abstractmethod
    def batches(self, generator: RandomGenerator) -> Iterable[Batch]:
        """Yield training batches. A finite stream is one epoch: it is asked for again when it ends."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the scalar that training minimises."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float | Tensor]:
        """Measure the model on data it was not trained on; ``"loss"`` ranks it, anything else is shown beside it.

        The model is in evaluation mode and gradients are off.
        """

    def schedule(self, progress: float) -> float:
        """Return what the learning rate is multiplied by, at a fraction of the run in [0, 1); constant by default."""
        return 1.0

    def data_hash(self) -> str:
        """Return a digest of the data, if it comes from outside of the source file; results are filed under it."""
        return ""


def variant(workload: W, suffix: str, title: str, **changes: object) -> W:
    """Return a workload that differs from another in a few attributes, as a held-out one.

    Args:
        workload: the base.
        suffix: what is added to its name.
        title: what is different, for people.
        changes: attributes that the base has, and their other values.
    """
    other = copy.copy(workload)
    for name, value in changes.items():
        if not hasattr(workload, name):
            raise AttributeError(f'{workload.name} has no "{name}" that a variant could change.')
        setattr(other, name, value)
    other.name, other.title = f"{workload.name}_{suffix}", f"{workload.title}: {title}"
    other.base, other.target, other.reference = workload.name, None, None
    return other


def seed_for(workload: str, seed: int, purpose: str) -> int:
    """Derive the seed of one stream of chance: streams of different purposes and workloads are unrelated."""
    digest = hashlib.sha256(f"{workload}/{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def stream(workload: str, seed: int, purpose: str) -> RandomGenerator:
    """Return a generator that nothing but its purpose advances."""
    generator = RandomGenerator()
    generator.manual_seed(seed_for(workload, seed, purpose))
    return generator


def reseed(workload: str, seed: int, purpose: str) -> None:
    """Set torch's global seed, for what draws from it: initial weights, dropout, stochastic optimizers."""
    random.manual_seed(seed_for(workload, seed, purpose))
