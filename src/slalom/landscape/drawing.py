"""A plane as a contour map: SVG that follows the reader's light or dark, and letters in a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from slalom.landscape.contours import regions
from slalom.pictures import COLOURS, Axis

if TYPE_CHECKING:
    from slalom.landscape.surface import Plane, Trail

_SHADES: Final = " ░▒▓█"
# The bands are blue, so trails have the other colours.
_OF_TRAILS: Final = [pair for pair in COLOURS[1:] if pair != COLOURS[-1]]
_STYLE: Final = (
    "svg{background:#fff;color:#1f2328;font:12px system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{background:#0d1117;color:#e6edf3}}"
    "text{fill:currentColor}.band{fill:#2f6fde;fill-opacity:.085;stroke:#2f6fde;stroke-opacity:.35;stroke-width:.6}"
    ".frame{fill:none;stroke:currentColor;stroke-opacity:.4}.way{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}"
    ".small{font-size:11px;opacity:.75}"
    + "".join(f".t{k}{{color:{light}}}" for k, (light, _) in enumerate(_OF_TRAILS))
    + "@media(prefers-color-scheme:dark){"
    + "".join(f".t{k}{{color:{dark}}}" for k, (_, dark) in enumerate(_OF_TRAILS))
    + "}"
)
_WIDE, _TALL = 520, 440
_LEFT, _TOP = 64, 40


def svg(plane: Plane, title: str) -> str:
    """Draw filled contours, the darker (in the dark: the brighter) the higher, and the trails with their ends."""
    axes = Axis(plane.x[0], plane.x[-1], log=False), Axis(plane.y[0], plane.y[-1], log=False)
    levels = plane.levels()
    under = _TOP + _TALL + 44
    notes = [*_notes(plane), *(_ending(trail) for trail in plane.trails)]
    width, height = _LEFT + _WIDE + 110, under + 18 * len(notes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>',
        f'<text x="{_LEFT}" y="24" font-weight="600">{escape(title)}</text>',
    ]
    parts += [f'<path class="band" fill-rule="evenodd" d="{_path(plane, level)}"/>' for level in levels]
    parts.append(f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_WIDE}" height="{_TALL}"/>')
    for tick in axes[0].ticks(6):
        x = _LEFT + axes[0].place(tick) * _WIDE
        parts.append(f'<text x="{x:.1f}" y="{_TOP + _TALL + 16}" text-anchor="middle">{tick + 0:.4g}</text>')
    for tick in axes[1].ticks(6):
        y = _TOP + (1 - axes[1].place(tick)) * _TALL
        parts.append(f'<text x="{_LEFT - 6}" y="{y:.1f}" dy=".35em" text-anchor="end">{tick + 0:.4g}</text>')
    for number, trail in enumerate(plane.trails):
        parts += _drawn_trail(trail, axes, f"t{number % len(_OF_TRAILS)}")
    if not plane.trails:
        parts.append(_dot(_LEFT + axes[0].place(0.0) * _WIDE, _TOP + (1 - axes[1].place(0.0)) * _TALL))
    parts += _key(levels)
    for number, note in enumerate(notes):
        parts.append(f'<text class="small" x="{_LEFT}" y="{under + 18 * number}">{escape(note)}</text>')
    return "\n".join(parts) + "</svg>\n"


def _path(plane: Plane, level: float) -> str:
    across, up = _WIDE / (len(plane.x) - 1), _TALL / (len(plane.y) - 1)
    pieces = []
    for loop in regions(plane.losses, level):
        spots = [f"{_LEFT + x * across:.1f} {_TOP + _TALL - y * up:.1f}" for x, y in loop[:-1]]
        pieces.append("M" + "L".join(spot for k, spot in enumerate(spots) if spot != spots[k - 1]) + "Z")
    return "".join(pieces)


def _drawn_trail(trail: Trail, axes: tuple[Axis, Axis], colour: str) -> list[str]:
    spots = [
        (_LEFT + axes[0].place(x) * _WIDE, _TOP + (1 - axes[1].place(y)) * _TALL)
        for x, y in zip(trail.x, trail.y, strict=True)
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    (x, y), right = spots[-1], spots[-1][0] > _LEFT + 0.6 * _WIDE
    anchor, shift = ("end", -9) if right else ("start", 9)
    return [
        f'<g class="{colour}"><polyline class="way" points="{points}"/>',
        *(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2" fill="currentColor"/>' for a, b in spots),
        _dot(x, y),
        f'<text x="{x + shift:.1f}" y="{y - 8:.1f}" text-anchor="{anchor}" font-weight="600">'
        f"{escape(trail.name)}</text></g>",
        _dot(*spots[0], hollow=True),
    ]


def _dot(x: float, y: float, *, hollow: bool = False) -> str:
    look = 'fill="none" stroke="currentColor" stroke-width="2"' if hollow else 'fill="currentColor"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {look}/>'


def _key(levels: Sequence[float]) -> list[str]:
    """Draw what the bands mean: a ladder with the height at which each begins."""
    parts = []
    step = _TALL / (len(levels) + 1)
    for number, level in enumerate(levels, 1):
        y = _TOP + _TALL - number * step
        # from here to the top: bands lie on each other as they do in the map
        parts.append(
            f'<rect class="band" x="{_LEFT + _WIDE + 18}" y="{_TOP}" width="16" height="{y - _TOP:.1f}"/>'
            f'<text x="{_LEFT + _WIDE + 40}" y="{y:.1f}" dy=".35em">{level:.3g}</text>'
        )
    parts.append(f'<rect class="frame" x="{_LEFT + _WIDE + 18}" y="{_TOP}" width="16" height="{_TALL}"/>')
    return parts


def draw(plane: Plane, width: int = 90) -> str:
    """Draw bands of loss as shades, and each trail as a letter of its own: o where it begins, large where it ends."""
    wide = max(24, min(width - 14, 72))
    tall = max(10, round(wide / 2.6))
    levels = plane.levels(len(_SHADES))[:-1]
    cells = [
        [
            _SHADES[sum(not _between(plane.losses, i / (wide - 1), 1 - j / (tall - 1)) <= level for level in levels)]
            for i in range(wide)
        ]
        for j in range(tall)
    ]
    axes = Axis(plane.x[0], plane.x[-1], log=False), Axis(plane.y[0], plane.y[-1], log=False)

    def put(x: float, y: float, letter: str) -> None:
        i, j = round(axes[0].place(x) * (wide - 1)), round((1 - axes[1].place(y)) * (tall - 1))
        if 0 <= i < wide and 0 <= j < tall:
            cells[j][i] = letter

    for number, trail in enumerate(plane.trails):
        for x, y in zip(trail.x, trail.y, strict=True):
            put(x, y, _letter(number))
    for number, trail in enumerate(plane.trails):
        put(trail.x[0], trail.y[0], "o")
        put(trail.x[-1], trail.y[-1], _letter(number).upper())
    if not plane.trails:
        put(0.0, 0.0, "o")
    labels = {round((1 - axes[1].place(tick)) * (tall - 1)): f"{tick + 0:.4g}" for tick in axes[1].ticks(5)}
    margin = max(map(len, labels.values()), default=1)
    rows = [f"{labels.get(j, ''):>{margin}} │{''.join(row)}│" for j, row in enumerate(cells)]
    rows.append(" " * margin + " └" + "─" * wide + "┘")
    under = [" "] * (wide + 8)
    for tick in axes[0].ticks(5):
        word = f"{tick + 0:.4g}"
        start = max(round(axes[0].place(tick) * (wide - 1)) - len(word) // 2, 0)
        under[start : start + len(word)] = word
    rows.append(" " * (margin + 2) + "".join(under).rstrip())
    rows.append("")
    heights = [f"{shade} from {level:.3g}" for shade, level in zip(_SHADES[1:], levels, strict=False)]
    rows.append(f"loss: {', '.join(heights)}" if heights else "loss: the same everywhere")
    for note in _notes(plane):
        rows += textwrap.wrap(note, width - 2)
    for number, trail in enumerate(plane.trails):
        rows += textwrap.wrap(f"{_letter(number)}  {_ending(trail)}", width - 2, subsequent_indent="   ")
    return "\n".join(f"  {row}".rstrip() for row in rows)


def _letter(number: int) -> str:
    return chr(ord("a") + number % 14)  # the fifteenth is o, which is where trails begin


def _between(values: Sequence[Sequence[float]], across: float, up: float) -> float:
    """Return the value at a place between 0 and 1 each way, bilinearly."""
    x, y = across * (len(values[0]) - 1), up * (len(values) - 1)
    i, j = min(int(x), len(values[0]) - 2), min(int(y), len(values) - 2)
    p, q = x - i, y - j
    corners = ((j, i, (1 - p) * (1 - q)), (j, i + 1, p * (1 - q)), (j + 1, i, (1 - p) * q), (j + 1, i + 1, p * q))
    return sum(values[b][a] * weight for b, a, weight in corners if weight)


def _notes(plane: Plane) -> list[str]:
    norms = {"running": "running statistics", "batch": "the statistics of the data"}
    return [plane.kind, *([f"batch norms take {norms[plane.batch_norm]}"] if plane.batch_norm else [])]


def _ending(trail: Trail) -> str:
    """Say how a trail ends, and what the picture does not show of it."""
    off = max(trail.off)
    length = math.hypot(max(trail.x) - min(trail.x), max(trail.y) - min(trail.y))
    if off <= 1e-3 * max(length, 1e-30):
        where = "in the plane all the way"
    elif trail.off[-1] <= 1e-3 * max(length, 1e-30):
        where = f"ends in the plane, up to {off:.3g} off it on the way"
    else:
        where = (
            f"up to {off:.3g} off the plane; ends {trail.off[-1]:.3g} off it, where the map has {trail.shown[-1]:.3g}"
        )
    return f"{trail.name}: loss {trail.losses[0]:.3g} to {trail.losses[-1]:.3g}; {where}"


__all__ = ["draw", "svg"]
