"""`slalom check`: the conformance kit, as a matrix of contracts and optimizers."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slalom.errors import UsageError

if TYPE_CHECKING:
    from slalom.testing import Report


def check(
    optimizers: Annotated[
        list[str],
        typer.Argument(metavar="NAME|module:Class", help="ours by name, anybody's as torch.optim:AdamW"),
    ],
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", help="a contract that is not promised; may be repeated")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print data instead of a matrix")] = False,
) -> None:
    """Run the contracts that PyTorch and its ecosystem expect against any optimizer."""
    from slalom.testing import check_optimizer

    reports = [
        check_optimizer(_factory(word), label=word, leave_out=[*(leave_out or []), *_exceptions(word)])
        for word in optimizers
    ]
    if as_json:
        print(
            json.dumps({r.label: {x.contract.name: [x.verdict, x.why] for x in r.results} for r in reports}, indent=2)
        )
    else:
        _show(reports)
    if any(report.broken for report in reports):
        raise typer.Exit(1)


def _exceptions(word: str) -> list[str]:
    """Return the contracts that a method of ours says it cannot promise."""
    from slalom.recipes import method

    return [] if ":" in word else list(method(word).exceptions)


def _factory(word: str) -> Any:
    """Return the class that a word names."""
    if ":" not in word:
        from slalom.named import named_class
        from slalom.recipes import method

        return named_class(method(word).name)
    module, _, name = word.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UsageError(f'"{word}": {error}.') from None
    except AttributeError:
        raise UsageError(f'"{word}": the module {module} has no {name}.') from None


def _show(reports: list[Report]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    marks = {"holds": "ok", "broken": "[bold red]BROKEN[/]", "not promised": "–"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("contract", style="bold", no_wrap=True)
    for report in reports:
        table.add_column(report.label.rsplit(":", 1)[-1], justify="center")
    table.add_column("claim", style="dim")
    for row in zip(*(report.results for report in reports), strict=True):
        table.add_row(row[0].contract.name, *(marks[result.verdict] for result in row), row[0].contract.claim)
    console = Console()
    console.print(table)
    for report in reports:
        for result in report.broken:
            console.print(f"{report.label}  {result.contract.name}: {result.why}", markup=False, highlight=False)
