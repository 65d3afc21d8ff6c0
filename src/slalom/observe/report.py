"""What a run looks like and what is wrong with it, for people and as data; what `slalom observe` prints."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from slalom import pictures
from slalom.observe.noise import noise_to_batch
from slalom.observe.record import Run
from slalom.observe.rules import Recent, Verdict, diagnose, many
from slalom.observe.verdicts import CATALOGUE

_SHOWN: Final = 12
_NAMED: Final = 4
_WIDE: Final = 9
_COLUMNS: Final = ("|w|", "|g|", "step/|w|", "descent", "turn", "agree", "zeros")


class Report:
    """A run and the verdicts on its last part.

    Attributes:
        run: what was measured.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What is wrong, the worst first; empty if no rule has anything to say."""
        return diagnose(self.run, CATALOGUE)

    @property
    def names(self) -> list[str]:
        """The names of the verdicts."""
        return [verdict.rule.name for verdict in self.verdicts]

    def __str__(self) -> str:
        return self.draw()

    def draw(self, width: int = 90, *, everything: bool = False) -> str:
        """Return the screen.

        Args:
            width: of the terminal.
            everything: list all parameters, not the largest only.
        """
        width = max(72, min(width, 110))
        rows = [*self._head(), ""]
        if not self.run.samples:
            return "\n".join([*rows, "  nothing was sampled yet: the first sample is taken at the second step."])
        rows += [f"  {row}" for row in self._picture(width)]
        rows += [line for verdict in self.verdicts for line in [*_verdict(verdict, width), ""]]
        if not self.verdicts:
            rows += [*_wrapped("  ", self._well(), width), ""]
        rows += self._table(width, everything)
        return "\n".join(rows)

    def as_json(self) -> dict[str, Any]:
        """Return verdicts and the last sample's figures as data; what is not finite as None."""
        recent = Recent(self.run)
        last = self.run.samples[-1] if self.run.samples else None
        return {
            "optimizer": self.run.optimizer,
            "settings": dict(self.run.settings),
            "steps": self.run.steps[-1] if last else 0,
            "samples": len(self.run.samples),
            "overhead": _finite(last.overhead) if last else None,
            "loss": _finite(last.loss) if last else None,
            "reach": _finite(recent.reach()) if last else None,
            "noise_to_batch": _finite(noise_to_batch(self.run, recent.first)) if last else None,
            "verdicts": [_as_data(verdict) for verdict in self.verdicts],
            "parameters": self._figures() if last else [],
        }

    def picture(self) -> pictures.Picture | None:
        """Return the losses against steps, with a mark where the part that verdicts are about begins; None without."""
        points = [(s.step, s.loss) for s in self.run.samples if math.isfinite(s.loss)]
        if len(points) < 2:
            return None
        steps, losses = zip(*points, strict=True)
        first = self.run.steps[max(Recent(self.run).first, 0)]
        log = min(losses) > 0 and max(losses) > 30 * min(losses)
        # down to 0, so that a loss that stands still looks like it
        low = min(losses) if log else min(0.0, *losses)
        curve = pictures.Curve(steps, losses)
        marks = ((first, "judged"),) if first <= steps[-1] else ()
        return pictures.Picture((curve,), "step", "loss", log_y=log, low=low, marks=marks)

    # --- parts of the screen ---------------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        count = sum(parameter.elements for parameter in self.run.parameters)
        rates = self.run.samples[-1].rates if self.run.samples else ()
        known = sorted({f"{rate:.3g}" for rate in rates if math.isfinite(rate)}, key=float)
        rate = f", lr {known[0]}" + (f" to {known[-1]}" if len(known) > 1 else "") if known else ""
        head = f"{self.run.optimizer}{rate}   {many(len(self.run.parameters), 'parameter')}, {many(count, 'value')}"
        if not self.run.samples:
            return [head]
        last = self.run.samples[-1]
        counts = f"{many(last.step, 'step')}, {many(len(self.run.samples), 'sample')}"
        return [head, f"{counts}; watching took {last.overhead:.1%} of the time"]

    def _picture(self, width: int) -> list[str]:
        picture = self.picture()
        return [*pictures.dots(picture, max(24, width - 16), 7), ""] if picture else []

    def _well(self) -> str:
        recent = Recent(self.run)
        if not recent.enough:
            return "Nothing is known yet: most rules want three samples."
        silent = "" if recent.losses else " No loss was given, so nothing was asked about it (watch.loss(loss))."
        return f"Nothing is wrong that one of {len(CATALOGUE)} rules would see, {recent.steps}.{silent}"

    def _figures(self) -> list[dict[str, Any]]:
        recent = Recent(self.run)
        columns = {
            name: recent.medians(name) for name in ("weight", "gradient", "update", "descent", "turn", "agree", "zeros")
        }
        rows = []
        for place, parameter in enumerate(self.run.parameters):
            values = {name: _finite(float(column[place])) for name, column in columns.items()}
            rows.append({"name": parameter.name, "shape": list(parameter.shape), "role": parameter.role, **values})
        return rows

    def _table(self, width: int, everything: bool) -> list[str]:
        recent, figures = Recent(self.run), self._figures()
        count = len(figures) if everything else _SHOWN
        largest = sorted(figures, key=lambda row: -math.prod(row["shape"]))[:count]
        shown = [row for row in figures if row in largest]
        space = min(max([9, *(len(row["name"]) for row in shown)]), 36, width - 2 - 3 * _WIDE)
        columns = min(len(_COLUMNS), (width - 2 - space) // _WIDE)  # a narrow terminal shows fewer
        head = f"  {'parameter':<{space}}" + "".join(f"{name:>{_WIDE}}" for name in _COLUMNS[:columns])
        rows = [f"  medians {recent.steps}", head]
        for row in shown:
            ratio = row["update"] / row["weight"] if row["update"] is not None and row["weight"] else None
            cells = [_short(row["weight"]), _short(row["gradient"]), _short(ratio)]
            cells += [_signed(row[name]) for name in ("descent", "turn", "agree")]
            cells.append("" if row["zeros"] is None else f"{row['zeros']:.0%}")
            rows.append(
                f"  {_clip(row['name'], space):<{space}}" + "".join(f"{cell:>{_WIDE}}" for cell in cells[:columns])
            )
        if len(shown) < len(figures):
            rows.append(f"  and {len(figures) - len(shown):,} smaller ones (--all)")
        noise, reach = noise_to_batch(self.run, recent.first), recent.reach()
        facts = (
            [f"  signal and noise would be equal in a batch {noise:.2g} times as large"]
            if 0.01 < noise < math.inf
            else []
        )
        if not math.isnan(reach):
            facts.append(f"  along a step its batch's loss is lowest at {reach:.2g} of the step's length")
        return [*rows, *([""] if facts else []), *facts]


def _verdict(verdict: Verdict, width: int) -> list[str]:
    rule, evidence = verdict.rule, verdict.evidence
    title = f"  {rule.weight.upper():<8}{rule.title}"
    rows = [f"{title:<{max(width - len(rule.name), len(title) + 2)}}{rule.name}"]
    rows += _field("seen", evidence.seen[0].upper() + evidence.seen[1:] + ".", width)
    if evidence.where:
        named = [f"{name} {value:.3g}" if math.isfinite(value) else name for name, value in evidence.where[:_NAMED]]
        more = len(evidence.where) - _NAMED
        rows += _field("where", ", ".join(named) + (f" and {more} more" if more > 0 else ""), width)
    rows += _field("means", rule.means, width)
    rows += _field("do", rule.remedy, width)
    return rows


def _field(name: str, text: str, width: int) -> list[str]:
    return _wrapped(f"          {name:<8}", text, width)


def _wrapped(start: str, text: str, width: int) -> list[str]:
    rest = " " * len(start)
    return textwrap.wrap(text, width, initial_indent=start, subsequent_indent=rest, break_on_hyphens=False)


def _as_data(verdict: Verdict) -> dict[str, Any]:
    rule, evidence = verdict.rule, verdict.evidence
    values: Mapping[str, float | None] = {name: _finite(value) for name, value in evidence.values.items()}
    return {
        "name": rule.name,
        "title": rule.title,
        "weight": rule.weight,
        "seen": evidence.seen,
        "where": [{"parameter": name, "value": _finite(value)} for name, value in evidence.where],
        "values": values,
        "limits": dict(rule.limits),
        "means": rule.means,
        "remedy": rule.remedy,
        "source": rule.source,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.1e}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _clip(name: str, space: int) -> str:
    return name if len(name) <= space else "…" + name[len(name) - space + 1 :]


__all__ = ["Report"]
