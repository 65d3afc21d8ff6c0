"""A finding as rows of a terminal, each in pieces with a style; and as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from slalom import pictures
from slalom.lab.finding import Finding, Judged, cell
from slalom.lab.phenomenon import Table

# Names of styles are rich's; who prints without colours leaves them out.
Row: TypeAlias = "list[tuple[str, str]]"
_CURVES = ("blue", "yellow", "green", "magenta", "red", "bright_black", "cyan")
_VERDICTS = {"seen": "green", "not seen": "red", "not measured": "dim"}


def rows(finding: Finding, width: int = 100) -> Iterator[Row]:
    """Yield the screen: claim, picture, numbers, signs, verdict, what to try next."""
    what = finding.phenomenon
    width = min(width, 110)
    yield [(what.name.upper(), "bold"), (f"   {what.title}", "")]
    yield from _wrapped(what.source, width, style="dim")
    yield []
    yield from _wrapped(what.claim, width)
    for title, picture in finding.runs[0].pictures.items():
        yield []
        yield from _drawn(title, picture, width)
    if finding.table is not None:
        yield []
        yield from _numbers(finding.table, len(finding.runs))
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
    for word, why in what.variants.items():
        yield from _labelled("try", f"slalom lab {word}   {why}", width)


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


def _drawn(title: str, picture: pictures.Picture, width: int) -> Iterator[Row]:
    yield [(f"  {title}", "bold")]
    columns = max(24, min(width - 14, 84))
    for row in pictures.painted(picture, columns, 14):
        yield [("  ", ""), *((piece, "" if place is None else _colour(place)) for piece, place in row)]
    yield [(f"  {picture.y_label}, against {picture.x_label}", "dim")]
    line: Row = [("  ", "")]
    for key, place in pictures.legend(picture):
        if sum(len(piece) for piece, _ in line) + len(key) > width:
            yield line
            line = [("  ", "")]
        line.append((f"{key}   ", _colour(place)))
    if len(line) > 1:
        yield line


def _colour(place: int) -> str:
    return _CURVES[place % len(_CURVES)]


def _numbers(table: Table, runs: int) -> Iterator[Row]:
    cells = [table.head, *((name, *map(cell, row)) for name, row in table.rows.items())]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.head))]
    for place, row in enumerate(cells):
        aligned = [f"{row[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))]
        yield [("  " + "   ".join(aligned), "" if place else "dim")]
    if runs > 1:
        yield [(f"  medians of {runs} runs", "dim")]


def _signs(judged: Sequence[Judged], width: int) -> Iterator[Row]:
    """Yield each sign with what was expected, what was measured, and whether that is enough."""
    yield [("  signs", "bold")]
    for one in judged:
        style = _VERDICTS.get(one.verdict, "yellow")
        for place, line in enumerate(textwrap.wrap(one.sign.claim, width - 17)):
            yield [("  ", ""), (f"{'' if place else one.verdict:<15}", style), (line, "")]
        facts = f"{one.measured} here, {one.sign.needs} needed; {one.sign.expected}"
        for line in textwrap.wrap(facts, width - 17):
            yield [(" " * 17 + line, "dim")]


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_spelled, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
