"""All there is to say of a recipe, as data: formula, state, traffic, passes. One description for all who need one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from slalom.algebra import MATRIX, Expr, Hyper, State
from slalom.describe.formulas import Line, formula_lines, symbols
from slalom.engine import Phases, Program, UnplannableError, kept_bytes, needs_phases, phased, planned, trace
from slalom.engine.native.emit import emit
from slalom.engine.plan import Stage
from slalom.parts import Part
from slalom.recipes import ByRole, Method, Recipe
from slalom.recipes.blueprint import Blueprint

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
        executor: what runs it on a CPU with a compiler.
        passes: what each pass over memory does, in order.
        lessons: why the formula is what it is, where a part says so.
    """

    role: str
    lines: tuple[Line, ...]
    state: float
    kept: dict[str, str]
    moved: float
    executor: str
    passes: tuple[str, ...]
    lessons: tuple[str, ...]


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


def sheets(recipe: Recipe | ByRole) -> list[Sheet]:
    """Describe a recipe, or each of several by role."""
    if isinstance(recipe, Recipe):
        return [sheet(_lifted(recipe))]
    return [sheet(_lifted(entry), ", ".join(roles)) for entry, roles in _distinct(recipe)]


def symbolic(entry: Method, arguments: Mapping[str, Any] | None = None) -> Recipe | ByRole:
    """Return a method's recipe with its hyper-parameters as symbols that carry the values given, or their defaults."""
    return entry.recipe(**Blueprint(entry).live({**entry.defaults, **(arguments or {})}))


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


def bytes_per_parameter(entry: Method) -> float:
    """Return a method's bytes of state per parameter of a large matrix (for recipes by role: of its matrices)."""
    return sheets(symbolic(entry))[0].state


def _program(recipe: Recipe, ndim: int) -> Program:
    return trace(lambda given, store: recipe.run(symbols(ndim, given), store))


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
