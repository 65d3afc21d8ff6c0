"""Who races: what a person typed as something that builds optimizers.

"adam" and "sgd:momentum=0.9" are recipes, "mine.toml" is a recipe in a file, and "torch.optim.AdamW:eps=1e-6" is any
torch optimizer that can be imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slalom.errors import UsageError, unknown
from slalom.recipes.space import Dimension, assign, derive

if TYPE_CHECKING:
    import torch
    from torch import nn

    from slalom.schedules import Scheduler

# One point of a search space: {"lr": 0.01, "betas[0]": 0.95}.
Settings = Mapping[str, Any]

DEFAULT = ("sgd:momentum=0.9", "rmsprop", "adam", "adamw", "nadam", "lion")


@dataclass(frozen=True)
class Contestant(ABC):
    """One entrant.

    Attributes:
        label: what it is called in every table and chart; unique within a race.
        lrs: the learning rates to try, smallest first.
        pinned: whether a person chose them; if not, a workload may scale them.
        files: Python files with the parts or methods that it needs.
        space: what a tuner may vary; what a person typed is not in it.
    """

    label: str
    lrs: tuple[float, ...]
    pinned: bool
    files: tuple[str, ...] = ()
    space: Mapping[str, Dimension] = field(default_factory=dict)

    def build(self, model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
        """Return a new optimizer for a model; a worker imports the person's files first."""
        from slalom.userfiles import import_file

        for file in self.files:
            import_file(file)
        return self._build(model, settings)

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> Scheduler | None:
        """Return what moves the hyper-parameters of a run of so many steps, if it brings a schedule of its own."""
        return None

    def identity(self) -> Mapping[str, Any]:
        """Return everything that determines how it trains, apart from the settings; plain data for JSON."""
        from slalom.userfiles import digest

        return {**self._facts(), **({"files": [digest(file) for file in self.files]} if self.files else {})}

    @abstractmethod
    def plain(self) -> Settings:
        """Return the learning rate that it has if nobody says anything, as settings."""

    @abstractmethod
    def _build(self, model: nn.Module, settings: Settings) -> torch.optim.Optimizer: ...

    @abstractmethod
    def _facts(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Named(Contestant):
    """A recipe of the registry, some of its arguments replaced."""

    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> Settings:
        """Return the recipe's default, or what was typed."""
        return {"lr": self.defaults.get("lr", self.lrs[len(self.lrs) // 2])}

    def _build(self, model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
        import slalom

        arguments = assign(self.arguments, self.defaults, settings)
        optimizer: torch.optim.Optimizer = slalom.create(self.name, model, **arguments)
        return optimizer

    def _facts(self) -> Mapping[str, Any]:
        hyperparameters = {**self.defaults, **self.arguments}
        hyperparameters.pop("lr", None)
        return {"recipe": self.name, **hyperparameters}


@dataclass(frozen=True)
class Written(Contestant):
    """A recipe written in a TOML file."""

    text: str = ""

    def plain(self) -> Settings:
        """Return the file's own rate."""
        return {"lr": self.lrs[len(self.lrs) // 2]}

    def _build(self, model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
        import slalom

        for name in settings:
            if name != "lr":
                raise ValueError(f'setting "{name}": a recipe in a file has its learning rate alone to set.')
        optimizer: torch.optim.Optimizer = slalom.Recipe.from_toml(self.text).build(model, lr=settings["lr"])
        return optimizer

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> Scheduler | None:
        """Return the scheduler of the file's ``[schedule]``."""
        import slalom

        recipe = slalom.Recipe.from_toml(self.text)
        return recipe.scheduler(optimizer, steps) if recipe.schedule else None

    def _facts(self) -> Mapping[str, Any]:
        return {"toml": self.text}


@dataclass(frozen=True)
class Imported(Contestant):
    """Anybody's `torch.optim.Optimizer`, by the name under which Python imports it."""

    module: str = ""
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def plain(self) -> Settings:
        """Return the class's default, or what was typed; nothing if it has no learning rate."""
        if "lr" not in self.defaults:
            return {}
        return {"lr": self.lrs[len(self.lrs) // 2]}

    def _build(self, model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
        given = {name: value for name, value in settings.items() if name != "lr" or "lr" in self.defaults}
        arguments = assign(self.arguments, self.defaults, given)
        optimizer: torch.optim.Optimizer = _import(self.label, self.module, self.name)(model.parameters(), **arguments)
        return optimizer

    def _facts(self) -> Mapping[str, Any]:
        hyperparameters = {**self.defaults, **self.arguments}
        hyperparameters.pop("lr", None)
        return {"class": f"{self.module}.{self.name}", "source": self.source, **hyperparameters}


def enter(words: Iterable[str], files: Iterable[str] = ()) -> tuple[Contestant, ...]:
    """Turn names, specs, TOML paths and importable classes into contestants, each of which can be built.

    Args:
        words: what was typed.
        files: Python files whose parts and methods they may use.
    """
    from torch import nn

    from slalom.userfiles import defines_methods, import_file

    own = tuple(str(Path(file).resolve()) for file in files if defines_methods(import_file(file)))

    contestants: dict[str, Contestant] = {}
    for word in words:
        contestant = _contestant(word, own)
        if contestant.label in contestants:
            raise UsageError(f'two contestants are called "{contestant.label}"; leave one out or rename its file.')
        try:
            contestant.build(nn.Linear(2, 2), contestant.plain())
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


def _contestant(word: str, files: tuple[str, ...]) -> Contestant:
    if word.endswith(".toml"):
        return _from_file(word, files)
    if "." in word.partition(":")[0]:
        return _from_import(word)
    return _from_spec(word, files)


def _from_spec(word: str, files: tuple[str, ...]) -> Named:
    from slalom.race.workloads import built_in
    from slalom.recipes.spec import parse_spec

    if word in built_in():
        raise UsageError(f'"{word}" is a workload: --workload {word} races on it.')
    entry, given = parse_spec(word)
    # A rate in the spec is a decision of the person who typed it, so no grid is laid around it.
    pinned = "lr" in given
    lrs = parse_lrs(str(given["lr"])) if pinned else tuple(entry.lrs)
    arguments = {argument: value for argument, value in given.items() if argument != "lr"}
    # A method that finds its own rate takes a factor for it, and a factor has no unit that a workload could change.
    pinned = pinned or entry.family == "tuning-free"
    space = _without(entry.search_space, given)
    defaults = {**entry.defaults, **({"lr": lrs[0]} if "lr" in given else {})}
    return Named(word, lrs, pinned, files, space, entry.name, arguments, defaults)


def _from_file(file: str, files: tuple[str, ...]) -> Written:
    from slalom.userfiles import read_recipe

    recipe, text = read_recipe(file)
    recipe.schedules(1000)  # of whatever length: a text that cannot be read is refused before anything runs
    lrs = (recipe.lr / 3, recipe.lr, recipe.lr * 3)
    return Written(Path(file).stem, lrs, True, files, derive({"lr": recipe.lr}), text)


def _from_import(word: str) -> Imported:
    from slalom.recipes.spec import parse_arguments

    path, _, tail = word.partition(":")
    module, _, name = path.rpartition(".")
    # `python -m` sees the folder that a person is in; the installed command does not.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    cls = _import(word, module, name)
    parameters = inspect.signature(cls).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    given = parse_arguments(word, tail)
    for argument in given:
        if argument not in {p.name for p in parameters} and not open_ended:
            raise unknown("argument", argument, defaults, owner=path)
    if "lr" in given:
        lrs = parse_lrs(str(given["lr"]))
    else:
        rate = defaults.get("lr")
        plain = float(rate) if isinstance(rate, float | int) and rate > 0 else 1e-3
        lrs = tuple(float(f"{plain * factor:.6g}") for factor in (1 / 3, 1, 3)) if "lr" in defaults else (plain,)
    defaults = {**defaults, **({"lr": lrs[0]} if "lr" in given else {})}
    arguments = {argument: value for argument, value in given.items() if argument != "lr"}
    space = _without(derive(defaults), given)
    return Imported(word, lrs, "lr" in given, (), space, module, name, arguments, defaults, _source(cls))


def _import(word: str, module: str, name: str) -> Any:
    import torch

    try:
        cls = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UsageError(f'contestant "{word}": {error}.') from None
    except AttributeError:
        raise UsageError(f'contestant "{word}": the module {module} has no {name}.') from None
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise UsageError(f'contestant "{word}": {module}.{name} is not a torch.optim.Optimizer.')
    return cls


def _source(cls: type) -> str:
    """Identify the code of somebody's class: its package's version and a digest of the file that defines it."""
    package = cls.__module__.partition(".")[0]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:
        file = None
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file and Path(file).is_file() else ""
    return f"{package} {version} {digest}".strip()


def _without(space: Mapping[str, Dimension], given: Iterable[str]) -> dict[str, Dimension]:
    """Return a space without the hyper-parameters that a person has decided."""
    decided = set(given)
    return {name: dimension for name, dimension in space.items() if name.partition("[")[0] not in decided}
