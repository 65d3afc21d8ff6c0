"""`slalom list`: the catalogue as a table."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def list_methods(
    pattern: Annotated[str | None, typer.Argument(help='a name, a family, or a pattern such as "adam*"')] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print data instead of a table")] = False,
) -> None:
    """List the optimizers: family, year, state per parameter, what each is for."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from slalom.describe import state_bytes
    from slalom.errors import unknown
    from slalom.recipes import list_optimizers, method

    names = list_optimizers(pattern)
    if pattern is not None and not names:
        raise unknown("optimizer", pattern, list_optimizers(), "`slalom list` shows all.")
    entries = sorted((method(name) for name in names), key=lambda entry: (entry.family, entry.year, entry.name))
    if as_json:
        fields = ("name", "class_name", "title", "family", "year", "source", "use", "avoid")
        rows = [
            {**{field: getattr(entry, field) for field in fields}, "state_bytes": state_bytes(entry)}
            for entry in entries
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="state: bytes per parameter of a 1024 x 1024 matrix")
    table.add_column("family", style="dim")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("year", justify="right")
    table.add_column("state", justify="right")
    table.add_column("use it for")
    family = ""
    for entry in entries:
        shown = entry.family if entry.family != family else ""
        table.add_row(shown, entry.name, str(entry.year), f"{state_bytes(entry):.3g}", entry.use)
        family = entry.family
    Console().print(table)
