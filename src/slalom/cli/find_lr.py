"""`slalom find-lr`: the learning-rate range test of a recipe on a workload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slalom.cli.progress import Progress
from slalom.errors import UsageError, reason

if TYPE_CHECKING:
    from torch import Generator

    from slalom.race.workload import Workload


def find_lr(
    entrants: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE [FILE.py]",
            help="Whose rate: a name as adamw or sgd:momentum=0.9, or a recipe in a TOML file. A Python file adds a "
            "workload, parts or methods of your own.",
        ),
    ],
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="On this workload of the race.")] = None,
    low: Annotated[float, typer.Option(help="The first rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="How many rates.")] = 100,
    rule: Annotated[str, typer.Option(help="What is suggested: third, tenth or steepest.")] = "third",
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    svg: Annotated[Path | None, typer.Option(help="Write the picture into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print data instead of a picture.")] = False,
) -> None:
    """Raise the learning rate until the loss explodes, draw what happens, and suggest one.

    Examples: `slalom find-lr adamw -w charlm`, `slalom find-lr sgd:momentum=0.9 my_workload.py`.
    """
    from rich.console import Console

    from slalom import range_test
    from slalom.race.contestant import enter
    from slalom.race.workload import reseed, stream

    files = [word for word in entrants if word.endswith(".py")]
    words = [word for word in entrants if not word.endswith(".py")]
    if len(words) != 1:
        raise UsageError(f"{len(words)} recipes were given: name one, as in `slalom find-lr adamw -w charlm`.")
    course = find_workload(files, workload)
    (contestant,) = enter(words, files)
    reseed(course.name, seed, "model")
    model = course.model()
    optimizer = contestant.build(model, {"lr": contestant.lrs[0]})
    reseed(course.name, seed, "train")
    model.train()

    with Progress(Console(stderr=True), steps) as progress:
        test = range_test.find_lr(
            model,
            optimizer,
            course.loss,
            _Batches(course, stream(course.name, seed, "batches")),
            low=low,
            high=high,
            steps=steps,
            rule=rule,  # type: ignore[arg-type]
            progress=progress.advance,
        )
    title = f"{contestant.label} on {course.name}"
    if svg is not None:
        write_file(svg, test.svg(title))
    if as_json:
        print(json.dumps({"recipe": contestant.label, "workload": course.name, **test.as_json()}, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"{title}\n", style="bold", markup=False)
    for row in test.draw(console.width).splitlines():
        drawn = "│" in row or "└" in row
        console.print(row, style="cyan" if drawn else None, markup=False, soft_wrap=True)


def find_workload(files: list[str], name: str | None) -> Workload[Any]:
    """Return the one workload that a name or a file means."""
    try:
        from slalom.race.files import choose

        found = choose(files, [name] if name else [])
    except ImportError as error:
        raise UsageError(f"workloads need {error.name}, which is not installed: pip install 'slalom[race]'.") from None
    if len(found) != 1:
        names = ", ".join(entry.workload.name for entry in found)
        raise UsageError(f"on which workload? Choose one with --workload: {names}.")
    return found[0].workload


class _Batches:
    """A workload's stream of batches, which can be begun again."""

    def __init__(self, workload: Workload[Any], generator: Generator) -> None:
        self.workload, self.stream = workload, generator

    def __iter__(self) -> Iterator[Any]:
        return iter(self.workload.batches(self.stream))


def write_file(file: Path, text: str) -> None:
    """Write a picture; what goes wrong is one sentence."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f'cannot write "{file}": {reason(error)}.') from None
