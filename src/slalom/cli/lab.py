"""`slalom lab`: published phenomena, reproduced on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slalom.cli.progress import Progress
from slalom.errors import UsageError, reason

if TYPE_CHECKING:
    from slalom.lab import Finding

_TICKS = 1000  # of the bar


def lab(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME [RECIPE ...]",
            help="A phenomenon, with settings if you like: rosenbrock:lr=0.001. Some compare recipes of your choice: "
            "adamw sgd:momentum=0.9. Without a name all are listed.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many runs.", show_default="what the phenomenon needs")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the first run.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A smaller experiment, one seed.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the picture, or a page with everything: FILE.svg or FILE.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print data instead of a screen.")] = False,
) -> None:
    """Reproduce a published phenomenon: the claim, the picture, and whether its signs show here.

    Examples: `slalom lab`, `slalom lab rosenbrock`, `slalom lab rosenbrock adamw muon`, `slalom lab separable --quick`.
    """
    from rich.console import Console
    from rich.text import Text

    if not words:
        _list(as_json)
        return
    if out is not None and out.suffix not in (".svg", ".html"):
        raise UsageError(f'--out "{out}": give FILE.svg for the picture or FILE.html for a page.')

    from slalom.lab import set_up, study
    from slalom.lab.show import rows

    phenomenon = set_up(words[0], tuple(words[1:]), quick=quick)
    with Progress(Console(stderr=True), _TICKS, phenomenon.name) as progress:
        finding = study(
            phenomenon,
            seeds=seeds or (1 if quick else None),
            first=seed,
            progress=lambda share: progress.advance(round(share * _TICKS)),
        )
    if out is not None:
        _write(out, finding)
    if as_json:
        print(json.dumps(finding.as_json(), allow_nan=False, indent=2))
        return
    console = Console(highlight=False)
    for row in rows(finding, console.width):
        console.print(Text.assemble(*row), soft_wrap=True)


def _list(as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from slalom.lab import phenomena

    if as_json:
        fields = ("name", "title", "source", "claim", "seeds", "seconds")
        facts = [{field: getattr(cls, field) for field in fields} for cls in phenomena().values()]
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("phenomenon", no_wrap=True)
    table.add_column("takes", justify="right", no_wrap=True)
    table.add_column("--quick", justify="right", no_wrap=True)
    table.add_column("")
    console = Console(highlight=False)
    for name, cls in phenomena().items():
        whole, quick = cls.seconds
        source = f"\n[dim]{cls.source}" if console.width >= 100 else ""  # a narrow screen would be mostly sources
        table.add_row(f"[bold]{name}", f"{whole:g} s", f"{quick:g} s", f"{cls.title}{source}")
    console.print(table)
    console.print("\n[dim]seconds of one thread, as measured once.  `slalom lab NAME` runs one.")


def _write(file: Path, finding: Finding) -> None:
    from slalom.lab import page

    try:
        file.write_text(page.svg(finding) if file.suffix == ".svg" else page.html(finding), encoding="utf-8")
    except OSError as error:
        raise UsageError(f'cannot write "{file}": {reason(error)}.') from None
