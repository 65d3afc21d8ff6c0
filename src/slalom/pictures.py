"""Curves in a terminal and as SVG, without any library: what commands draw that must work everywhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

# Okabe and Ito's colours, which colour-blind people can tell apart; their yellow is left out, it drowns in white.
# The second of each pair is for a dark page.
COLOURS = (
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#f07b2e"),
    ("#009e73", "#2fc399"),
    ("#b8548f", "#dd8fbc"),
    ("#c98600", "#f0b429"),
    ("#6b6f76", "#a6abb3"),
    ("#2f94cf", "#8fd0f7"),
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EIGHTHS = " ▁▂▃▄▅▆▇█"
# Braille dots, by column and row within a character.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


@dataclass(frozen=True)
class Curve:
    """Points, in order of x. What is not finite is left out.

    Attributes:
        x: where, along the picture.
        y: where, across it.
        label: its name, shown where a picture has several.
        faint: drawn in the background; in a terminal not at all.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    faint: bool = False

    def points(self) -> list[tuple[float, float]]:
        """Return the finite points."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True)
class Picture:
    """Curves with axes.

    Attributes:
        curves: what is drawn.
        x_label: what x is.
        y_label: what y is.
        log_x: whether x is logarithmic.
        log_y: whether y is logarithmic.
        low: the least value that y shows; by default the least there is.
        high: the largest, likewise.
        marks: places on the x axis with a word each.
    """

    curves: tuple[Curve, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    low: float | None = None
    high: float | None = None
    marks: tuple[tuple[float, str], ...] = field(default=())

    def told_apart(self) -> list[Curve]:
        """Return the curves that a legend names: those with a label, where there are several."""
        named = [curve for curve in self.curves if curve.label and not curve.faint]
        return named if len(named) > 1 else []

    def x_axis(self) -> Axis:
        """Return the horizontal axis."""
        values = [x for curve in self.curves for x, _ in curve.points()]
        return Axis(min(values), max(values), self.log_x)

    def y_axis(self) -> Axis:
        """Return the vertical axis."""
        values = [y for curve in self.curves if not curve.faint for _, y in curve.points()]
        low = min(values) if self.low is None else self.low
        return Axis(low, max(values) if self.high is None else self.high, self.log_y)


@dataclass(frozen=True)
class Axis:
    """A range of numbers, and where each of them lies between 0 and 1."""

    low: float
    high: float
    log: bool

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end."""
        if self.high == self.low:
            return 0.5
        to: Callable[[float], float] = math.log if self.log else float
        return (to(value) - to(self.low)) / (to(self.high) - to(self.low))

    def value(self, place: float) -> float:
        """Return the value at a place."""
        if self.log:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + (self.high - self.low) * place

    def ticks(self, most: int = 6) -> list[float]:
        """Return round numbers on the axis."""
        if self.high == self.low:
            return [self.low]
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            if len(powers) >= 2:
                return [10.0**power for power in powers if (power - powers[0]) % math.ceil(len(powers) / most) == 0]
            lowest = math.floor(math.log10(self.low))
            steps = [10.0**power * factor for power in (lowest, lowest + 1) for factor in (1, 2, 5)]
            if len(found := [step for step in steps if self.low * (1 - 1e-9) <= step <= self.high * (1 + 1e-9)]) >= 3:
                return found
        step = next(s for s in _round_steps((self.high - self.low) / most) if (self.high - self.low) / s <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_steps(least: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(least))
    return [power * factor for factor in (1, 2, 2.5, 5, 10, 20)]


def blocks(picture: Picture, width: int = 72, height: int = 8) -> list[str]:
    """Draw the first curve as an area of eighths of blocks."""
    axis_x, axis_y = picture.x_axis(), picture.y_axis()
    points = picture.curves[0].points()
    sums, counts = [0.0] * width, [0] * width
    for x, y in points:
        column = min(int(axis_x.place(x) * width), width - 1)
        sums[column] += min(max(axis_y.place(y), 0.0), 1.0)
        counts[column] += 1
    filled, last = [], 0.0
    for total, count in zip(sums, counts, strict=True):
        last = total / count if count else last
        filled.append(round(last * height * 8))
    rows = []
    for row in reversed(range(height)):
        rows.append("".join(_EIGHTHS[min(max(amount - 8 * row, 0), 8)] for amount in filled))
    return _framed(picture, axis_x, axis_y, rows, width)


def dots(picture: Picture, width: int = 72, height: int = 12) -> list[str]:
    """Draw the curves as lines of Braille dots, marks as columns; several with names carry a letter each."""
    return ["".join(text for text, _ in row) for row in painted(picture, width, height)]


def legend(picture: Picture) -> list[tuple[str, int]]:
    """Return what the letters of `dots` stand for, with the place of each curve."""
    return [(f"{LETTERS[place % 26]} {curve.label}", place) for place, curve in enumerate(picture.told_apart())]


def painted(picture: Picture, width: int = 72, height: int = 12) -> list[list[tuple[str, int | None]]]:
    """Draw as `dots` does; every row in pieces, with the place of the curve that each belongs to."""
    axis_x, axis_y = picture.x_axis(), picture.y_axis()
    wide, tall = 2 * width - 1, 4 * height - 1
    cells = [[0] * width for _ in range(height)]
    owners: list[list[int | None]] = [[None] * width for _ in range(height)]
    places = {id(curve): place for place, curve in enumerate(picture.told_apart())}
    paths: list[list[tuple[int, int]]] = [[] for _ in places]

    for curve in picture.curves:
        if curve.faint:
            continue
        path: dict[tuple[int, int], None] = {}
        owner = places.get(id(curve))
        for x, y in _line([(axis_x.place(x) * wide, axis_y.place(y) * tall) for x, y in curve.points()]):
            if 0 <= y <= tall and 0 <= x <= wide:
                row, column = (tall - y) // 4, x // 2
                cells[row][column] |= _DOTS[x % 2][(tall - y) % 4]
                owners[row][column] = owner
                path[row, column] = None
        if owner is not None:
            paths[owner] = list(path)
    rows = [[chr(0x2800 + cell) if cell else " " for cell in row] for row in cells]
    for place, _ in picture.marks:
        column = min(int(axis_x.place(place) * width), width - 1)
        for line in rows:
            line[column] = "┊" if line[column] == " " else line[column]
    _letter(rows, owners, paths)
    drawn = _framed(picture, axis_x, axis_y, ["".join(row) for row in rows], width)
    begin = drawn[0].index("│") + 1
    pieces: list[list[tuple[str, int | None]]] = []
    for place, text in enumerate(drawn):
        owned = [None] * begin + (owners[place] if place < height else [])
        pairs = itertools.zip_longest(text, owned[: len(text)])
        groups = itertools.groupby(pairs, key=lambda pair: pair[1])
        pieces.append([("".join(letter for letter, _ in group), owner) for owner, group in groups])
    return pieces


def _line(placed: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return the dots of a line through points."""
    rounded = [(round(x), round(y)) for x, y in placed]
    passed = rounded[:1]
    for (x0, y0), (x1, y1) in itertools.pairwise(rounded):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        passed += [(round(x0 + (x1 - x0) * k / steps), round(y0 + (y1 - y0) * k / steps)) for k in range(1, steps + 1)]
    return passed


def _letter(rows: list[list[str]], owners: list[list[int | None]], paths: list[list[tuple[int, int]]]) -> None:
    """Put each curve's letter on it, at places of their own where several run together."""
    count = len(paths)
    for place, path in enumerate(paths):
        for share in ((place + 0.5) / (2 * count), 0.5 + (place + 0.5) / (2 * count)):
            for row, column in path[int(share * len(path)) :]:
                if not rows[row][column].isalpha():
                    rows[row][column], owners[row][column] = LETTERS[place % 26], place
                    break


def _framed(picture: Picture, axis_x: Axis, axis_y: Axis, rows: list[str], width: int) -> list[str]:
    """Put numbers around a drawing."""
    height = len(rows)
    labels = {}
    for tick in axis_y.ticks(max(2, height // 3)):
        labels[height - 1 - min(int(axis_y.place(tick) * height), height - 1)] = f"{tick:.4g}"
    margin = max(map(len, labels.values()), default=1)
    drawn = [f"{labels.get(place, ''):>{margin}} │{row}".rstrip() for place, row in enumerate(rows)]
    drawn.append(" " * margin + " └" + "─" * width)
    under = [" "] * (width + 12)
    for tick in axis_x.ticks(max(2, width // 12)):
        _write(under, round(axis_x.place(tick) * (width - 1)), f"{tick:.6g}")
    drawn.append(" " * (margin + 2) + "".join(under).rstrip())
    for x, word in picture.marks:
        line = [" "] * (width + 40)
        _write(line, round(axis_x.place(x) * (width - 1)), f"↑ {word}", centred=False)
        drawn.append(" " * (margin + 2) + "".join(line).rstrip())
    return drawn


def _write(line: list[str], column: int, word: str, *, centred: bool = True) -> None:
    start = max(column - len(word) // 2 if centred else column, 0)
    if all(letter == " " for letter in line[max(start - 1, 0) : start + len(word) + 1]):
        line[start : start + len(word)] = word


_STYLE = (
    "svg{background:#fff;color:#1f2328;font:12px system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{background:#0d1117;color:#e6edf3}}"
    "text{fill:currentColor}.grid{stroke:currentColor;opacity:.15}.mark{stroke:#d1495b;stroke-dasharray:4 3}"
    ".line{fill:none;stroke:#2f6fde;stroke-width:2;stroke-linejoin:round}.faint{stroke-width:1;opacity:.35}"
    ".over{stroke-dasharray:7 7}.word{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
    "@media(prefers-color-scheme:dark){.word{stroke:#0d1117}}"
)


def _coloured(count: int) -> str:
    """Return the style of curves that are told apart: colours, from the eighth on with dashes."""
    kinds = [(place, *COLOURS[place % len(COLOURS)], place >= len(COLOURS)) for place in range(count)]
    light = "".join(f".line.c{k}{{stroke:{one}{';stroke-dasharray:6 3' if dash else ''}}}" for k, one, _, dash in kinds)
    dark = "".join(f".line.c{place}{{stroke:{other}}}" for place, _, other, _ in kinds)
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}" if kinds else ""


def _keys(labels: Sequence[str], width: int) -> tuple[list[tuple[int, int, str]], int]:
    """Return where each label of a legend goes, and how many rows it takes."""
    x, row, keys = 0, 0, []
    for label in labels:
        wide = 24 + 7 * len(label) + 18
        if x and x + wide > width:
            x, row = 0, row + 1
        keys.append((x, row, label))
        x += wide
    return keys, row + 1 if keys else 0


def _thinned(points: list[str]) -> list[str]:
    """Leave out points on the line between their neighbours; a long run has many."""
    kept: list[tuple[float, float]] = []
    between: list[tuple[float, float]] = []  # left out since the last one kept
    for x, y in (tuple(map(float, point.split(","))) for point in points):
        if between:
            x0, y0 = kept[-1]
            if x <= x0 or any(abs(y0 + (y - y0) * (x1 - x0) / (x - x0) - y1) > 0.15 for x1, y1 in between):
                kept.append(between[-1])
                between.clear()
        (between if kept else kept).append((x, y))
    kept += between[-1:]
    return [f"{x:g},{y:g}" for x, y in kept]


def _covers(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> bool:
    """Whether a line hides half of another or more: both have the same points there, within a line's width."""
    if len(one) != len(other):
        return False
    near = sum(abs(a - c) + abs(b - d) < 2 for (a, b), (c, d) in zip(one, other, strict=True))
    return 2 * near > len(one)


def svg(picture: Picture, title: str, width: int = 680, height: int = 300) -> str:
    """Draw a picture as a file of its own that follows the reader's light or dark."""
    left, right, bottom = 64, 18, 44
    named = picture.told_apart()
    places = {id(curve): place for place, curve in enumerate(named)}
    keys, rows = _keys([curve.label for curve in named], width - left - right)
    top, height = 34 + 18 * rows, height + 18 * rows
    axis_x, axis_y = picture.x_axis(), picture.y_axis()

    def across(x: float) -> str:
        return f"{left + axis_x.place(x) * (width - left - right):.1f}"

    def down(y: float) -> str:
        return f"{top + (1 - min(max(axis_y.place(y), 0), 1)) * (height - top - bottom):.1f}"

    floor, ceiling = f"{height - bottom}", f"{top}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}{_coloured(len(named))}</style>',
        f'<text x="{left}" y="20" font-weight="600">{escape(title)}</text>',
    ]
    for tick in axis_x.ticks(8):
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{ceiling}" y2="{floor}"/>')
        parts.append(f'<text x="{x}" y="{height - bottom + 16}" text-anchor="middle">{tick:.6g}</text>')
    for tick in axis_y.ticks(6):
        y = down(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 6}" y="{y}" dy=".35em" text-anchor="end">{tick:.4g}</text>')
    drawn: list[list[tuple[float, float]]] = []
    for curve in sorted(picture.curves, key=lambda one: not one.faint):
        placed = [f"{across(a)},{down(b)}" for a, b in curve.points()]
        points = " ".join(_thinned(placed))
        kind = "line faint" if curve.faint else f"line c{places[id(curve)]}" if id(curve) in places else "line"
        if not curve.faint:
            spots = [(float(x), float(y)) for x, y in (point.split(",") for point in placed)]
            kind += " over" if any(_covers(spots, other) for other in drawn) else ""  # the one below shows in the gaps
            drawn.append(spots)
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
    for k, (begin, row, label) in enumerate(keys):
        at, level = left + begin, 34 + 18 * row
        parts.append(f'<line class="line c{k}" x1="{at}" x2="{at + 18}" y1="{level}" y2="{level}"/>')
        parts.append(f'<text x="{at + 24}" y="{level}" dy=".35em">{escape(label)}</text>')
    for place, word in picture.marks:
        x = across(place)
        parts.append(f'<line class="mark" x1="{x}" x2="{x}" y1="{ceiling}" y2="{floor}"/>')
        side = 'dx="5"' if axis_x.place(place) < 0.7 else 'dx="-5" text-anchor="end"'
        parts.append(f'<text class="word" x="{x}" y="{top + 12}" {side}>{escape(word)}</text>')
    middle = (width - right + left) // 2
    parts.append(f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{escape(picture.x_label)}</text>')
    parts.append(
        f'<text transform="translate(14 {(height - bottom + top) // 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(picture.y_label)}</text></svg>"
    )
    return "\n".join(parts) + "\n"


__all__ = ["COLOURS", "LETTERS", "Axis", "Curve", "Picture", "blocks", "dots", "legend", "painted", "svg"]
