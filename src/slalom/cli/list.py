"""`slalom list`: the catalogue as a table."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def list_methods(
    pattern: Annotated[str | None, typer.Argument(help='A name, a family, or a pattern such as "adam*".')] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print data instead of a table.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a page for documentation, with every formula.")
    ] = False,
) -> None:
    """List the optimizers: family, year, state per parameter, what each is for."""
    from rich.console import Console
    from rich.table import Table

    from slalom.describe import by_family, bytes_per_parameter, methods_page
    from slalom.errors import UsageError, unknown
    from slalom.recipes import FAMILIES, list_optimizers

    if as_json and as_markdown:
        raise UsageError("--json and --markdown are two ways to print: give one.")
    names = list_optimizers(pattern)
    if pattern is not None and not names:
        raise unknown("optimizer", pattern, list_optimizers(), "`slalom list` shows all.")
    if as_markdown:
        print(methods_page(names), end="")
        return
    families = by_family(names)
    if as_json:
        fields = ("name", "class_name", "title", "family", "year", "source", "use", "avoid", "also", "others")
        rows = [
            {**{field: getattr(entry, field) for field in fields}, "state_bytes": bytes_per_parameter(entry)}
            for _, members in families
            for entry in members
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for place, (family, members) in enumerate(families):
        if place:
            table.add_row()
        table.add_row(f"[bold]{family}", "year", "state", f"[dim italic]{FAMILIES.get(family, '')}")
        for entry in members:
            table.add_row(f"  {entry.name}", f"[dim]{entry.year}", f"{bytes_per_parameter(entry):.3g}", entry.use)
    console = Console()
    console.print(table)
    hint = "`slalom explain NAME` shows the formula."
    console.print(f"\n[dim]state: bytes per parameter of a 1024 x 1024 matrix.  {hint}")
