"""What `slalom explain` and ``print(optimizer)`` show, and the same facts for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from slalom.describe.formulas import formula_lines
from slalom.describe.rows import extents, formula_rows, lesson_rows, wrapped
from slalom.describe.sheets import Sheet, sheets, symbolic
from slalom.engine import Blocks, in_words, pieces
from slalom.memory import state_bytes
from slalom.optimizer import Optimizer
from slalom.optimizer.loading import KEPT
from slalom.recipes import ByRole, Method, Recipe
from slalom.roles import Role, assign_roles, blocks_of, label, with_blocks


def describe_method(
    entry: Method, arguments: Mapping[str, Any] | None = None, width: int = 100, *, plan: bool = False
) -> str:
    """Write everything about a named optimizer, with some of its arguments given."""
    body = "\n\n".join(describe_sheet(one, width, plan=plan) for one in sheets(symbolic(entry, arguments)))
    head = f"{entry.class_name}   {entry.title}"
    rows = [*wrapped("", head, width), *wrapped("  ", entry.source, width), "", body]
    rows += wrapped(f"  {'use':<12}", entry.use, width) + wrapped(f"  {'avoid':<12}", entry.avoid, width)
    rows += wrapped(f"  {'also':<12}", ", ".join(entry.also), width) if entry.also else []
    rows += wrapped(f"  {'not':<12}", entry.others, width) if entry.others else []
    values = {**entry.defaults, **(arguments or {})}
    defaults = ", ".join(f"{key}={value!r}" for key, value in values.items())
    rows += ["", *wrapped("  ", f"slalom.{entry.class_name}(params, {defaults})", width)]
    return "\n".join(rows)


def describe_recipe(recipe: Recipe | ByRole, width: int = 100, *, plan: bool = False) -> str:
    """Write a recipe's formula, state and traffic, and the schedule that goes with it."""
    body = "\n\n".join(describe_sheet(one, width, plan=plan) for one in sheets(recipe))
    moved = [f"{name}: {_told(entry)}" for name, entry in recipe.schedule.items()]
    rows = [
        row for place, one in enumerate(moved) for row in wrapped(f"  {'' if place else 'schedule':<12}", one, width)
    ]
    return "\n".join([body, *rows])


def describe_sheet(entry: Sheet, width: int = 100, *, plan: bool = False) -> str:
    """Write a sheet as aligned lines, without a heading; ``plan`` adds what each pass does."""
    rows = [f"  for {entry.role.replace('rest', 'everything else')}", ""] if entry.role else []
    rows += formula_rows(entry.lines, "  ", width)
    for lesson in entry.lessons:
        rows += ["", *lesson_rows(lesson, width)]
    rows += [
        "",
        *wrapped(
            f"  {'state':<12}",
            f"{_bytes(entry.state)} per parameter: {extents(entry.kept)}" if entry.kept else "none",
            width,
        ),
        *wrapped(f"  {'moves':<12}", f"{_bytes(entry.moved)} per parameter and step", width),
        *wrapped(f"  {'runs as':<12}", entry.executor, width),
    ]
    if plan:
        for place, one in enumerate(entry.passes, 1):
            rows += wrapped(f"  {f'pass {place}':<12}", one, width)
    return "\n".join(rows)


def as_json(recipe: Recipe | ByRole, entry: Method | None = None) -> dict[str, Any]:
    """Return the same facts as data."""
    facts: dict[str, Any] = {}
    if entry is not None:
        names = ("name", "class_name", "title", "family", "year", "source", "use", "avoid", "lrs", "also", "others")
        facts = {name: getattr(entry, name) for name in names} | {"defaults": entry.defaults}
    moved = {"schedule": dict(recipe.schedule)} if recipe.schedule else {}
    return facts | {"recipes": [asdict(one) for one in sheets(recipe)]} | moved


def describe_roles(
    model: nn.Module,
    recipe: Recipe | ByRole,
    roles: Mapping[str, Role] | None = None,
    blocks: Mapping[str, Blocks] | None = None,
) -> str:
    """Write which parameter of a model plays which role, why, and which recipe that gives it.

    Args:
        model: the network.
        recipe: what it would be trained by.
        roles: by name pattern, over what the model's layers say.
        blocks: what parameters are cut into, by name pattern.
    """
    found = assign_roles(model, roles, blocks)
    cut = with_blocks({"params": [(entry.name, entry.parameter) for entry in found]}, blocks or {}).get("blocks", {})
    rows = [("parameter", "shape", "role", "because it is", "recipe")]
    for at, entry in enumerate(found):
        shape = tuple(entry.parameter.shape)
        size = in_words(shape, cut[at]) if at in cut else " x ".join(map(str, shape)) or "one"
        given = (
            "the one"
            if isinstance(recipe, Recipe)
            else (entry.role if entry.role in recipe.recipes() else "everything else")
        )
        why = f"{entry.why} (a guess)" if entry.guessed else entry.why
        rows.append((entry.name, size, entry.role, why, given))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def describe_optimizer(optimizer: Optimizer) -> str:
    """Write what an optimizer runs on what: formula, groups, bytes."""
    rows = [type(optimizer).__name__]
    shown: dict[str, int] = {}
    total = 0
    for place, group in enumerate(optimizer.param_groups):
        count = sum(parameter.numel() for parameter in group["params"])
        total += count
        role = f" {group['role']}" if "role" in group else ""
        tensors = f"{len(group['params'])} tensor{'s' * (len(group['params']) != 1)}"
        rows.append(f"  group {place}{role}: {tensors}, {count:,} parameters, lr {float(group['lr']):g}")
        for at, blocks in group.get("blocks", {}).items():
            rows.append(f"    {label(group, at)} as {in_words(tuple(group['params'][at].shape), blocks)}")
        lines = formula_lines(optimizer.recipe(group), _typical_ndim(group))
        formula = "\n".join(formula_rows(lines, "    ", 110))
        first = shown.setdefault(formula, place)
        rows.append(formula if first == place else f"    as group {first}")
    rows.append(f"  state: {state_bytes(optimizer):,} bytes for {total:,} parameters")
    held = [state[KEPT] for state in optimizer.state.values() if KEPT in state]
    if held:
        more = sum(tensor.numel() * tensor.element_size() for tensor in held)
        rows.append(f"  eval mode: {more:,} bytes more, the parameters that training goes on from")
    return "\n".join(rows)


def _typical_ndim(group: dict[str, Any]) -> int:
    seen = [pieces(parameter, blocks_of(group, parameter))[0].ndim for parameter in group["params"]]
    return min(max(seen, default=2), 2)


def _told(entry: str | Mapping[str, str]) -> str:
    return entry if isinstance(entry, str) else f"the values of {entry['values']}"


def _bytes(count: float) -> str:
    return f"{count:.2g} bytes" if count < 1 else f"{count:.4g} bytes"
