"""What an optimizer object is made from: a named method, a recipe, or recipes by role, behind one face.

A blueprint turns the values in a parameter group into a recipe whose numbers stay live: each becomes a
`Hyper`, a name that is looked up at every step, so a schedule changes numbers and never structure.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeGuard

import torch

from slalom.algebra import Hyper
from slalom.recipes.recipe import ByRole, Recipe
from slalom.recipes.registry import Method
from slalom.roles import ROLES

Asked = dict[tuple[str, int | None], bool]


@dataclass(frozen=True)
class Blueprint:
    """Where recipes come from.

    Args:
        origin: a method of the catalogue, a recipe, or recipes by role.
    """

    origin: Method | Recipe | ByRole

    @functools.cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        return {}

    @functools.cached_property
    def by_role(self) -> bool:
        """Whether different roles get different recipes."""
        if isinstance(self.origin, Method):
            return isinstance(self.origin.recipe(), ByRole)
        return isinstance(self.origin, ByRole)

    @functools.cached_property
    def rates(self) -> dict[str, str]:
        """Which argument is the learning rate of each role, where it is not ``lr``.

        A group of such a role keeps that rate under ``lr``, where schedulers look for it.
        """
        if not (self.by_role and isinstance(self.origin, Method)):
            return {}
        symbols = {
            name: Hyper(name, value) if isinstance(value, float) else value
            for name, value in self.origin.defaults.items()
        }
        made = self.origin.recipe(**symbols)
        assert isinstance(made, ByRole)
        found: dict[str, Any] = {role: made.of(role).hyperparameters().get("lr") for role in ROLES}
        found["rest"] = made.rest.hyperparameters().get("lr")
        return {role: lr.name for role, lr in found.items() if isinstance(lr, Hyper) and lr.name != "lr"}

    def defaults(self, role: str = "rest") -> dict[str, Any]:
        """Return what a parameter group of this role holds, by name."""
        if isinstance(self.origin, Method):
            return self.origin.defaults
        if role not in self._known:
            recipe = self.origin.of(role) if isinstance(self.origin, ByRole) else self.origin
            self._known[role] = dict(recipe.hyperparameters())
        return self._known[role]

    def recipe(self, values: Mapping[str, Any], role: str = "rest") -> Recipe:
        """Return the recipe of a role with these values, which may be numbers or symbols."""
        if isinstance(self.origin, Method):
            made = self.origin.recipe(**values)
            return made.of(role) if isinstance(made, ByRole) else made
        recipe = self.origin.of(role) if isinstance(self.origin, ByRole) else self.origin
        return recipe.with_hyperparameters(values)

    def live(self, group: Mapping[str, Any], role: str = "rest", asked: Asked | None = None) -> dict[str, Any]:
        """Return the group's values with every number as a symbol that stands for it."""
        symbols: dict[str, Any] = {}
        rate = self.rates.get(role)
        for name, default in self.defaults(role).items():
            value = group.get(name, default)
            if name == rate:
                value = group.get("lr", default)
                symbols[name] = Hyper("lr", _traced(value, "lr"), whole=value, asked=asked)
            elif isinstance(default, tuple) and isinstance(value, (tuple, list)):
                symbols[name] = tuple(
                    Hyper(name, _traced(entry, name), index=place, whole=tuple(value), asked=asked)
                    for place, entry in enumerate(value)
                )
            elif isinstance(default, float) and not isinstance(value, bool) and value is not None:
                symbols[name] = Hyper(name, _traced(value, name), whole=value, asked=asked)
            else:
                symbols[name] = value
        return symbols

    def structure(self, group: Mapping[str, Any], role: str = "rest") -> tuple[Any, ...]:
        """Return the values that are no numbers: a change of these changes the recipe itself."""
        return tuple(
            group.get(name, default)
            for name, default in self.defaults(role).items()
            if not isinstance(default, (float, tuple))
        )


def number(value: Any, name: str) -> float:
    """Read a hyper-parameter: a number, NumPy's too, or a tensor with one element."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} is a tensor of shape {tuple(value.shape)}: it must be one number.")
        return float(value)
    if isinstance(value, Real):
        return float(value)
    # YAML reads 1e-3 as text: its numbers have a point
    hint = f" Write float({value!r})." if isinstance(value, str) and _reads_as_number(value) else ""
    raise TypeError(f"{name}={value!r}: it must be a number.{hint}")


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def numbers(group: Mapping[str, Any]) -> dict[tuple[str, int | None], Any]:
    """Return every number that a parameter group holds, by name and place; those on a GPU stay there."""
    found: dict[tuple[str, int | None], Any] = {}
    for name, value in group.items():
        entries = enumerate(value) if isinstance(value, (tuple, list)) else [(None, value)]
        if name not in ("params", "param_names", "blocks"):
            for place, entry in entries:
                if isinstance(entry, (int, float, torch.Tensor, Real)):  # the usual ones first
                    found[name, place] = entry.detach() if _waits(entry) else number(entry, name)
    return found


def is_zero(value: Any) -> bool:
    """Whether a number is zero, which may change what a recipe computes; one on a GPU never counts as that."""
    return not _waits(value) and not value


def _traced(value: Any, name: str) -> float:
    """Return the number that a recipe is built with."""
    return number(value, name) or float(_waits(value))


def _waits(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether reading a number means to wait for a GPU."""
    return isinstance(value, torch.Tensor) and value.device.type != "cpu" and value.numel() == 1
