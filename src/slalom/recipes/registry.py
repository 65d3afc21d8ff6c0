"""The catalogue: what every named optimizer is called, where it comes from and what it is for."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from slalom.errors import UsageError, unknown
from slalom.recipes.recipe import ByRole, Recipe
from slalom.recipes.space import Dimension, derive

Factory = Callable[..., "Recipe | ByRole"]
F = TypeVar("F", bound=Factory)

# Switches of torch.optim that choose an implementation. slalom chooses by itself.
_TORCH_SWITCHES: Final = frozenset({"foreach", "fused", "capturable", "differentiable"})


# What the methods of a family share, in a line; in the order in which one learns them.
FAMILIES: Final[Mapping[str, str]] = {
    "sgd": "one rate for all coordinates, and kinds of momentum",
    "sign": "steps of one size in every coordinate",
    "adaptive": "a rate per coordinate, from all gradients so far",
    "adam": "a rate per coordinate, from running means of the gradient and its square",
    "layerwise": "a rate per layer, from the lengths of weights and steps",
    "memory": "what Adam does, in less memory",
    "matrix": "see matrices as matrices: other norms, Kronecker factors",
    "lazy": "solve for the weights anew at each step: exact zeros, rows that rest",
    "tuning-free": "find the length of their steps themselves",
    "averaging": "hand back an average of the points that were visited",
}


@dataclass(frozen=True)
class Method:
    """A named optimizer: a function from hyper-parameters to a recipe, and what a person wants to know of it.

    Attributes:
        name: as in `slalom.create` and on the command line.
        class_name: the class in the package, ``slalom.AdamW``.
        title: what the name stands for.
        family: one of `FAMILIES`, or one of your own.
        year: of the first publication.
        source: authors and arXiv id or venue.
        use: when to take it.
        avoid: when not to.
        lrs: three learning rates worth trying first, small to large.
        factory: builds the recipe; its signature is the optimizer's.
        exceptions: contracts of `slalom.testing` that the method cannot promise, each with the reason.
        also: other names of the same method, by which it is found.
        others: other methods of the same name, or words that mean something else elsewhere; a phrase.
        space: dimensions of the search space that differ from those that `slalom.recipes.space.derive` finds; None
            takes one out.
    """

    name: str
    class_name: str
    title: str
    family: str
    year: int
    source: str
    use: str
    avoid: str
    lrs: tuple[float, ...]
    factory: Factory = field(repr=False)
    exceptions: Mapping[str, str] = field(default_factory=dict)
    space: Mapping[str, Dimension | None] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    others: str = ""

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """The hyper-parameters with their default values, in the order of the signature."""
        return {name: spec.default for name, spec in inspect.signature(self.factory).parameters.items()}

    @functools.cached_property
    def search_space(self) -> dict[str, Dimension]:
        """What a tuner may vary, and within which bounds."""
        merged = {**derive(self.defaults, self.lrs), **self.space}
        for name in merged:
            self.check_names([name.partition("[")[0]])
        return {name: dimension for name, dimension in merged.items() if dimension is not None}

    def recipe(self, **hyperparameters: Any) -> Recipe | ByRole:
        """Return the recipe for these hyper-parameters.

        Raises:
            TypeError: for an argument that the method does not have, with the one that may have been meant; for one
                number where several are wanted.
            ValueError: for a value outside its range or choices, for more or fewer numbers than are wanted.
        """
        self.check_names(hyperparameters)
        self._check_values(hyperparameters)
        return self.factory(**{**self.defaults, **hyperparameters})

    def check_names(self, given: Iterable[str]) -> None:
        """Raise `TypeError` for an argument that the method does not have."""
        for name in given:
            if name in _TORCH_SWITCHES:
                raise TypeError(
                    f"{self.class_name}({name}=...): that is a switch of torch.optim; "
                    "slalom picks the fastest way to run by itself, leave it out."
                )
            if name not in self.defaults:
                raise TypeError(str(unknown("argument", name, self.defaults, owner=self.class_name)))

    @functools.cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """What the hyper-parameters that are words may be."""
        try:
            hints = typing.get_type_hints(self.factory)
        except NameError:  # a method of one's own, with names that are known only where it was written
            return {}
        return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}

    def _check_values(self, given: Mapping[str, Any]) -> None:
        """Refuse words that mean nothing, one number for a pair, and a third that nobody would read."""
        for name, value in given.items():
            default = self.defaults[name]
            if name in self.choices and value not in self.choices[name]:
                raise ValueError(str(unknown(name, str(value), self.choices[name], owner=self.class_name)))
            if not isinstance(default, tuple):
                continue
            several = isinstance(value, (tuple, list))
            if several and len(value) == len(default):
                continue
            shown = tuple(getattr(entry, "value", entry) for entry in value) if several else value
            sentence = f"{self.class_name}({name}={shown!r}): {name} is {len(default)} numbers, as in {default!r}."
            raise ValueError(sentence) if several else TypeError(sentence)


_METHODS: dict[str, Method] = {}


def recipe(
    name: str,
    *,
    class_name: str,
    title: str,
    family: str,
    year: int,
    source: str,
    use: str,
    avoid: str,
    lrs: tuple[float, ...],
    exceptions: Mapping[str, str] | None = None,
    space: Mapping[str, Dimension | None] | None = None,
    also: tuple[str, ...] = (),
    others: str = "",
) -> Callable[[F], F]:
    """Enter a named optimizer into the catalogue; see `Method` for the fields."""

    def register(factory: F) -> F:
        if name in _METHODS:
            raise ValueError(f'there are two optimizers named "{name}"; give one another name.')
        _METHODS[name] = Method(
            name,
            class_name,
            title,
            family,
            year,
            source,
            use,
            avoid,
            lrs,
            factory,
            exceptions or {},
            space or {},
            also,
            others,
        )
        return factory

    return register


def method(name: str) -> Method:
    """Return a named optimizer's entry.

    Raises:
        TypeError: for what is no text.
        UsageError: for a name that is not in the catalogue, with the nearest that are.
    """
    if not isinstance(name, str):
        raise TypeError(f'{name!r} is no name: write "adamw", or call the class itself.')
    found = _METHODS.get(name.lower())
    if found is None:
        known = called(name)
        if known:
            raise UsageError(f'no optimizer "{name}": it is called {" or ".join(known)} here.')
        raise unknown("optimizer", name, _METHODS, "`slalom list` shows all.")
    return found


def called(word: str) -> list[str]:
    """Return the names of the methods that are known by another one too, or by the name of their class."""
    asked = _plain(word)
    return sorted(
        name
        for name, entry in _METHODS.items()
        if asked in (_plain(name), _plain(entry.class_name), *map(_plain, entry.also))
    )


def _plain(word: str) -> str:
    return "".join(char for char in word.lower() if char.isalnum())


def list_optimizers(pattern: str | None = None) -> list[str]:
    """Return the names in the catalogue, sorted.

    Args:
        pattern: shell-style, such as ``"adam*"``; a plain word matches anywhere in the name or the family.
    """
    names = sorted(_METHODS)
    if pattern is None:
        return names
    glob = pattern.lower()
    if any(char in glob for char in "*?["):
        return [name for name in names if fnmatch.fnmatchcase(name, glob)]
    known = called(pattern)
    return [name for name in names if glob in name or glob == _METHODS[name].family or name in known]
