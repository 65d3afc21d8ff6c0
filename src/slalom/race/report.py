"""The report: one HTML file that needs nothing but itself, now or in ten years."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from slalom.errors import UsageError
from slalom.race.anchors import NOTE, SOURCE, anchors_for
from slalom.race.charts import charts
from slalom.race.leaderboard import EDGE, loss, rank, speedup, to_target
from slalom.race.palette import COLOURS, styles
from slalom.race.profiles import race_charts
from slalom.race.results import Results, answer, caveat, question
from slalom.race.scoring import CLOCKS, RULES
from slalom.race.targets import frozen


def write(results: Results, path: Path, command: str) -> None:
    """Write the report, all of it or nothing: a reader never meets half a file."""
    text = render(results, command)
    draft = path.with_suffix(".html.part")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror}); the results are safe, and the same command writes it."
        ) from None


def render(results: Results, command: str) -> str:
    """Return the report as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.globals.update(speedup=speedup)
    environment.filters.update(loss=loss, number=_number, target=to_target, rank=rank)
    template = environment.from_string((files("slalom.race") / "report.html.j2").read_text(encoding="utf-8"))
    script = (files("slalom.race") / "report.js").read_text(encoding="utf-8")
    contestants = results.plan.contestants
    looks = styles([contestant.label for contestant in contestants])
    return template.render(
        question=question(results),
        answer=answer(results),
        caveat=caveat(results),
        results=results,
        standing=results.standings,
        race_charts=race_charts(results.standings, looks) if results.standings else [],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        anchors=anchors_for([contestant.label for contestant in contestants]),
        anchors_source=SOURCE,
        anchors_note=NOTE,
        ruleset=results.plan.rules.explain(),
        clocks=CLOCKS,
        targets={entry.workload.name: frozen().get(entry.workload.name) for entry in results.plan.entries},
        boards=[(board, charts(board, looks)) for board in results.boards],
        styles=looks,
        colours=COLOURS,
        edge=EDGE,
        rules=RULES,
        command=command,
        environments=_environments(results),
        entries=results.plan.entries,
        hyperparameters={
            contestant.label: json.dumps(contestant.identity(), default=str) for contestant in contestants
        },
        rates={label: _rates(results, label) for label in looks},
    )


def _environments(results: Results) -> list[Mapping[str, Any]]:
    """Return the different machines and versions that results come from; more than one is worth knowing."""
    found = {json.dumps(dict(outcome.environment), sort_keys=True) for outcome in results.outcomes.values()}
    return [json.loads(text) for text in sorted(found) if text != "{}"]


def _rates(results: Results, label: str) -> str:
    rates = sorted({trial.lr for trial in results.plan.trials if trial.contestant.label == label})
    return ", ".join(f"{lr:.3g}" for lr in rates)


def _number(value: float | None, digits: str = ".3g") -> str:
    return format(value, digits) if value is not None and math.isfinite(value) else "–"
