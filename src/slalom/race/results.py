"""A race's results in one value, which the terminal, the JSON and the report all show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slalom.race.plan import Plan
from slalom.race.records import Outcome
from slalom.race.scoring import RULES, Board, Course, Place, Row, board, overall
from slalom.race.trial import Trial


@dataclass(frozen=True)
class Failure:
    """A trial that did not reach its end."""

    trial: Trial
    outcome: Outcome


@dataclass(frozen=True)
class Results:
    """What is known of a plan so far.

    Attributes:
        plan: what was asked for.
        boards: a ranking for each workload that has results, in the plan's order.
        places: the ranking over all of them.
        failures: the trials that diverged or crashed.
        outcomes: by trial key.
    """

    plan: Plan
    boards: tuple[Board, ...]
    places: tuple[Place, ...]
    failures: tuple[Failure, ...]
    outcomes: Mapping[str, Outcome]

    @property
    def missing(self) -> int:
        """How many trials have not been run."""
        return len({trial.key for trial in self.plan.trials}) - len(self.outcomes)


def gather(plan: Plan, outcomes: Mapping[str, Outcome]) -> Results:
    """Score the outcomes that there are."""
    run = [trial for trial in plan.trials if trial.key in outcomes]
    records = [trial.record(outcomes[trial.key]) for trial in run]
    boards = []
    for entry in plan.entries:
        workload = entry.workload
        scored = board(Course(workload.name, workload.title, workload.steps, workload.target), records)
        if scored.rows:
            boards.append(scored)
    failed = [Failure(trial, outcomes[trial.key]) for trial in run if outcomes[trial.key].status != "finished"]
    return Results(plan, tuple(boards), overall(boards), tuple(failed), outcomes)


def question(results: Results) -> str:
    """Return what the race asks."""
    rates = "each at one learning rate" if _untuned(results) else "each at its best learning rate"
    count = len(results.plan.contestants)
    return f"Which of {count} optimizers, {rates}, reaches the lowest validation loss in the same number of steps?"


def answer(results: Results) -> str:
    """Return what the race found, no more than it can bear."""
    decided = [one for one in results.boards if math.isfinite(one.rows[0].loss)]
    if not decided:
        return "No run has finished, so there is nothing to compare yet."
    sentences = []
    best = results.places[0]
    if len(decided) > 1:
        ahead = [place.contestant for place in results.places if place.mean_rank == best.mean_rank]
        sentences.append(
            f"{_list(ahead)} {'has' if len(ahead) == 1 else 'share'} the best mean rank ({best.mean_rank:.3g}) "
            f"over {len(decided)} workloads."
        )
    for one in decided:
        level = [row.contestant for row in one.rows[1:] if row.level]
        note = f", not clearly ahead of {_list(level)}" if level else ""
        sentences.append(f"Lowest on {one.course.name}: {one.rows[0].contestant}{note}.")
    return " ".join(sentences)


def caveat(results: Results) -> str:
    """Return how far the answer goes."""
    seeds = len(results.plan.seeds)
    words = [f"{seeds} seed{'s' if seeds > 1 else ''} per setting: small differences are undecided."]
    if _untuned(results):
        words.append("With one learning rate for each optimizer this compares settings, not methods.")
    if results.missing:
        words.append(f"{results.missing} of {len(results.plan.trials)} trials have not been run yet.")
    return " ".join(words)


def as_json(results: Results) -> dict[str, Any]:
    """Return the leaderboard as plain data; what is infinite or unknown is null."""
    return {
        "question": question(results),
        "answer": answer(results),
        "caveat": caveat(results),
        "missing": results.missing,
        "overall": [
            {
                "contestant": place.contestant,
                "mean_rank": place.mean_rank,
                "wins": place.wins,
                "budget_share": place.budget_share,
                "workloads": place.workloads,
            }
            for place in results.places
        ],
        "workloads": [
            {
                "workload": one.course.name,
                "title": one.course.title,
                "steps": one.course.steps,
                "target": one.course.target,
                "ranking": [_row(row) for row in one.rows],
            }
            for one in results.boards
        ],
        "failures": [
            {
                "workload": failure.trial.workload,
                "contestant": failure.trial.contestant.label,
                "lr": failure.trial.lr,
                "seed": failure.trial.seed,
                "status": failure.outcome.status,
                "step": failure.outcome.stopped,
                "reason": failure.outcome.reason,
            }
            for failure in results.failures
        ],
        "rules": RULES,
    }


def _untuned(results: Results) -> bool:
    rates = {(trial.workload, trial.contestant.label, trial.lr) for trial in results.plan.trials}
    return len(rates) == len(results.plan.entries) * len(results.plan.contestants)


def _row(row: Row) -> dict[str, Any]:
    return {
        "contestant": row.contestant,
        "rank": row.rank,
        "level_with_leader": row.level,
        "lr": row.best.lr,
        "lr_at_edge": bool(row.edge),
        "loss": _finite(row.loss),
        "spread": _finite(row.best.spread),
        "finals": {str(seed): _finite(value) for seed, value in row.best.finals.items()},
        "metrics": {name: _finite(value) for name, value in row.metrics.items()},
        "steps_to_target": _finite(row.steps),
        "cpu_seconds_to_target": _finite(row.seconds),
        "step_ms": _finite(row.step_ms),
        "optimizer_ms": _finite(row.optimizer_ms),
        "diverged": row.diverged,
        "crashed": row.crashed,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
