"""`slalom check`: the conformance kit, as a matrix of contracts and optimizers."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from slalom.errors import UsageError

if TYPE_CHECKING:
    from slalom.testing import Report

_COLUMNS: Final = 5  # of optimizers beside their contracts; more are counted
_MARKS: Final = {"holds": "ok", "broken": "[bold red]BROKEN[/]", "not promised": "–"}


def check(
    optimizers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OPTIMIZER",
            help="Ours by name, as adamw or sgd:momentum=0.9; anybody's as torch.optim:AdamW, mine.py:MyOptimizer or "
            "mine.py:MyOptimizer:lr=0.1.",
        ),
    ] = None,
    all_of_ours: Annotated[bool, typer.Option("--all", help="Check every method of the catalogue too.")] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", help="A contract that is not promised; may be repeated.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the contracts, with reasons; check nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print data instead of a matrix.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a page for documentation.")] = False,
) -> None:
    """Run the contracts that PyTorch and its ecosystem expect against any optimizer.

    Examples: `slalom check adamw torch.optim:AdamW`, `slalom check mine.py:MyOptimizer --leave-out one-each`.
    """
    from slalom.recipes import list_optimizers
    from slalom.testing.conformance import check_optimizer
    from slalom.testing.matrix import contracts_page, markdown

    if as_json and as_markdown:
        raise UsageError("--json and --markdown are two ways to print: give one.")
    if listed:
        print(contracts_page(), end="") if as_markdown else _list(as_json=as_json)
        return
    words = [*(list_optimizers() if all_of_ours else []), *(optimizers or [])]
    if not words:
        raise UsageError("nothing to check: give names, module:Class, FILE.py:Class, or --all.")
    given = dict.fromkeys(leave_out or [], "left out by hand")
    subjects = [_subject(word) for word in words]  # a slip in the last word is found before the first is checked
    with _progress(len(subjects)) as advance:
        reports = []
        for one in subjects:
            reports.append(check_optimizer(one.factory, label=one.label, leave_out={**given, **one.exceptions}))
            advance()
    if as_markdown:
        print(markdown(reports, f"slalom check{' --all' if all_of_ours else ''} ... --markdown"), end="")
    elif as_json:
        print(json.dumps({report.label: _data(report) for report in reports}, indent=2))
    else:
        _show(reports)
    if not all(reports):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Subject:
    """Who is checked, and what it says that it cannot promise, with reasons."""

    label: str
    factory: Any
    exceptions: Mapping[str, str]


def _subject(word: str) -> _Subject:
    """Find what a word names.

    Raises:
        UsageError: if there is no such thing, it is no optimizer, or it cannot be built.
    """
    from slalom.recipes.spec import parse_arguments
    from slalom.testing.conformance import built

    head, _, tail = word.partition(":")
    if word.endswith(".toml"):
        raise UsageError(f'"{word}": a recipe in a file has no class to check; give a function that builds it.')
    if "." not in head and (not tail or "=" in tail.partition(":")[0]):
        return _ours(word)
    if head.endswith(".py") or (":" in word and "=" not in tail.partition(":")[0]):
        name, _, arguments = tail.partition(":")
    else:  # torch.optim.AdamW:eps=1e-6, as a race takes it
        head, _, name = head.rpartition(".")
        arguments = tail
    found = _imported(word, head, name)
    given = parse_arguments(word, arguments)
    factory = functools.partial(found, **given) if given else found
    try:
        built(factory, word)
    except UsageError as error:
        raise UsageError(f"{error} What else it needs, write behind it: {head}:{name}:lr=0.1.") from None
    return _Subject(word, factory, {})


def _ours(word: str) -> _Subject:
    from slalom.named import named_class
    from slalom.recipes.spec import parse_spec

    entry, given = parse_spec(word)
    cls: Any = named_class(entry.name)
    return _Subject(word, functools.partial(cls, **given) if given else cls, entry.exceptions)


def _imported(word: str, place: str, name: str) -> Any:
    """Return a class or function of a module or a file."""
    import torch

    from slalom.userfiles import import_file

    if not (place and name):
        raise UsageError(f'"{word}": write module:Class, as torch.optim:AdamW, or FILE.py:Class.')
    # `python -m` sees the folder that a person is in; the installed command does not.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = import_file(place) if place.endswith(".py") else importlib.import_module(place)
    except ImportError as error:
        raise UsageError(f'"{word}": {error}.') from None
    found = getattr(module, name, None)
    if found is None:
        raise UsageError(f'"{word}": {place} has no {name}.')
    if isinstance(found, type) and not issubclass(found, torch.optim.Optimizer):
        raise UsageError(f'"{word}": {name} is no torch.optim.Optimizer.')
    if not callable(found):
        raise UsageError(f'"{word}": {name} is neither a class nor a function that builds an optimizer.')
    return found


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on a terminal's stderr that is gone afterwards; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("optimizers", total=total)
        yield lambda: bar.advance(task)


def _data(report: Report) -> dict[str, dict[str, str]]:
    return {result.contract.name: {"verdict": result.verdict, "why": result.why} for result in report.results}


def _list(*, as_json: bool) -> None:
    from rich.console import Console

    from slalom.testing.matrix import by_topic

    if as_json:
        listed = {one.name: {"claim": one.claim, "why": one.why} for _, members in by_topic() for one in members}
        print(json.dumps(listed, indent=2))
        return
    console = Console(highlight=False)
    for title, members in by_topic():
        console.print(f"\n[bold]{title}[/]")
        for one in members:
            console.print(f"  [bold]{one.name}[/]  {one.claim}", soft_wrap=True)
            console.print(f"    [dim]{one.why}[/]", soft_wrap=True)


def _show(reports: list[Report]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from slalom.testing.conformance import CONTRACTS
    from slalom.testing.matrix import by_topic

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    if len(reports) > _COLUMNS:
        for heading in ("optimizer", "holds", "broken", "not promised"):
            table.add_column(heading, justify="left" if heading == "optimizer" else "right")
        for report in reports:
            counts = [sum(result.verdict == verdict for result in report.results) for verdict in _MARKS]
            table.add_row(report.label, *(str(count or "") for count in counts))
    else:
        table.add_column("contract", no_wrap=True, min_width=max(map(len, CONTRACTS)))
        for report in reports:
            heading = report.label if "=" in report.label else report.label.rsplit(":", 1)[-1]
            table.add_column(heading, no_wrap=True, min_width=max(len("BROKEN"), min(len(heading), 16)))
        table.add_column("claim", style="dim")
        verdicts = [{result.contract.name: result.verdict for result in report.results} for report in reports]
        for place, (_, members) in enumerate(by_topic()):
            if place:
                table.add_section()
            for one in members:
                table.add_row(one.name, *(_MARKS[of[one.name]] for of in verdicts), _line(one.claim))
    console.print(table)
    for report in reports:
        _explain(report, console)


def _line(text: str) -> Any:
    """Return a text that is cut, not wrapped, where there is no room."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def _explain(report: Report, console: Any) -> None:
    """Print what is not kept, and why; a line if there is nothing of that."""
    left = [result for result in report.results if result.verdict == "not promised"]
    total = len(report.results) - len(left)
    kept = f"all {total} contracts" if report else f"{total - len(report.broken)} of {total} contracts"
    reasons = f", and does not promise {len(left)}" if left else ""
    console.print(f"[bold]{report.label}[/] keeps {kept}{reasons}.", soft_wrap=True)
    for result in (*report.broken, *left):
        console.print(f"  {_MARKS[result.verdict]} {result.contract.name}: {result.contract.claim}", soft_wrap=True)
        console.print(f"      {result.why}", markup=False, soft_wrap=True)
