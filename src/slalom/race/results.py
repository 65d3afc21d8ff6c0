"""A race's results in one value, which the terminal, the JSON and the report all show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slalom.race.calibration import disturbed
from slalom.race.plan import Plan
from slalom.race.records import Outcome
from slalom.race.scoring import RULES, AlgoPerf, Board, Comparison, Course, Doubt, Place, Row, board, overall
from slalom.race.standings import Standings, standings
from slalom.race.store import Run, Store
from slalom.race.trial import Trial

# Who is slower by more than this has no part in AlgoPerf's score.
R_MAX = AlgoPerf().r_max


@dataclass(frozen=True)
class Failure:
    """A trial that did not reach its end."""

    trial: Trial
    outcome: Outcome


@dataclass(frozen=True)
class Warned:
    """A warning, and in how many trials it was given."""

    contestant: str
    workloads: tuple[str, ...]
    text: str
    trials: int


@dataclass(frozen=True)
class Results:
    """What is known of a plan so far.

    Attributes:
        plan: what was asked for.
        boards: a ranking for each workload that has results, in the plan's order.
        places: the ranking over all of them.
        failures: the trials that diverged, crashed or timed out.
        outcomes: by trial key.
        standings: the ranking by time to target, or None if no workload has one.
        costs: isolated CPU milliseconds of a step by workload and contestant.
        disturbed: keys of the trials before or after which the machine was slower than usual.
        runs: the calls of the command that made the race.
        foreign: how many trials in the store belong to other code.
        warnings: what was warned of in trials.
    """

    plan: Plan
    boards: tuple[Board, ...]
    places: tuple[Place, ...]
    failures: tuple[Failure, ...]
    outcomes: Mapping[str, Outcome]
    standings: Standings | None = None
    costs: Mapping[tuple[str, str], float] = field(default_factory=dict)
    disturbed: frozenset[str] = frozenset()
    runs: tuple[Run, ...] = ()
    foreign: int = 0
    warnings: tuple[Warned, ...] = ()

    @property
    def missing(self) -> int:
        """How many trials have not been run."""
        return len({trial.key for trial in self.plan.trials}) - len(self.outcomes)


def load(plan: Plan, store: Store) -> Results:
    """Score what a store knows of a plan."""
    outcomes = store.outcomes(trial.key for trial in plan.trials)
    costs = {who: numbers[0] for who, (_, numbers) in store.costs().items()}
    return gather(plan, outcomes, costs, tuple(store.runs()), store.foreign())


def gather(
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    costs: Mapping[tuple[str, str], float] | None = None,
    runs: tuple[Run, ...] = (),
    foreign: int = 0,
) -> Results:
    """Score the outcomes that there are."""
    run = [trial for trial in plan.trials if trial.key in outcomes]
    records = [trial.record(outcomes[trial.key]) for trial in run]
    boards = []
    for entry in plan.entries:
        workload = entry.workload
        steps = round(workload.steps * plan.rules.budget)
        course = Course(workload.name, workload.title, steps, workload.target, workload.reference)
        scored = board(course, records)
        if scored.rows:
            boards.append(scored)
    failed = [Failure(trial, outcomes[trial.key]) for trial in run if outcomes[trial.key].status != "finished"]
    return Results(
        *(plan, tuple(boards), overall(boards), tuple(failed), outcomes),
        standings=standings(plan, records, costs),
        costs=costs or {},
        disturbed=_disturbed(outcomes),
        runs=runs,
        foreign=foreign,
        warnings=_warnings(run, outcomes),
    )


def _warnings(run: list[Trial], outcomes: Mapping[str, Outcome]) -> tuple[Warned, ...]:
    """Return what was warned of, with the trials of one contestant together."""
    found: dict[tuple[str, str], list[str]] = {}
    for trial in run:
        for text in outcomes[trial.key].warnings:
            found.setdefault((trial.contestant.label, text), []).append(trial.workload)
    return tuple(
        Warned(label, tuple(dict.fromkeys(workloads)), text, len(workloads))
        for (label, text), workloads in found.items()
    )


def _disturbed(outcomes: Mapping[str, Outcome]) -> frozenset[str]:
    """Return the keys of trials around which the machine was slower than it usually was, machine by machine."""
    machines: dict[str, list[float]] = {}
    for outcome in outcomes.values():
        machines.setdefault(repr(sorted(outcome.environment.items())), []).extend(outcome.calibration)
    usual = {machine: statistics.median(times) for machine, times in machines.items() if times}
    return frozenset(
        key
        for key, outcome in outcomes.items()
        if outcome.calibration and disturbed(outcome.calibration, usual[repr(sorted(outcome.environment.items()))])
    )


def question(results: Results) -> str:
    """Return what the race asks."""
    if results.plan.rules.name == "external":
        how = f"each tuned with {results.plan.rules.trials} trials a study"
        return f"Which of {len(results.plan.contestants)} optimizers, {how}, reaches the targets in the fewest steps?"
    if results.plan.rules.name == "self-tuning":
        count = len(results.plan.contestants)
        return f"Which of {count} optimizers, each as it comes, reaches the targets in the fewest steps?"
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
    sentences += _verdicts(results.standings)
    for one in decided:
        level = [row.contestant for row in one.rows[1:] if row.level]
        note = ""
        if level:
            note = f", not clearly ahead of {_list(level) if len(level) < 4 else f'{len(level)} others'}"
        sentences.append(f"Lowest on {one.course.name}: {one.rows[0].contestant}{note}.")
    return " ".join(sentences)


def caveat(results: Results) -> str:
    """Return how far the answer goes."""
    seeds = len(results.plan.seeds)
    words = [f"{seeds} seed{'s' if seeds > 1 else ''} per setting: small differences are undecided."]
    if results.standings and (least := _detectable(results.standings)) < math.inf:
        told = f"a ratio of {least:.2f}" if least < R_MAX else f"not even a ratio of {R_MAX:g}"
        words.append(f"Between two that are typical here {told} in steps could have been told from 1.")
    if results.disturbed:
        words.append(
            f"The machine was disturbed around {len(results.disturbed)} of {len(results.outcomes)} trials: "
            "their times are worth less, their steps as much as ever."
        )
    if _untuned(results):
        words.append("With one learning rate for each optimizer this compares settings, not methods.")
    if results.missing:
        words.append(f"{results.missing} of {len(results.plan.trials)} trials have not been run yet.")
    return " ".join(words)


def _verdicts(standing: Standings | None) -> list[str]:
    """Say who beats whom, if an interval says so."""
    if standing is None or len(standing.table.entrants) < 2:
        return []
    won = standing.verdicts
    if not won:
        return ["By steps to target no two can be told apart: no paired 95 % interval excludes a ratio of 1."]
    told = [f"{one.first} beats {one.second} ({_ratio(one)})" for one in won[:3]]
    more = f"; so are {len(won) - 3} other pairs decided" if len(won) > 3 else ""
    return [f"By steps to target {'; '.join(told)}{more}. The other pairs are undecided."]


def _ratio(one: Comparison) -> str:
    return f"{one.ratio:.2f} times as fast, 95 % interval {one.low:.2f} to {one.high:.2f}, over {one.units} {one.over}"


def _detectable(standing: Standings) -> float:
    """Return the median over pairs of the smallest ratio that could have been told from 1."""
    return statistics.median([one.detectable for one in standing.comparisons] or [math.inf])


def as_json(results: Results) -> dict[str, Any]:
    """Return the leaderboard as plain data; what is infinite or unknown is null."""
    plain: dict[str, Any] = _finite(_facts(results))
    return plain


def _facts(results: Results) -> dict[str, Any]:
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
        "warnings": [asdict(one) for one in results.warnings],
        "standings": _standings(results.standings),
        "ruleset": results.plan.rules.explain(),
        "disturbed": len(results.disturbed),
        "other_code": results.foreign,
        "rules": RULES,
    }


def _standings(standing: Standings | None) -> dict[str, Any] | None:
    if standing is None:
        return None
    return {
        "algoperf": _doubt(standing.algoperf),
        "reference": _doubt(standing.reference) if standing.reference else None,
        "speedup": {**_doubt(standing.speedup), "baseline": standing.baseline, "censored": dict(standing.censored)},
        "published": dict(standing.published),
        "by_clock": {clock: dict(found) for clock, found in standing.by_clock.items()},
        "held_out": dict(standing.held_out),
        "missing": [list(cell) for cell in standing.table.missing],
        "pairs": [
            {
                "first": one.first,
                "second": one.second,
                "ratio": one.ratio if one.units else None,
                "low": one.low,
                "high": one.high,
                "winner": one.winner,
                "units": one.units,
                "over": one.over,
                "censored": one.censored,
            }
            for one in standing.comparisons
        ],
    }


def _doubt(one: Doubt) -> dict[str, Any]:
    return {
        "score": dict(one.score),
        "low": dict(one.low),
        "high": dict(one.high),
        "ranks": {name: list(row) for name, row in one.ranks.items()},
        "wins": {name: dict(row) for name, row in one.wins.items()},
        "without_workload": {name: dict(row) for name, row in one.without_workload.items()},
        "without_entrant": {name: dict(row) for name, row in one.without_entrant.items()},
    }


def _untuned(results: Results) -> bool:
    rates = {(trial.workload, trial.contestant.label, trial.index) for trial in results.plan.trials}
    return len(rates) == len(results.plan.entries) * len(results.plan.contestants)


def _row(row: Row) -> dict[str, Any]:
    return {
        "contestant": row.contestant,
        "rank": row.rank,
        "level_with_leader": row.level,
        "lr": row.best.lr,
        "lr_at_edge": bool(row.edge),
        "loss": row.loss,
        "spread": row.best.spread,
        "finals": {str(seed): value for seed, value in row.best.finals.items()},
        "metrics": dict(row.metrics),
        "steps_to_target": row.steps,
        "cpu_seconds_to_target": row.seconds,
        "step_ms": row.step_ms,
        "optimizer_ms": row.optimizer_ms,
        "diverged": row.diverged,
        "crashed": row.crashed,
        "timeout": row.timeout,
    }


def _finite(value: Any) -> Any:
    """Return plain data with None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
