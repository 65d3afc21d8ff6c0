"""Who races: what a person typed ("adam", "sgd:momentum=0.9", "mine.toml") as something that builds optimizers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slalom.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT = ("sgd:momentum=0.9", "rmsprop", "adam", "adamw", "nadam", "lion")


@dataclass(frozen=True)
class Contestant(ABC):
    """One entrant.

    Attributes:
        label: what it is called in every table and chart; unique within a race.
        lrs: the learning rates to try, smallest first.
        pinned: whether a person chose them; if not, a workload may scale them.
        files: Python files with the parts or methods that it needs.
    """

    label: str
    lrs: tuple[float, ...]
    pinned: bool
    files: tuple[str, ...] = ()

    def build(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Return a new optimizer for a model; a worker imports the person's files first."""
        from slalom.userfiles import import_file

        for file in self.files:
            import_file(file)
        return self._build(model, lr)

    def identity(self) -> Mapping[str, Any]:
        """Return everything that determines how it trains, apart from the learning rate; plain data for JSON."""
        from slalom.userfiles import digest

        return {**self._facts(), **({"files": [digest(file) for file in self.files]} if self.files else {})}

    @abstractmethod
    def _build(self, model: nn.Module, lr: float) -> torch.optim.Optimizer: ...

    @abstractmethod
    def _facts(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Named(Contestant):
    """A recipe of the registry, some of its arguments replaced."""

    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def _build(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        import slalom

        optimizer: torch.optim.Optimizer = slalom.create(self.name, model, **{**self.arguments, "lr": lr})
        return optimizer

    def _facts(self) -> Mapping[str, Any]:
        hyperparameters = {**self.defaults, **self.arguments}
        hyperparameters.pop("lr", None)
        return {"recipe": self.name, **hyperparameters}


@dataclass(frozen=True)
class Written(Contestant):
    """A recipe written in a TOML file."""

    text: str = ""

    def _build(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        import slalom

        optimizer: torch.optim.Optimizer = slalom.Recipe.from_toml(self.text).build(model, lr=lr)
        return optimizer

    def _facts(self) -> Mapping[str, Any]:
        return {"toml": self.text}


def enter(words: Iterable[str], files: Iterable[str] = ()) -> tuple[Contestant, ...]:
    """Turn names, specs and TOML paths into contestants with different labels, each of which can be built.

    Args:
        words: what was typed.
        files: Python files whose parts and methods they may use.
    """
    from torch import nn

    from slalom.userfiles import defines_methods, import_file

    own = tuple(str(Path(file).resolve()) for file in files if defines_methods(import_file(file)))

    contestants: dict[str, Contestant] = {}
    for word in words:
        contestant = _from_file(word, own) if word.endswith(".toml") else _from_spec(word, own)
        if contestant.label in contestants:
            raise UsageError(f'two contestants are called "{contestant.label}"; leave one out or rename its file.')
        try:
            contestant.build(nn.Linear(2, 2), contestant.lrs[0])
        except (TypeError, ValueError) as error:
            raise UsageError(f'contestant "{word}": {error}') from None
        contestants[contestant.label] = contestant
    return tuple(contestants.values())


def parse_lrs(text: str) -> tuple[float, ...]:
    """Read "1e-3,3e-3" as learning rates, smallest first."""
    try:
        lrs = sorted({float(word) for word in text.split(",")})
    except ValueError:
        raise UsageError(f'learning rates "{text}": give numbers with commas between, as in "1e-3,3e-3".') from None
    if not all(math.isfinite(lr) and lr > 0 for lr in lrs):
        raise UsageError(f'learning rates "{text}": every one must be greater than 0.')
    return tuple(lrs)


def _from_spec(word: str, files: tuple[str, ...]) -> Named:
    from slalom.race.workloads import built_in
    from slalom.recipes.spec import parse_spec

    if word in built_in():
        raise UsageError(f'"{word}" is a workload: --workload {word} races on it.')
    entry, given = parse_spec(word)
    # A rate in the spec is a decision of the person who typed it, so no grid is laid around it.
    lrs = parse_lrs(str(given["lr"])) if "lr" in given else tuple(entry.lrs)
    arguments = {argument: value for argument, value in given.items() if argument != "lr"}
    return Named(word, lrs, "lr" in given, files, entry.name, arguments, dict(entry.defaults))


def _from_file(file: str, files: tuple[str, ...]) -> Written:
    from slalom.userfiles import read_recipe

    recipe, text = read_recipe(file)
    return Written(Path(file).stem, (recipe.lr / 3, recipe.lr, recipe.lr * 3), True, files, text)
