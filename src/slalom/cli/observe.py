"""`slalom observe`: what is wrong with a training run, from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from slalom.errors import UsageError, reason


def observe(
    log: Annotated[Path, typer.Argument(help="The log of a run: slalom.observe.watch(model, optimizer, log=...).")],
    at: Annotated[int | None, typer.Option(min=1, help="As it was after this step, not at the end.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="List all parameters, not the largest only.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write the picture of the loss into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print data instead of a screen.")] = False,
) -> None:
    """Say what is wrong with a training run, what shows it and what to do. The run may still be going on."""
    from rich.console import Console

    from slalom import pictures
    from slalom.observe import read_log
    from slalom.observe.report import Report

    run = read_log(log)
    report = Report(run if at is None else run.until(at))
    if svg is not None:
        picture = report.picture()
        if picture is None:
            raise UsageError(f'"{log}" holds fewer than two losses: there is nothing to draw.')
        try:
            svg.write_text(pictures.svg(picture, log.stem), encoding="utf-8")
        except OSError as error:
            raise UsageError(f'cannot write "{svg}": {reason(error)}.') from None
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
        return
    console = Console(highlight=False)
    for row in report.draw(console.width, everything=everything).splitlines():
        console.print(row, style=_style(row), markup=False, soft_wrap=True)


def _style(row: str) -> str | None:
    if "│" in row or "└" in row:
        return "cyan"
    return {"BROKEN": "bold red", "WRONG": "bold yellow", "NOTE": "bold"}.get(row.strip().partition(" ")[0])
