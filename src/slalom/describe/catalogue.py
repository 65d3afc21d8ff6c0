"""The catalogue as a page for the documentation: what `slalom explain` says of each method, by family."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import replace

from slalom.describe.pages import describe_sheet
from slalom.describe.sheets import bytes_per_parameter, sheets, symbolic
from slalom.recipes import FAMILIES, Method, list_optimizers, method

_HEAD = """# The methods

{count} named optimizers by family: the formula slot by slot, the bytes, when to take it and when not, the arguments
with their defaults. Written by `slalom list --markdown`; `slalom explain NAME` says the same on one screen, with other
arguments too, and why. `state` in the tables: bytes per parameter of a 1024 x 1024 matrix. Which one to take:
[choosing.md](choosing.md).
"""
_WIDTH = 110


def by_family(names: Iterable[str]) -> list[tuple[str, list[Method]]]:
    """Return the entries of these methods, the oldest first, by family, in the order in which one learns families."""
    members = [method(name) for name in names]
    order = [*FAMILIES, *sorted({entry.family for entry in members} - set(FAMILIES))]
    members.sort(key=lambda entry: (order.index(entry.family), entry.year, entry.name))
    return [(family, list(found)) for family, found in itertools.groupby(members, key=lambda entry: entry.family)]


def methods_page(names: Iterable[str] | None = None) -> str:
    """Return the page, of all methods or of some."""
    chosen = list_optimizers() if names is None else list(names)
    families = by_family(chosen)
    rows = [_HEAD.format(count=len(chosen))]
    # a family and a method may share a name, as adam does, and would share a link
    rows += [f"- [{family}](#family-{family}): {FAMILIES.get(family, 'of your own')}" for family, _ in families]
    for family, members in families:
        rows += ["", f"## Family: {family}", "", "| method | year | state | use |", "| --- | --- | --- | --- |"]
        rows += [
            f"| [{entry.name}](#{entry.name}) | {entry.year} | {bytes_per_parameter(entry):.3g} | {_cell(entry.use)} |"
            for entry in members
        ]
        for entry in members:
            rows += _section(entry)
    return "\n".join(rows) + "\n"


def _section(entry: Method) -> list[str]:
    body = "\n\n".join(describe_sheet(replace(one, lessons=()), _WIDTH) for one in sheets(symbolic(entry)))
    arguments = ", ".join(f"{name}={value!r}" for name, value in entry.defaults.items())
    return [
        *("", f"### {entry.name}", ""),
        f"{entry.title[0].upper()}{entry.title[1:]}. {_linked(entry.source)}.",
        *("", "```", body, "```", ""),
        f"    slalom.{entry.class_name}(params, {arguments})",
        "",
        f"- **use** {entry.use}",
        f"- **avoid** {entry.avoid}",
        *([f"- **also** {', '.join(entry.also)}"] if entry.also else []),
        *([f"- **not** {entry.others}"] if entry.others else []),
    ]


def _linked(source: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
