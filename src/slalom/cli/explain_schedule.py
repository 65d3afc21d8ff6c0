"""`slalom explain schedule`: a schedule drawn, with its formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from slalom.errors import UsageError, reason


def explain_schedule(
    text: Annotated[
        str, typer.Argument(metavar="TEXT|FILE.toml", help='As "warmup 500, cosine 9500", or a file of such by name.')
    ],
    steps: Annotated[
        float | None,
        typer.Option(min=1, help="Length of the run: what percentages are of, and how much is drawn."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Show learning rates instead of multipliers.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the picture into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print data instead of a picture.")] = False,
) -> None:
    """Draw a schedule: "warmup 5%, cosine", "wsd 10000 2000 shape=1-sqrt", "0.1 * one-cycle 1000", ..."""
    from rich.console import Console

    from slalom import pictures
    from slalom.describe import schedule as describe_schedule
    from slalom.schedules import Values, from_toml, parse

    if text.endswith(".toml"):
        read = from_toml(_read(text), steps)
        plan = {name: one.schedule if isinstance(one, Values) else one for name, one in read.items()}
    else:
        plan = {"": parse(text, steps)}
    if svg is not None:
        if len(plan) > 1:
            raise UsageError(f'"{text}" has {len(plan)} schedules and --svg draws one: give its text.')
        (schedule,) = plan.values()
        _write(svg, pictures.svg(describe_schedule.picture(schedule, steps, lr), str(schedule)))
    if as_json:
        facts = {name: describe_schedule.as_json(one, steps, lr) for name, one in plan.items()}
        print(json.dumps(facts.get("", facts), indent=2))
        return
    console = Console(highlight=False)
    for name, schedule in plan.items():
        screen = describe_schedule.describe(schedule, steps, lr, console.width)
        head, _, rest = screen.partition("\n")
        console.print(f"{name} = {head}" if name else head, style="bold", markup=False, soft_wrap=True)
        for row in rest.splitlines():
            drawn = "│" in row or "└" in row
            console.print(row, style="cyan" if drawn else None, markup=False, soft_wrap=True)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'cannot read schedules "{file}": {reason(error)}.') from None


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f'cannot write "{file}": {reason(error)}.') from None
