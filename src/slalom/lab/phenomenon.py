"""What a phenomenon is: settings, one run for one seed, and the signs by which it is known. Nothing is drawn here."""

from __future__ import annotations

import ast
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar

from slalom.errors import UsageError, unknown
from slalom.landscape import Plane
from slalom.pictures import Picture
from slalom.recipes.spec import parse_arguments, parse_spec

Progress: TypeAlias = Callable[[float], None]  # how much of a run is done, from 0 to 1


@dataclass(frozen=True)
class Sign:
    """One thing by which a phenomenon is known: a number, and where it must lie.

    Attributes:
        key: the name of the number among those that a run measures.
        claim: what is claimed of it, in words.
        expected: what the source says, or what theory gives; with the words "paper" or "theory" before it.
        low: the least value at which the claim holds.
        high: the largest.
    """

    key: str
    claim: str
    expected: str
    low: float = -math.inf
    high: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a measured value shows the sign; what is no number does not."""
        return self.low <= value <= self.high

    @property
    def needs(self) -> str:
        """The range in words."""
        if self.low == -math.inf:
            return f"at most {self.high:.4g}"
        if self.high == math.inf:
            return f"at least {self.low:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True)
class Table:
    """Numbers in rows; None where there is none.

    Attributes:
        head: what the columns are; the first one names the rows.
        rows: the numbers by the name of their row.
    """

    head: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Run:
    """What was measured with one seed.

    Attributes:
        values: the numbers that signs look at, by key; one that these settings do not yield is not there.
        pictures: by title; curves, or the loss over a plane.
        table: more numbers.
    """

    values: Mapping[str, float]
    pictures: Mapping[str, Picture | Plane] = field(default_factory=dict)
    table: Table | None = None


@dataclass(frozen=True)
class Phenomenon(ABC):
    """A published phenomenon as an experiment. Its fields are the settings; what belongs to the class describes it.

    Attributes:
        name: as people type it.
        title: a few words.
        source: authors, year, where.
        claim: what is to be seen and why, one paragraph.
        here: how this experiment differs from the source's, and what was chosen by looking at results.
        signs: by what it is known.
        seeds: how many runs by default.
        seconds: what these take by default, and with ``quick``: CPU seconds of one thread, measured.
        quick: settings for a short look.
        variants: settings worth trying, with what they show.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    claim: ClassVar[str]
    here: ClassVar[str]
    signs: ClassVar[tuple[Sign, ...]]
    seeds: ClassVar[int] = 1
    seconds: ClassVar[tuple[float, float]]
    quick: ClassVar[Mapping[str, Any]] = {}
    variants: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def run(self, seed: int, progress: Progress) -> Run:
        """Run the experiment once.

        Args:
            seed: of everything random in it.
            progress: told now and then how much is done.
        """

    def settings(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}


P = TypeVar("P", bound=type[Phenomenon])
_CATALOGUE: dict[str, type[Phenomenon]] = {}


def phenomenon(cls: P) -> P:
    """Enter a phenomenon into the catalogue; used as a decorator."""
    _CATALOGUE[cls.name] = cls
    return cls


def phenomena() -> dict[str, type[Phenomenon]]:
    """Return the catalogue, the quickest first."""
    return dict(sorted(_CATALOGUE.items(), key=lambda entry: entry[1].seconds))


def set_up(word: str, recipes: tuple[str, ...] = (), *, quick: bool = False) -> Phenomenon:
    """Build a phenomenon from what a person types: "separable", "separable:steps=1000,eps=1e-8".

    Args:
        word: a name, after a colon settings.
        recipes: who is compared, for phenomena that let you choose.
        quick: begin with the settings for a short look.

    Raises:
        UsageError: for a name or a setting that does not exist, or a value of the wrong kind.
    """
    name, _, text = word.partition(":")
    if name not in _CATALOGUE:
        raise unknown("phenomenon", name, _CATALOGUE, "`slalom lab` shows all.")
    cls = _CATALOGUE[name]
    defaults = {spec.name: spec.default for spec in dataclasses.fields(cls)}
    given = {**(cls.quick if quick else {}), **parse_arguments(word, text)}
    for setting, value in given.items():
        if setting not in defaults:
            raise unknown("setting", setting, defaults, owner=name)
        given[setting] = _like(defaults[setting], value, f"{name}:{setting}={value}")
    if recipes:
        if "recipes" not in defaults:
            raise UsageError(f'{name} takes no recipes, and "{recipes[0]}" was given: which methods run is its point.')
        for recipe in recipes:
            parse_spec(recipe)
        given["recipes"] = recipes
    return cls(**given)


def _like(default: Any, value: Any, words: str) -> Any:
    """Return a value as the kind of a default."""
    kind = type(default)
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, (list, tuple)):
        return tuple(value)
    if type(value) is not kind:
        example = ast.unparse(ast.Constant(default)) if kind is not tuple else repr(default)
        raise UsageError(f"{words}: a value like {example} is wanted.")
    return value
