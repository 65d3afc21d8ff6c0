"""A finding as rows of a terminal, each in pieces with a style; and as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from slalom import pictures
from slalom.lab.finding import Finding, Judged, cell
from slalom.lab.phenomenon import Table
from slalom.landscape import Plane

# Names of styles are rich's; who prints without colours leaves them out.
Row: TypeAlias = "list[tuple[str, str]]"
_CURVES = ("blue", "yellow", "green", "magenta", "red", "bright_black", "cyan")
_VERDICTS = {"seen": "green", "not seen": "red", "not measured": "dim"}


def rows(finding: Finding, width: int = 100) -> Iterator[Row]:
    """Yield the screen: claim, picture, numbers, signs, verdict, what to try next."""
    what = finding.phenomenon
    width = min(width, 110)
    for place, line in enumerate(textwrap.wrap(what.title, width - len(what.name) - 3)):
        head = f"{what.name.upper() if not place else '':<{len(what.name)}}"
        yield [(head, "bold"), (f"   {line}", "")]
    yield from _wrapped(what.source, width, style="dim")
    yield []
    yield from _wrapped(what.claim, width)
    for title, picture in finding.runs[0].pictures.items():
        yield []
        yield from _drawn(title, picture, width)
    if finding.table is not None:
        yield []
        yield from numbers(finding.table, len(finding.runs), width)
    yield []
    yield from _signs(finding.judged, width)
    yield []
    style = {"seen": "bold green", "not seen": "bold red"}.get(finding.verdict, "bold yellow")
    yield from _wrapped(finding.sentence, width, style=style)
    yield []
    yield from _labelled("here", what.here, width)
    settings = ", ".join(f"{name}={_spelled(value)}" for name, value in what.settings().items())
    last = finding.first + len(finding.runs) - 1
    seeds = f"seeds {finding.first} to {last}" if last > finding.first else f"seed {finding.first}"
    yield from _labelled("ran", f"{settings}; {seeds}; {finding.seconds:.3g} CPU seconds", width)
    yield []
    yield [("  try next", "bold")]
    for word, why in what.variants.items():
        yield [(f"  slalom lab {word}", "cyan")]  # whole, to be copied
        yield from _wrapped(why, width, style="dim", indent=6)


def text(finding: Finding, width: int = 100) -> str:
    """Return the screen without colours."""
    return "\n".join("".join(piece for piece, _ in row).rstrip() for row in rows(finding, width))


def _wrapped(words: str, width: int, style: str = "", indent: int = 2) -> Iterator[Row]:
    for line in textwrap.wrap(" ".join(words.split()), width - indent):
        yield [(" " * indent + line, style)]


def _labelled(label: str, words: str, width: int) -> Iterator[Row]:
    lines = textwrap.wrap(words, width - 12)
    for place, line in enumerate(lines):
        yield [(f"  {label if not place else '':<10}", "dim"), (line, "")]


def _drawn(title: str, picture: pictures.Picture | Plane, width: int) -> Iterator[Row]:
    yield [(f"  {title}", "bold")]
    if isinstance(picture, Plane):
        yield from (
            [(row, _colour(0) if "│" in row or "└" in row else "dim")] for row in picture.draw(width).splitlines()
        )
        return
    columns = max(24, min(width - 14, 84))
    for row in pictures.painted(picture, columns, 14):
        yield [("  ", ""), *((piece, "" if place is None else _colour(place)) for piece, place in row)]
    yield [(f"  {picture.y_label}, against {picture.x_label}", "dim")]
    line: Row = [("  ", "")]
    for key, place in pictures.legend(picture):
        if sum(len(piece) for piece, _ in line) + len(key) > width:
            yield line
            line = [("  ", "")]
        line.append((f"{'   ' if len(line) > 1 else ''}{key}", _colour(place)))
    if len(line) > 1:
        yield line


def _colour(place: int) -> str:
    return _CURVES[place % len(_CURVES)]


def numbers(table: Table, runs: int, width: int) -> Iterator[Row]:
    """Yield a table: as it is, turned on its side, or with the names of its rows above the numbers, as it fits."""
    cells = [list(table.head), *([name, *map(cell, row)] for name, row in table.rows.items())]
    turned = [list(column) for column in zip(*cells, strict=True)]
    cells = min((cells, turned), key=lambda one: max(0, sum(_widths(one)) - width))
    widths = _widths(cells)
    above = sum(widths) > width
    for place, row in enumerate(cells):
        style = "" if place else "dim"
        if above:
            yield [(f"  {row[0]}", style)]
        name = "" if above else row[0]
        numbers = "".join(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))
        yield [(f"{'' if above else '  '}{name:<{8 if above else widths[0] - 2}}{numbers}", style)]
    if runs > 1:
        yield [(f"  medians of {runs} runs", "dim")]


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    """Return how many characters each column takes, with what separates it from the one before."""
    longest = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [2 + longest[0], *(3 + one for one in longest[1:])]


def _signs(judged: Sequence[Judged], width: int) -> Iterator[Row]:
    """Yield each sign with what was expected, what was measured, and whether that is enough."""
    yield [("  signs", "bold")]
    for one in judged:
        style = _VERDICTS.get(one.verdict, "yellow")
        for place, line in enumerate(textwrap.wrap(one.sign.claim, width - 18)):
            yield [("  ", ""), (f"{'' if place else one.verdict:<16}", style), (line, "")]
        facts = f"{one.measured} here, {one.sign.needs} needed; {one.sign.expected}"
        for line in textwrap.wrap(facts, width - 18):
            yield [(" " * 18 + line, "dim")]


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_spelled, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'
