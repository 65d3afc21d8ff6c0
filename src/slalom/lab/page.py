"""A finding as files: its pictures as one SVG, or everything as a page that needs nothing but itself."""

from __future__ import annotations

import re
from html import escape

from slalom import pictures
from slalom.lab.finding import Finding, cell
from slalom.landscape import Plane

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_LOOK = (
    ":root{color-scheme:light dark}"
    "body{max-width:46rem;margin:3rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}"
    "body{background:#fff;color:#1f2328}"
    "svg{max-width:100%;height:auto;margin:1rem 0}h1{font-size:1.5rem;margin-bottom:0}h2{font-size:1.1rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:1rem 0}"
    "td{padding:.25rem .8rem .25rem 0;text-align:right;border-bottom:1px solid #8884;vertical-align:top}"
    "td:first-child,.signs td{text-align:left}.quiet,tr:first-child{opacity:.7}"
    ".wide{overflow-x:auto}code{font:.9em ui-monospace,monospace}dd{margin:0 0 .6rem 1.5rem}"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}}"
)


def svg(finding: Finding) -> str:
    """Return the pictures of the first run, one under the other."""
    drawn = _pictures(finding)
    if len(drawn) == 1:
        return drawn[0]
    sizes = [tuple(map(int, re.findall(r'(?:width|height)="(\d+)"', picture)[:2])) for picture in drawn]
    parts, y = [], 0
    for picture, (_, height) in zip(drawn, sizes, strict=True):
        parts.append(picture.replace("<svg ", f'<svg y="{y}" ', 1))
        y += height
    width = max(width for width, _ in sizes)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}">'
    return f"{head}\n{''.join(parts)}</svg>\n"


def html(finding: Finding) -> str:
    """Return a page: claim, pictures, numbers, signs, settings."""
    what, table = finding.phenomenon, finding.table
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>slalom lab {escape(what.name)}</title><style>{_LOOK}</style></head><body>",
        f'<h1>{escape(what.title[0].upper() + what.title[1:])}</h1><p class="quiet">{escape(what.source)}</p>',
        f"<p>{escape(what.claim)}</p>",
        *_pictures(finding),
    ]
    if table is not None:
        rows = [table.head, *((name, *map(cell, row)) for name, row in table.rows.items())]
        parts.append(f'<div class="wide"><table>{"".join(map(_row, rows))}</table></div>')
    signs = [
        (one.sign.claim, one.sign.expected, f"{one.measured}; {one.sign.needs} needed", one.verdict)
        for one in finding.judged
    ]
    rows = [("claim", "expected", "measured", ""), *signs]
    parts.append(f'<table class="signs">{"".join(map(_row, rows))}</table>')
    tries = "".join(
        f"<dt><code>slalom lab {escape(word)}</code></dt><dd>{escape(why)}</dd>" for word, why in what.variants.items()
    )
    settings = ", ".join(f"{name}={value}" for name, value in what.settings().items())
    count = len(finding.runs)
    runs = f"seed {finding.first}" if count == 1 else f"seeds {finding.first} to {finding.first + count - 1}"
    parts += [
        f"<p><strong>{escape(finding.sentence)}</strong></p><p>{escape(what.here)}</p>",
        f"<h2>What to try next</h2><dl>{tries}</dl>",
        f'<p class="quiet">{escape(settings)}; {runs}, {finding.seconds:.3g} CPU seconds.</p></body></html>\n',
    ]
    return "\n".join(parts)


def _pictures(finding: Finding) -> list[str]:
    return [
        one.svg(title) if isinstance(one, Plane) else pictures.svg(one, title)
        for title, one in finding.runs[0].pictures.items()
    ]


def _row(cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
