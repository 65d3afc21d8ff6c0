"""Facts as lines of a terminal: aligned behind their labels, wrapped, and shortened where they repeat themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from slalom.describe.formulas import Line

_NUMBERS = re.compile(r"\d+(\.\d+)?(e-?\d+)?")


def wrapped(prefix: str, body: str, width: int) -> list[str]:
    """Break a text into rows of this width, all but the first indented as far as the prefix is long."""
    words, rows, row = body.split(" "), [], ""
    for word in words:
        if row and len(prefix) + len(row) + 1 + len(word) > width:
            rows.append(row)
            row = word
        else:
            row = f"{row} {word}" if row else word
    rows.append(row)
    return [prefix + rows[0], *(" " * len(prefix) + row for row in rows[1:])]


def formula_rows(lines: Iterable[Line], indent: str, width: int) -> list[str]:
    """Align formulas behind the names of their slots, each name once."""
    rows: list[str] = []
    last = ""
    for line in _shortened(lines):
        label = "" if line.slot == last else line.slot
        rows += wrapped(f"{indent}{label:<12}", line.text, width)
        last = line.slot
    return rows


def _shortened(lines: Iterable[Line]) -> list[Line]:
    """Show the first and the last only of three or more groups of lines that differ in nothing but numbers."""
    left, kept = list(lines), []
    while left:
        counts = {size: _repeats(left, size) for size in range(1, len(left) // 3 + 1)}
        size = max((size for size, count in counts.items() if count > 2), key=lambda n: n * counts[n], default=0)
        if size:
            whole = size * counts[size]
            more = Line(left[0].slot, f"⋮  {counts[size] - 2} more", "")
            kept += [*left[:size], more, *left[whole - size : whole]]
            del left[:whole]
        else:
            kept.append(left.pop(0))
    return kept


def _repeats(lines: Sequence[Line], size: int) -> int:
    """Return how many groups of so many lines follow each other that differ in numbers alone."""
    forms = [(line.slot, _NUMBERS.sub("0", line.text)) for line in lines]
    count = 1
    while forms[size * count : size * (count + 1)] == forms[:size]:
        count += 1
    return count


def lesson_rows(lesson: str, width: int) -> list[str]:
    """Lay out a lesson, whose lines keep their indentation."""
    rows = []
    for place, line in enumerate(lesson.split("\n")):
        body = line.lstrip()
        label = "why" if place == 0 else ""
        rows += wrapped(f"  {label:<12}" + " " * (len(line) - len(body)), body, width)
    return [row.rstrip() for row in rows]


def extents(kept: Mapping[str, str]) -> str:
    """Write what is kept per what, states that are counted as one."""
    counted: dict[tuple[str, str], list[str]] = {}
    for key, extent in kept.items():
        counted.setdefault((key.rstrip("0123456789"), extent), []).append(key)
    words = []
    for (stem, extent), keys in counted.items():
        few = len(keys) < 3
        through = ", ".join(keys) if few else f"{keys[0]} to {stem.rpartition('.')[2]}{keys[-1].removeprefix(stem)}"
        words.append(f"{through} per {extent}")
    return ", ".join(words)
