"""Recipes as TOML and back. Data only: a file names parts, it never imports or runs anything."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from typing import Any

from slalom.errors import UsageError, unknown
from slalom.parts import Part, part_classes
from slalom.recipes.recipe import ByRole, Recipe
from slalom.recipes.registry import method

_HINT = "Import the module that defines it first, if it is your own."


def to_toml(recipe: Recipe | ByRole) -> str:
    """Write a recipe, or recipes by role, as TOML."""
    if isinstance(recipe, ByRole):
        table: dict[str, Any] = {"role": {name: _recipe_table(entry) for name, entry in recipe.recipes().items()}}
    else:
        table = _recipe_table(recipe)
    if recipe.schedule:
        table["schedule"] = {**recipe.schedule}
    return "\n".join(_lines(table, "")).strip() + "\n"


def from_toml(text: str) -> Recipe | ByRole:
    """Read what `to_toml` wrote, or ``recipe = "name"`` followed by that optimizer's arguments.

    Either may be followed by a table ``[schedule]``, ``lr = "warmup 5%, cosine"``: see `slalom.schedules.from_toml`.

    Raises:
        UsageError: if the text is not TOML, or names a recipe, slot, part or argument that does not exist.
        ValueError: if a number is out of its range.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not a recipe: the text is no valid TOML ({error}).") from None
    schedule = table.pop("schedule", {})
    if not isinstance(schedule, dict):
        raise UsageError(f'schedule = {schedule!r}: make it a table, [schedule], with lines as lr = "cosine 1000".')
    read = _read_any(table)
    return dataclasses.replace(read, schedule=schedule) if schedule else read


def _read_any(table: dict[str, Any]) -> Recipe | ByRole:
    if "role" in table:
        recipes: dict[str, Any] = {role: _read_recipe(entry) for role, entry in table["role"].items()}
        return ByRole(**recipes)
    if "recipe" in table:
        name = str(table.pop("recipe"))
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
        return method(name).recipe(**arguments)
    return _read_recipe(table)


def _recipe_table(recipe: Recipe) -> dict[str, Any]:
    table: dict[str, Any] = {"order": list(recipe.order)} if recipe.order != recipe.natural_order() else {}
    for entry in dataclasses.fields(Recipe):
        value = getattr(recipe, entry.name)
        if value is not None and entry.name not in ("order", "schedule"):
            table[entry.name] = [_table(part) for part in value] if isinstance(value, tuple) else _table(value)
    return table


def _table(part: Part) -> dict[str, Any]:
    table: dict[str, Any] = {"part": part.part_name()}
    for entry in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, entry.name)
        if isinstance(value, Recipe):
            table[entry.name] = _recipe_table(value)
        else:
            table[entry.name] = _table(value) if isinstance(value, Part) else value
    return table


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(
        f"{value!r} cannot be written to a recipe file: hyper-parameters are numbers, strings and booleans."
    )


def _lines(table: dict[str, Any], path: str) -> list[str]:
    nested = {key: value for key, value in table.items() if isinstance(value, dict)}
    repeated = {
        key: value for key, value in table.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    plain = [key for key in table if key not in nested and key not in repeated]
    lines = [f"{_key(key)} = {_value(table[key])}" for key in plain]
    for key, value in nested.items():
        inside = f"{path}{_key(key)}"
        header = [f"\n[{inside}]"] if any(not isinstance(item, dict) for item in value.values()) else []
        lines += [*header, *_lines(value, f"{inside}.")]
    for key, values in repeated.items():
        for value in values:
            lines += [f"\n[[{path}{key}]]", *_lines(value, f"{path}{key}.")]
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'


def _read_recipe(table: dict[str, Any]) -> Recipe:
    known = [entry.name for entry in dataclasses.fields(Recipe) if entry.name != "schedule"]
    slots: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise unknown("slot", key, known)
        if key == "order":
            slots[key] = tuple(value)
        else:
            slots[key] = tuple(_read_part(entry) for entry in value) if isinstance(value, list) else _read_part(value)
    return Recipe(**slots)


def _read_part(table: Any) -> Any:
    if not isinstance(table, dict):
        return table
    if "part" not in table:
        return _read_recipe(table)
    classes = part_classes()
    name = table["part"]
    if name not in classes:
        raise unknown("part", name, classes, _HINT)
    fields = [entry.name for entry in dataclasses.fields(classes[name])]  # type: ignore[arg-type]
    arguments = {key: value for key, value in table.items() if key != "part"}
    for key in arguments:
        if key not in fields:
            raise unknown("argument", key, fields, owner=f"part {name}")
    return classes[name](**{key: _read_part(value) for key, value in arguments.items()})
