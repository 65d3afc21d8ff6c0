"""What several runs of a phenomenon say together: which signs showed, in how many seeds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from slalom.lab.phenomenon import Phenomenon, Run, Sign, Table
from slalom.landscape import Plane
from slalom.pictures import Picture

Verdict: TypeAlias = Literal["seen", "partly seen", "not seen", "nothing to judge"]


@dataclass(frozen=True)
class Judged:
    """A sign with what was measured of it.

    Attributes:
        sign: what was claimed.
        values: one per run; none where these settings do not yield the number.
    """

    sign: Sign
    values: tuple[float, ...]

    @property
    def shown(self) -> int:
        """In how many runs the sign showed."""
        return sum(map(self.sign.holds, self.values))

    @property
    def verdict(self) -> str:
        """Whether it showed, in a word or two."""
        if not self.values:
            return "not measured"
        if self.shown in (0, len(self.values)):
            return "seen" if self.shown else "not seen"
        return f"seen in {self.shown} of {len(self.values)}"

    @property
    def measured(self) -> str:
        """The numbers in words: the median, and the range of several."""
        if not self.values:
            return "–"
        middle = _short(statistics.median(self.values))
        low, high = _short(min(self.values)), _short(max(self.values))
        return middle if low == high else f"{middle} ({low} to {high})"


@dataclass(frozen=True)
class Finding:
    """A phenomenon as it showed here.

    Attributes:
        phenomenon: with the settings that ran.
        first: the seed of the first run; the others follow it.
        runs: one per seed.
        seconds: CPU time of all runs.
    """

    phenomenon: Phenomenon
    first: int
    runs: tuple[Run, ...]
    seconds: float

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Every sign with its numbers."""
        return tuple(
            Judged(sign, tuple(run.values[sign.key] for run in self.runs if sign.key in run.values))
            for sign in self.phenomenon.signs
        )

    @property
    def verdict(self) -> Verdict:
        """Whether the phenomenon showed: all of its signs in all runs, some, or none."""
        judged = [one for one in self.judged if one.values]
        if not judged:
            return "nothing to judge"
        if all(one.shown == len(one.values) for one in judged):
            return "seen"
        return "partly seen" if any(one.shown for one in judged) else "not seen"

    @property
    def sentence(self) -> str:
        """The verdict with what it rests on."""
        measured = [one for one in self.judged if one.values]
        if not measured:
            return "Nothing to judge: none of the signs is about these recipes."
        full = sum(one.shown == len(one.values) for one in measured)
        where = "in the one run" if len(self.runs) == 1 else f"in each of {len(self.runs)} runs"
        left = len(self.judged) - len(measured)
        others = f"; {left} not measured with these settings" if left else ""
        head = self.verdict[0].upper() + self.verdict[1:]
        return f"{head}: {full} of {len(measured)} signs showed {where}{others}."

    @property
    def table(self) -> Table | None:
        """The runs' tables as one of medians."""
        tables = [run.table for run in self.runs if run.table is not None]
        if not tables:
            return None
        rows = {}
        for name in tables[0].rows:
            columns = zip(*(table.rows[name] for table in tables), strict=True)
            rows[name] = tuple(_median(column) for column in columns)
        return Table(tables[0].head, rows)

    def as_json(self) -> dict[str, Any]:
        """Return everything as data; what is not finite as None."""
        what, table = self.phenomenon, self.table
        rows = {
            name: [None if value is None else _finite(value) for value in row]
            for name, row in (table.rows.items() if table else ())
        }
        return {
            "phenomenon": what.name,
            "title": what.title,
            "source": what.source,
            "claim": what.claim,
            "here": what.here,
            "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in what.settings().items()},
            "seeds": [self.first + place for place in range(len(self.runs))],
            "cpu_seconds": round(self.seconds, 2),
            "verdict": self.verdict,
            "signs": [
                {
                    "key": one.sign.key,
                    "claim": one.sign.claim,
                    "expected": one.sign.expected,
                    "needs": one.sign.needs,
                    "values": [_finite(value) for value in one.values],
                    "verdict": one.verdict,
                }
                for one in self.judged
            ],
            "table": table and {"head": list(table.head), "rows": rows},
            "curves": {
                title: [
                    {"label": curve.label, "x": list(map(_finite, curve.x)), "y": list(map(_finite, curve.y))}
                    for curve in picture.curves
                    if not curve.faint
                ]
                for title, picture in self.runs[0].pictures.items()
                if isinstance(picture, Picture)
            },
            "planes": {
                title: plane.as_json() for title, plane in self.runs[0].pictures.items() if isinstance(plane, Plane)
            },
        }


def study(
    phenomenon: Phenomenon,
    *,
    seeds: int | None = None,
    first: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Finding:
    """Run a phenomenon and see whether it shows.

    Args:
        phenomenon: with its settings, as `set_up` builds it.
        seeds: how many runs; by default as many as the phenomenon asks for.
        first: the seed of the first run.
        progress: told how much of everything is done, from 0 to 1.
    """
    count = phenomenon.seeds if seeds is None else seeds
    began, runs = time.process_time(), []
    for place in range(count):

        def tell(share: float, place: int = place) -> None:
            if progress is not None:
                progress((place + share) / count)

        runs.append(phenomenon.run(first + place, tell))
        tell(1.0)
    return Finding(phenomenon, first, tuple(runs), time.process_time() - began)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def cell(value: float | None) -> str:
    """Write a number of a table."""
    if value is None:
        return "–"
    return "∞" if value == math.inf else f"{value:.4g}"


def _short(value: float) -> str:
    return "∞" if value == math.inf else f"{value:.3g}"
