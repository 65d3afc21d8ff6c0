"""Recipes in words: the formula slot by slot, the state, the traffic. One description, printed by all who need it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slalom.algebra import MATRIX, Expr, Hyper, State
from slalom.engine import (
    Blocks,
    Phases,
    Program,
    UnplannableError,
    in_words,
    kept_bytes,
    needs_phases,
    phased,
    pieces,
    planned,
    trace,
)
from slalom.engine.emit import emit
from slalom.engine.plan import Stage
from slalom.formulas import Line, formula_lines, signals
from slalom.groups import label
from slalom.loading import KEPT
from slalom.parts import Part
from slalom.recipes import ByRole, Method, Recipe
from slalom.recipes.blueprint import Blueprint
from slalom.roles import Role, assign_roles
from slalom.routing import blocks_of, with_blocks

if TYPE_CHECKING:
    from slalom.optimizer import Optimizer

_NUMBERS = re.compile(r"\d+(\.\d+)?(e-?\d+)?")
_SIZE = 1024  # costs per parameter are those of a square matrix of this width


@dataclass(frozen=True)
class Sheet:
    """All there is to say of one recipe.

    Attributes:
        role: the parameters it is for, "" if for all.
        lines: the formula, slot by slot.
        state: bytes of state per parameter of a 1024 x 1024 matrix in float32.
        kept: what is kept, by key, with its extent.
        moved: bytes that must be read or written per parameter and step, at the least.
        lessons: why the formula is what it is, where a part says so.
        reduces: what must be known of a whole tensor, group or model before the step can go on.
    """

    role: str
    lines: tuple[Line, ...]
    state: float
    kept: dict[str, str]
    moved: float
    executor: str
    passes: tuple[str, ...]
    lessons: tuple[str, ...]


def _shortened(lines: Iterable[Line]) -> list[Line]:
    """Show the first and the last only of three or more groups of lines that differ in nothing but numbers."""
    left, kept = list(lines), []
    while left:
        counts = {size: _repeats(left, size) for size in range(1, len(left) // 3 + 1)}
        size = max((size for size, count in counts.items() if count > 2), key=lambda n: n * counts[n], default=0)
        if size:
            whole = size * counts[size]
            more = Line(left[0].slot, f"⋮  {counts[size] - 2} more", "")
            kept += [*left[:size], more, *left[whole - size : whole]]
            del left[:whole]
        else:
            kept.append(left.pop(0))
    return kept


def _repeats(lines: Sequence[Line], size: int) -> int:
    """Return how many groups of so many lines follow each other that differ in numbers alone."""
    forms = [(line.slot, _NUMBERS.sub("0", line.text)) for line in lines]
    count = 1
    while forms[size * count : size * (count + 1)] == forms[:size]:
        count += 1
    return count


def _extents(kept: Mapping[str, str]) -> str:
    """Write what is kept per what, states that are counted as one."""
    counted: dict[tuple[str, str], list[str]] = {}
    for key, extent in kept.items():
        counted.setdefault((key.rstrip("0123456789"), extent), []).append(key)
    words = []
    for (stem, extent), keys in counted.items():
        few = len(keys) < 3
        through = ", ".join(keys) if few else f"{keys[0]} to {stem.rpartition('.')[2]}{keys[-1].removeprefix(stem)}"
        words.append(f"{through} per {extent}")
    return ", ".join(words)


def _formula_rows(lines: Iterable[Line], indent: str, width: int) -> list[str]:
    """Align formulas behind the names of their slots, each name once."""
    rows: list[str] = []
    last = ""
    for line in _shortened(lines):
        label = "" if line.slot == last else line.slot
        rows += _wrapped(f"{indent}{label:<12}", line.text, width)
        last = line.slot
    return rows


def _program(recipe: Recipe, ndim: int) -> Program:
    return trace(lambda given, store: recipe.run(signals(ndim, given), store))


def sheet(recipe: Recipe, role: str = "") -> Sheet:
    """Describe one recipe, as it runs on a matrix, or on a vector where the role says so."""
    ndim = {"vector": 1, "scalar": 0}.get(role, 2)
    program = _program(recipe, ndim)
    shape = (_SIZE, _SIZE) if ndim == 2 else (_SIZE * _SIZE,)
    example = torch.empty(shape, device="meta")
    bytes_of = {key: kept_bytes(slot, example) for key, slot in program.states.items()}
    moved = _least_traffic(program, bytes_of, example.numel())
    try:
        if needs_phases(program):
            passes = _phases(phased(program))
            fused = sum(not one.startswith("torch") for one in passes)
            executor = f"{_compiled(fused)} around stacked products of matrices in torch"
        else:
            plan = planned(program)
            passes = tuple(_pass(stage) for stage in plan.stages)
            executor, moved = _compiled(len(passes)), float(plan.moved)
    except UnplannableError as reason:
        passes, executor = (), f"torch, operation by operation ({reason})"
    return Sheet(
        role=role,
        lines=tuple(formula_lines(recipe, ndim)),
        state=sum(bytes_of.values()) / example.numel(),
        kept={key: _extent(slot) for key, slot in program.states.items()},
        moved=moved,
        executor=executor,
        passes=passes,
        lessons=tuple(dict.fromkeys(_lessons(recipe))),
    )


def _extent(slot: State) -> str:
    """Say what a state has one value for."""
    return slot.per + " of each block" * bool(slot.block) + " in float64" * (slot.format == "double")


def _lessons(node: Any) -> Iterator[str]:
    """Yield what the parts of a recipe teach, the outermost first."""
    if isinstance(node, Part) and node.lesson:
        yield node.lesson
    if isinstance(node, (Part, Recipe)):
        for entry in fields(node):  # type: ignore[arg-type]
            value = getattr(node, entry.name)
            for child in value if isinstance(value, tuple) else (value,):
                yield from _lessons(child)


def _least_traffic(program: Program, bytes_of: dict[str, int], elements: int) -> float:
    """Return the bytes per parameter that must be read or written however the work is cut."""
    reads = {
        node.attrs.get("key", node.attrs["name"])
        for node in program.nodes
        if node.op in ("input", "state") and not node.host
    }
    own = 4 * elements * (1 + len(reads & {"w", "g"}))
    return (
        own + sum(bytes_of[key] for key in reads & set(bytes_of)) + sum(map(bytes_of.__getitem__, program.writes))
    ) / elements


def _compiled(passes: int) -> str:
    return "one compiled pass" if passes == 1 else f"{passes} compiled passes"


def _phases(found: Phases) -> tuple[str, ...]:
    """Say what the phases do, in order: passes over memory, and what torch computes between them."""
    said: list[str] = []
    for phase in found.phases:
        if phase.kind == "fused":
            said += [_pass(stage) for stage in planned(phase.program).stages]
        else:
            names = [node.op for node in phase.program.nodes if node.op in MATRIX and node.op != "transpose"]
            counted = [f"{names.count(name)} {name}" for name in dict.fromkeys(names)]
            said.append(f"torch, on stacks of equal matrices: {', '.join(counted)}")
    return tuple(said)


def _pass(stage: Stage) -> str:
    """Say what one pass over memory does."""
    facts = [f"reads {', '.join(sorted(stage.loads))}"]
    if stage.stores:
        facts.append(f"writes {', '.join(sorted(stage.stores))}")
    kinds = [(node.op, node.attrs["per"]) for node in stage.reductions]
    for kind in dict.fromkeys(kinds):
        count, word = kinds.count(kind), "sum" if kind[0] == "total" else "maximum"
        facts.append(f"leaves {count} {word}{'s' if count > 1 else ''} per {kind[1]}")
    return f"{len(stage.values)} operations; {'; '.join(facts)}"


def sources(recipe: Recipe | ByRole) -> str:
    """Return the C that would run the recipe on float32 matrices."""
    chosen = [recipe] if isinstance(recipe, Recipe) else [entry for entry, _ in _distinct(recipe)]
    written = []
    for one in chosen:
        try:
            program = _program(_lifted(one), 2)
            phases = phased(program).phases if needs_phases(program) else ()
            fused = [phase.program for phase in phases if phase.kind == "fused"] or [program]
            written += [emit(planned(part), "float32").strip() for part in fused]
        except UnplannableError as reason:
            written.append(f"/* no C: {reason} */")
    return "\n\n".join(written)


def symbolic(entry: Method, arguments: Mapping[str, Any] | None = None) -> Recipe | ByRole:
    """Return a method's recipe with its hyper-parameters as symbols that carry the values given, or their defaults."""
    return entry.recipe(**Blueprint(entry).live({**entry.defaults, **(arguments or {})}))


def sheets(recipe: Recipe | ByRole) -> list[Sheet]:
    """Describe a recipe, or each of several by role."""
    if isinstance(recipe, Recipe):
        return [sheet(_lifted(recipe))]
    return [sheet(_lifted(entry), ", ".join(roles)) for entry, roles in _distinct(recipe)]


def _distinct(recipe: ByRole) -> list[tuple[Recipe, list[str]]]:
    """Return each recipe once, with the roles it is for."""
    merged: dict[int, tuple[Recipe, list[str]]] = {}
    for role, entry in recipe.recipes().items():
        merged.setdefault(id(entry), (entry, []))[1].append(role)
    return list(merged.values())


def _lifted(recipe: Recipe) -> Recipe:
    """Return a recipe whose numbers are symbols; one of the catalogue has them already."""
    numbers = recipe.hyperparameters()
    if any(isinstance(value, Expr) for value in numbers.values()):
        return recipe
    return recipe.with_hyperparameters({name: Hyper(name, value) for name, value in numbers.items()})


def state_bytes(entry: Method) -> float:
    """Return a method's bytes of state per parameter of a large matrix (for recipes by role: of its matrices)."""
    return sheets(symbolic(entry))[0].state


def _wrapped(prefix: str, body: str, width: int) -> list[str]:
    words, rows, row = body.split(" "), [], ""
    for word in words:
        if row and len(prefix) + len(row) + 1 + len(word) > width:
            rows.append(row)
            row = word
        else:
            row = f"{row} {word}" if row else word
    rows.append(row)
    return [prefix + rows[0], *(" " * len(prefix) + row for row in rows[1:])]


def _lesson_rows(lesson: str, width: int) -> list[str]:
    """Lay out a lesson, whose lines keep their indentation."""
    rows = []
    for place, line in enumerate(lesson.split("\n")):
        body = line.lstrip()
        label = "why" if place == 0 else ""
        rows += _wrapped(f"  {label:<12}" + " " * (len(line) - len(body)), body, width)
    return [row.rstrip() for row in rows]


def describe_sheet(entry: Sheet, width: int = 100, *, plan: bool = False) -> str:
    """Write a sheet as aligned lines, without a heading; ``plan`` adds what each pass does."""
    rows = [f"  for {entry.role.replace('rest', 'everything else')}", ""] if entry.role else []
    rows += _formula_rows(entry.lines, "  ", width)
    for lesson in entry.lessons:
        rows += ["", *_lesson_rows(lesson, width)]
    rows += [
        "",
        *_wrapped(
            f"  {'state':<12}",
            f"{_bytes(entry.state)} per parameter: {_extents(entry.kept)}" if entry.kept else "none",
            width,
        ),
        *_wrapped(f"  {'moves':<12}", f"{_bytes(entry.moved)} per parameter and step", width),
        *_wrapped(f"  {'runs as':<12}", entry.executor, width),
    ]
    if plan:
        for place, one in enumerate(entry.passes, 1):
            rows += _wrapped(f"  {f'pass {place}':<12}", one, width)
    return "\n".join(rows)


def _bytes(count: float) -> str:
    return f"{count:.2g} bytes" if count < 1 else f"{count:.4g} bytes"


def describe_method(
    entry: Method, arguments: Mapping[str, Any] | None = None, width: int = 100, *, plan: bool = False
) -> str:
    """Write everything about a named optimizer, with some of its arguments given."""
    body = "\n\n".join(describe_sheet(one, width, plan=plan) for one in sheets(symbolic(entry, arguments)))
    head = f"{entry.class_name}   {entry.title}"
    rows = [*_wrapped("", head, width), *_wrapped("  ", entry.source, width), "", body]
    rows += _wrapped(f"  {'use':<12}", entry.use, width) + _wrapped(f"  {'avoid':<12}", entry.avoid, width)
    values = {**entry.defaults, **(arguments or {})}
    defaults = ", ".join(f"{key}={value!r}" for key, value in values.items())
    rows += ["", *_wrapped("  ", f"slalom.{entry.class_name}(params, {defaults})", width)]
    return "\n".join(rows)


def describe_recipe(recipe: Recipe | ByRole, width: int = 100, *, plan: bool = False) -> str:
    """Write a recipe's formula, state and traffic, and the schedule that goes with it."""
    body = "\n\n".join(describe_sheet(one, width, plan=plan) for one in sheets(recipe))
    moved = [f"{name}: {_told(entry)}" for name, entry in recipe.schedule.items()]
    rows = [
        row for place, one in enumerate(moved) for row in _wrapped(f"  {'' if place else 'schedule':<12}", one, width)
    ]
    return "\n".join([body, *rows])


def _told(entry: str | Mapping[str, str]) -> str:
    return entry if isinstance(entry, str) else f"the values of {entry['values']}"


def as_json(recipe: Recipe | ByRole, entry: Method | None = None) -> dict[str, Any]:
    """Return the same facts as data."""
    facts: dict[str, Any] = {}
    if entry is not None:
        names = ("name", "class_name", "title", "family", "year", "source", "use", "avoid", "lrs")
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
    from slalom.memory import state_bytes  # which counts any optimizer, and so knows them all

    rows = [type(optimizer).__name__]
    shown: set[str] = set()
    total = 0
    for place, group in enumerate(optimizer.param_groups):
        count = sum(parameter.numel() for parameter in group["params"])
        total += count
        role = f" {group['role']}" if "role" in group else ""
        rows.append(
            f"  group {place}{role}: {len(group['params'])} tensors, {count:,} parameters, lr {float(group['lr']):g}"
        )
        for at, blocks in group.get("blocks", {}).items():
            rows.append(f"    {label(group, at)} as {in_words(tuple(group['params'][at].shape), blocks)}")
        lines = formula_lines(optimizer.recipe(group), _typical_ndim(group))
        formula = "\n".join(_formula_rows(lines, "    ", 110))
        if formula not in shown:
            rows.append(formula)
            shown.add(formula)
    rows.append(f"  state: {state_bytes(optimizer):,} bytes for {total:,} parameters")
    held = [state[KEPT] for state in optimizer.state.values() if KEPT in state]
    if held:
        more = sum(tensor.numel() * tensor.element_size() for tensor in held)
        rows.append(f"  eval mode: {more:,} bytes more, the parameters that training goes on from")
    return "\n".join(rows)


def _typical_ndim(group: dict[str, Any]) -> int:
    seen = [pieces(parameter, blocks_of(group, parameter))[0].ndim for parameter in group["params"]]
    return min(max(seen, default=2), 2)
