"""What steps cost, found out before a race by timing a few of everybody's on each workload."""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import astuple
from typing import Protocol

from slalom.race.contestant import Contestant
from slalom.race.forecast import Forecast
from slalom.race.plan import Plan
from slalom.race.store import Store
from slalom.race.trial import Trial
from slalom.race.work import Cost, Crew, Measure, Measured, Started

# A method that has not made its steps after so many seconds is not waited for, on a machine with nothing else to do.
PATIENCE = 30.0
# Timing takes no more than this share of the steps that a contestant trains on a workload in the race.
SHARE = 0.02


class Onlooker(Protocol):
    """Somebody who wants to see how far the timing of steps is."""

    def measuring(self, done: int, total: int, job: Measure | None) -> None:
        """Be told how many of all are timed, and whose steps are being timed now; the first time nobody's."""


def survey(
    plan: Plan,
    crew: Crew,
    store: Store,
    trials: Collection[Trial],
    watcher: Onlooker,
    timeout: float = math.inf,
) -> Forecast:
    """Time steps, and find out how much slower they are when all workers train at once."""
    costs = measure(crew, store, trials, watcher)
    return Forecast(plan, costs, crew.size, _crowding(crew, trials, costs), timeout)


def measure(crew: Crew, store: Store, trials: Iterable[Trial], watcher: Onlooker) -> dict[tuple[str, str], Cost]:
    """Return what steps cost, one at a time so that nothing of ours disturbs them; what is known is not timed again."""
    kept = store.costs()
    steps: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        who = (trial.workload, trial.contestant.label)
        steps[who] += trial.steps
        first.setdefault(who, trial)
    # A recipe in a file keeps its label when the file is edited, so its contents are part of what the cost is filed by.
    identities = {who: fingerprint(trial.contestant) for who, trial in first.items()}
    costs = {
        who: Cost(*kept[who][1]) for who, identity in identities.items() if who in kept and kept[who][0] == identity
    }
    patience = PATIENCE * _load()
    todo = [_job(trial, steps[who], patience) for who, trial in first.items() if who not in costs]
    if todo:
        watcher.measuring(0, len(todo), None)
    done = 0
    for event in crew.run(todo, at_once=1, timeout=patience):
        if isinstance(event, Started) and isinstance(event.job, Measure):
            watcher.measuring(done, len(todo), event.job)
        if not isinstance(event, Measured):
            continue
        done += 1
        if event.cost is not None:
            who = (event.job.workload, event.job.contestant.label)
            costs[who] = event.cost
            store.keep_cost(*who, identities[who], *astuple(event.cost))
    return costs


def fingerprint(contestant: Contestant) -> str:
    """Return a digest of everything that determines how a contestant trains, apart from its settings."""
    return hashlib.sha256(json.dumps(contestant.identity(), sort_keys=True, default=repr).encode()).hexdigest()[:16]


def _load() -> float:
    """Return how many programs want each core, at least 1: a step is waited for that many times as long."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _job(trial: Trial, steps: int, patience: float) -> Measure:
    # Half the patience is for steps: they end by themselves then, and their time is known.
    return Measure(trial.workload, trial.file, trial.contestant, max(1, round(SHARE * steps)), patience / 2)


def _crowding(crew: Crew, trials: Iterable[Trial], costs: dict[tuple[str, str], Cost]) -> float:
    """Return how many times as long a step takes when all workers train."""
    # Long steps need the memory that workers share, and are what a race's time goes into: so one of the longer ones is
    # timed, but none that takes a second.
    short = sorted((who for who in costs if costs[who].step < 1.0), key=lambda who: costs[who].step)
    if crew.size == 1 or not short:
        return 1.0
    who = short[len(short) * 3 // 4]
    trial = next(trial for trial in trials if (trial.workload, trial.contestant.label) == who)
    job = _job(trial, 10**6, math.inf)

    def times(jobs: list[Measure]) -> list[float]:
        return [event.cost.step for event in crew.run(jobs) if isinstance(event, Measured) and event.cost]

    together, alone = times([job] * crew.size), times([job])
    return max(1.0, statistics.fmean(together) / alone[0]) if together and alone else 1.0
