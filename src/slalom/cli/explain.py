"""`slalom explain`: one recipe, so that it can be learned from the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from slalom.engine import Blocks


def explain(
    recipe: Annotated[
        str, typer.Argument(help="An optimizer, as adamw or sgd:momentum=0.9, or a recipe file (.toml).")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print data, with the formulas in LaTeX too.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what each pass over memory does.")] = False,
    source: Annotated[bool, typer.Option("--source", help="Print the C that runs it, and nothing else.")] = False,
    model: Annotated[
        str | None, typer.Option(help="FILE.py:function that returns a model: show who in it gets which recipe.")
    ] = None,
    roles: Annotated[
        list[str] | None,
        typer.Option("--role", help="PATTERN=role, over what the model's layers say; may be repeated."),
    ] = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option(help="PATTERN=3, PATTERN=64,16,16 or PATTERN=batch: parameters that are several matrices."),
    ] = None,
    parts: Annotated[
        list[Path] | None, typer.Option(help="A Python file with parts or methods of your own; may be repeated.")
    ] = None,
) -> None:
    """Show a recipe: the formula slot by slot, its state, its memory traffic, its source."""
    from rich.console import Console

    from slalom import describe
    from slalom.errors import UsageError
    from slalom.recipes.spec import parse_spec
    from slalom.userfiles import build_model, import_file, read_recipe

    for file in parts or []:
        import_file(str(file))
    if model is None and (roles or blocks):
        raise UsageError("--role and --blocks are about a model's parameters: name it with --model FILE.py:function.")
    console = Console(highlight=False)
    width = max(60, min(console.width, 110))
    if recipe.endswith(".toml"):
        chosen, entry = read_recipe(recipe)[0], None
        screen = f"{Path(recipe).stem}   a recipe of your own\n\n" + describe.describe_recipe(chosen, width, plan=plan)
    else:
        entry, arguments = parse_spec(recipe)
        chosen = describe.symbolic(entry, arguments)
        screen = describe.describe_method(entry, arguments, width, plan=plan)
    if source:
        print(describe.sources(chosen))
        return
    if as_json:
        print(json.dumps(describe.as_json(chosen, entry), indent=2, ensure_ascii=False))
        return
    if model is not None:
        declared = {pattern: _blocks(value) for pattern, value in map(_declaration, blocks or [])}
        told = dict(map(_declaration, roles or []))
        screen += "\n\n" + describe.describe_roles(build_model(model), chosen, cast("Any", told), declared)
    head, _, rest = screen.partition("\n")
    console.print(head, style="bold", markup=False)
    console.print(rest, markup=False, soft_wrap=True)


def _declaration(text: str) -> tuple[str, str]:
    """Read ``PATTERN=value``."""
    from slalom.errors import UsageError

    pattern, equals, value = text.rpartition("=")
    if not (pattern and equals and value):
        raise UsageError(f'"{text}": write PATTERN=value, such as "*.qkv.weight=3".')
    return pattern, value


def _blocks(value: str) -> Blocks:
    """Read what a parameter is cut into; what is no number is for the model's check to judge."""
    rows = value.split(",")
    if not all(row.strip().isdigit() for row in rows):
        return cast("Blocks", value)
    return int(value) if len(rows) == 1 else tuple(map(int, rows))
