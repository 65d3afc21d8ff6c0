"""Running a plan: trials that the store does not know are trained, and each outcome is recorded as it comes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

from slalom.race.plan import Plan
from slalom.race.pool import Event, Finished, Measure, Measured, Pool
from slalom.race.records import Outcome
from slalom.race.store import Store
from slalom.race.trial import Trial


class Watcher(Protocol):
    """Somebody who wants to see the race while it runs."""

    def measuring(self) -> None:
        """Be told that the workers are starting and the workloads are being timed."""

    def begin(self, trials: int, known: int, seconds: float) -> None:
        """Be told how many trials there are, how many of them are known already, and how long the rest will take."""

    def saw(self, event: Event, seconds: float) -> None:
        """Be told what happened, and how long the rest will take now."""


class Forecast:
    """How long trials take: first by measured steps, then by the trials that have been seen."""

    def __init__(self, plan: Plan, costs: Mapping[str, tuple[float, float] | None], workers: int) -> None:
        self._workers = workers
        self._guess: dict[str, float] = {}
        self._seen: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for entry in plan.entries:
            step, evaluation = costs.get(entry.workload.name) or (0.0, 0.0)
            self._guess[entry.workload.name] = step * entry.workload.steps + evaluation * (
                entry.workload.evaluations + 1
            )

    def learn(self, trial: Trial, outcome: Outcome) -> None:
        """Take a finished trial into account; one that ended early says nothing."""
        if outcome.status == "finished":
            self._seen[trial.workload, trial.contestant.label].append(outcome.seconds)

    def trial(self, trial: Trial) -> float:
        """Return the seconds that one trial should take."""
        seen = self._seen[trial.workload, trial.contestant.label]
        return sum(seen) / len(seen) if seen else self._guess[trial.workload]

    def rest(self, trials: Iterable[Trial]) -> float:
        """Return the seconds until these are done, all workers working."""
        seconds = [self.trial(trial) for trial in trials]
        return max([sum(seconds) / self._workers, *seconds])


def run(plan: Plan, store: Store, workers: int, watcher: Watcher) -> None:
    """Train what is missing. A crashed trial is tried again: memory that was short may not be so any more."""
    known = store.outcomes(trial.key for trial in plan.trials)
    missing = {
        trial.key: trial for trial in plan.trials if trial.key not in known or known[trial.key].status == "crashed"
    }
    if not missing:
        watcher.begin(len(plan.trials), len(plan.trials), 0.0)
        return
    workers = min(workers, len(missing))
    watcher.measuring()
    with Pool(workers) as pool:
        forecast = Forecast(plan, _measure(pool, missing.values()), workers)
        # The longest first, so that no worker is left alone with a long trial at the end. Among equals seed by
        # seed, so that a race that is interrupted has compared all contestants on the seeds that it got to.
        queue = sorted(missing.values(), key=lambda trial: (-forecast.trial(trial), trial.seed))
        watcher.begin(len(plan.trials), len(plan.trials) - len(missing), forecast.rest(queue))
        for event in pool.run(queue):
            if isinstance(event, Finished):
                store.record(event.job, event.outcome)
                forecast.learn(event.job, event.outcome)
                del missing[event.job.key]
            watcher.saw(event, forecast.rest(missing.values()))


def _measure(pool: Pool, trials: Iterable[Trial]) -> dict[str, tuple[float, float] | None]:
    jobs = dict.fromkeys(Measure(trial.workload, trial.file) for trial in trials)
    return {event.job.workload: event.cost for event in pool.run(jobs) if isinstance(event, Measured)}
