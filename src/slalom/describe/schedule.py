"""Schedules in words and pictures; what `slalom explain schedule` prints."""

from __future__ import annotations

import math
from typing import Any

from slalom import pictures
from slalom.schedules import Factor, Product, Schedule, Then

_POINTS = 2000


def picture(schedule: Schedule, steps: float | None = None, lr: float | None = None) -> pictures.Picture:
    """Return the picture of a schedule: multipliers, or rates where the base rate is known."""
    end = _shown(schedule, steps)
    count = _POINTS if end != int(end) or end > _POINTS else int(end)
    places = [end * k / count for k in range(count + 1)]
    values = [schedule(t) * (1.0 if lr is None else lr) for t in places]
    least, most = min(values), max(values)
    log = 0 < least == values[0] and most == values[-1] > 1e3 * least  # growth, which a linear axis shows nothing of
    low = least if log else min(0.0, least)
    curve = pictures.Curve(places, values, str(schedule))
    label = "multiplier" if lr is None else "learning rate"
    return pictures.Picture((curve,), "steps", label, log_y=log, low=low, high=most or 1.0)


def describe(schedule: Schedule, steps: float | None = None, lr: float | None = None, width: int = 90) -> str:
    """Write a schedule as a picture with its phases and formulas beneath."""
    end = _shown(schedule, steps)
    drawn = picture(schedule, steps, lr)
    length = f"{schedule.length:,.6g} steps" if schedule.length < math.inf else f"no end; {end:,.6g} steps are shown"
    rows = [str(schedule), f"  {length}", ""]
    rows += [f"  {row}" for row in pictures.blocks(drawn, max(24, min(width - 12, 84)))]
    rows.append("")
    unit = 1.0 if lr is None else lr
    for start, stop, phase in _phases(schedule):
        until = f"{stop:,.6g}" if stop < math.inf else "…"
        last = f"{phase(phase.length) * unit:.4g}" if stop < math.inf else "…"
        values = f"{phase(0) * unit:.4g} → {last}"
        rows.append(f"  {_clip(str(phase), 34):<34}  {f'{start:,.6g} to {until}':<20}  {values}")
        rows += [f"      {formula}" for formula in _formulas(phase)]
    rows += ["", f"  mean {_label(lr)} {mean(drawn):.4g} over {end:,.6g} steps", ""]
    rows.append(f'  slalom.schedules.parse("{schedule}").attach(optimizer)')
    return "\n".join(rows)


def mean(drawn: pictures.Picture) -> float:
    """Return the mean of the drawn values."""
    return sum(drawn.curves[0].y) / len(drawn.curves[0].y)


def _shown(schedule: Schedule, steps: float | None) -> float:
    """Return how many whole steps to show, unless it counts in progress."""
    span = schedule.span if steps is None else steps
    return float(math.ceil(span)) if span > 2 else span


def _label(lr: float | None) -> str:
    return "multiplier" if lr is None else "learning rate"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _phases(schedule: Schedule) -> list[tuple[float, float, Schedule]]:
    """Return the phases with where each begins and ends."""
    phases = schedule.phases if isinstance(schedule, Then) else (schedule,)
    found, start = [], 0.0
    for phase in phases:
        found.append((start, start + phase.length, phase))
        start += phase.length
    return found


def _formulas(schedule: Schedule) -> list[str]:
    """Return the formula of each schedule that takes part, from the first line of its documentation."""
    if isinstance(schedule, Product):
        return [one for factor in schedule.factors if not isinstance(factor, Factor) for one in _formulas(factor)]
    first = (schedule.__doc__ or "").strip().splitlines()[:1]
    return [line.replace("``", "").replace("`", "") for line in first]


def as_json(schedule: Schedule, steps: float | None = None, lr: float | None = None) -> dict[str, Any]:
    """Return the same facts as data, with at most 201 points."""
    end = _shown(schedule, steps)
    count = min(200, int(end)) or 200
    unit = 1.0 if lr is None else lr
    return {
        "schedule": str(schedule),
        "length": schedule.length if schedule.length < math.inf else None,
        "phases": [
            {"schedule": str(phase), "start": start, "end": stop if stop < math.inf else None}
            for start, stop, phase in _phases(schedule)
        ],
        "mean": mean(picture(schedule, steps, lr)),
        "points": [[end * k / count, schedule(end * k / count) * unit] for k in range(count + 1)],
    }


__all__ = ["as_json", "describe", "picture"]
