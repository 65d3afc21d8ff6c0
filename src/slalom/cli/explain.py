"""`slalom explain`: one recipe, so that it can be learned from the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def explain(
    recipe: Annotated[str, typer.Argument(help="an optimizer's name, or a recipe file (.toml)")],
    as_json: Annotated[bool, typer.Option("--json", help="print data, with the formulas in LaTeX too")] = False,
    parts: Annotated[
        list[Path] | None, typer.Option(help="a Python file that defines parts of your own; may be repeated")
    ] = None,
) -> None:
    """Show a recipe: the formula slot by slot, its state, its memory traffic, its source."""
    from rich.console import Console

    from slalom import describe
    from slalom.cli.files import load_parts, read_recipe
    from slalom.recipes import method

    load_parts(parts or [])
    console = Console(highlight=False)
    width = max(60, min(console.width, 110))
    if recipe.endswith(".toml"):
        chosen, entry = read_recipe(recipe), None
        screen = f"{Path(recipe).stem}   a recipe of your own\n\n" + describe.describe_recipe(chosen, width)
    else:
        entry = method(recipe)
        chosen = describe.symbolic(entry)
        screen = describe.describe_method(recipe, width)
    if as_json:
        print(json.dumps(describe.as_json(chosen, entry), indent=2, ensure_ascii=False))
        return
    head, _, rest = screen.partition("\n")
    console.print(head, style="bold", markup=False)
    console.print(rest, markup=False, soft_wrap=True)
