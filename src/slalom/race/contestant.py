"""Who races: what a person typed ("adam", "sgd:momentum=0.9", "mine.toml") as something that builds optimizers."""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slalom.errors import UsageError, unknown

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

    """

    label: str
    lrs: tuple[float, ...]
    pinned: bool

    @abstractmethod
    def build(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Return a new optimizer for a model."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return everything that determines how it trains, apart from the learning rate; plain data for JSON."""


@dataclass(frozen=True)
class Named(Contestant):
    """A recipe of the registry, some of its arguments replaced."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def build(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Build it by name."""
        import slalom

        optimizer: torch.optim.Optimizer = slalom.create(self.name, model, **{**self.arguments, "lr": lr})
        return optimizer

    def identity(self) -> Mapping[str, Any]:
        """Return the name with all hyper-parameters, the defaults included."""
        hyperparameters = {**self.defaults, **self.arguments}
        hyperparameters.pop("lr", None)
        return {"recipe": self.name, **hyperparameters}


@dataclass(frozen=True)
class Written(Contestant):
    """A recipe written in a TOML file."""

    text: str

    def build(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Build it from the text."""
        import slalom

        optimizer: torch.optim.Optimizer = slalom.Recipe.from_toml(self.text).build(model, lr=lr)
        return optimizer

    def identity(self) -> Mapping[str, Any]:
        """Return the text."""
        return {"toml": self.text}


def enter(words: Iterable[str]) -> tuple[Contestant, ...]:
    """Turn names, specs and TOML paths into contestants with different labels, each of which can be built."""
    from torch import nn

    contestants: dict[str, Contestant] = {}
    for word in words:
        contestant = _from_file(Path(word)) if word.endswith(".toml") else _from_spec(word)
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


def _from_spec(word: str) -> Named:
    import slalom
    from slalom.race.workloads import built_in
    from slalom.recipes import method

    name, _, tail = word.partition(":")
    if name not in slalom.list_optimizers():
        if name in built_in():
            raise UsageError(f'"{name}" is a workload: --workload {name} races on it.')
        raise unknown("optimizer", name, slalom.list_optimizers(), "`slalom list` shows all of them.")
    given = _arguments(word, tail)
    recipe = method(name)
    known = {*recipe.defaults, "lr"}
    for argument in given:
        if argument not in known:
            raise unknown(f"argument of {name}", argument, known)
    # A rate in the spec is a decision of the person who typed it, so no grid is laid around it.
    lrs = parse_lrs(str(given["lr"])) if "lr" in given else tuple(recipe.lrs)
    arguments = {argument: value for argument, value in given.items() if argument != "lr"}
    return Named(word, lrs, "lr" in given, name, arguments, dict(recipe.defaults))


def _arguments(word: str, text: str) -> dict[str, Any]:
    """Read "momentum=0.9,betas=(0.9,0.95),nesterov=true" with Python's own grammar for keyword arguments."""
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        if isinstance(call, ast.Call) and not call.args:
            return {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        pass
    raise UsageError(f'contestant "{word}": after the colon comes key=value,key=value as in sgd:momentum=0.9.')


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id, node.id)
    return ast.literal_eval(node)


def _from_file(path: Path) -> Written:
    import slalom

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'cannot read recipe "{path}": {error}.') from None
    try:
        lr = float(slalom.Recipe.from_toml(text).lr)
    except (TypeError, ValueError) as error:
        raise UsageError(f'recipe "{path}": {error}') from None
    return Written(path.stem, (lr / 3, lr, lr * 3), True, text)
