"""Running a plan: trials that the store does not know are trained, and each outcome is recorded as it comes."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol

from slalom.race.contestant import Contestant
from slalom.race.forecast import Estimate, Forecast
from slalom.race.plan import Plan
from slalom.race.pool import Pool
from slalom.race.records import Outcome
from slalom.race.store import LEASE, Store
from slalom.race.trial import Trial
from slalom.race.work import Cost, Crew, Event, Finished, Measure, Measured, Ticked

# A trial that takes longer is stopped, unless somebody says otherwise: a hung one would stop the race.
TIMEOUT = 1800.0


class Watcher(Protocol):
    """Somebody who wants to see the race while it runs."""

    def measuring(self) -> None:
        """Be told that the workers are starting and steps are being timed."""

    def begin(self, trials: int, known: int, left: Estimate) -> None:
        """Be told how many trials there are, how many of them are known already, and how long the rest will take."""

    def saw(self, event: Event, left: Estimate) -> None:
        """Be told what happened, and how long the rest will take now."""

    def elsewhere(self) -> None:
        """Be told that another process has trained one of the trials."""


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        timeout: wall seconds for a trial.
        stop_after: wall seconds for all of them; trials that are under way then are given up.
    """

    timeout: float = TIMEOUT
    stop_after: float = math.inf


@dataclass(frozen=True)
class Called:
    """How the race was called, kept with its results.

    Attributes:
        command: as it was typed.
        arguments: from which the same plan can be made again.
    """

    command: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


def run(
    plan: Plan,
    store: Store,
    workers: int,
    watcher: Watcher,
    limits: Limits | None = None,
    called: Called | None = None,
    hire: Callable[[int], Crew] = Pool,
) -> bool:
    """Train what is missing; return whether everything is done.

    A crashed trial is tried again, because memory that was short may not be so any more, and so is one that was
    stopped after less time than it is given now. Trials that another process is at work on are left to it.

    Args:
        plan: the race.
        store: what is known of it already, and where outcomes go, as they come.
        workers: how many trials run at once, at most.
        watcher: is told what happens.
        limits: when to stop.
        called: how the race was called, to be kept with its results.
        hire: makes the crew, of so many workers or fewer; processes on this machine unless something else is said.
    """
    limits, called = limits or Limits(), called or Called()
    missing, again = _missing(plan, store, limits)
    total = len({trial.key for trial in plan.trials})
    if not missing:
        watcher.begin(total, total, Estimate(0.0, 0.0, 0.0))
        return True
    workers = min(workers, len(missing))
    began, trained, number = time.monotonic(), 0, 0
    watcher.measuring()
    try:
        with hire(workers) as crew:
            forecast = survey(plan, crew, store, missing.values())
            # The longest first, so that no worker is left alone with a long trial at the end. Among equals study by
            # study, so that a race that is interrupted has compared all contestants on those that it got to.
            queue = sorted(missing.values(), key=lambda trial: (-forecast.trial(trial), trial.seed))
            # Of the time from here on, which is what the store will compare it with.
            predicted = forecast.rest(queue).seconds
            number = store.begin(called.command, called.arguments, crew.size, len(missing), predicted)
            watcher.begin(total, total - len(missing), forecast.rest(queue))

            def elsewhere(trial: Trial) -> None:
                del missing[trial.key]
                watcher.elsewhere()

            renewed = time.monotonic()
            for event in crew.run(_claimed(queue, store, again, elsewhere), timeout=limits.timeout):
                if isinstance(event, Finished):
                    store.record(event.job, event.outcome)
                    forecast.learn(event.job, event.outcome)
                    forecast.workers = crew.size
                    del missing[event.job.key]
                    trained += 1
                if time.monotonic() - renewed > LEASE / 4:
                    renewed = time.monotonic()
                    store.renew()
                if not isinstance(event, Ticked):
                    watcher.saw(event, forecast.rest(missing.values()))
                elif time.monotonic() - began > limits.stop_after:
                    return not missing
    finally:
        store.release()
        if number:
            store.end(number, trained)
    return True


def predict(
    plan: Plan, store: Store, workers: int, limits: Limits | None = None, hire: Callable[[int], Crew] = Pool
) -> tuple[list[Trial], Forecast | None]:
    """Return the trials that a race would train and how long they take, after timing steps and training nothing.

    Without any the forecast is None.
    """
    missing, _ = _missing(plan, store, limits or Limits())
    if not missing:
        return [], None
    with hire(min(workers, len(missing))) as crew:
        return list(missing.values()), survey(plan, crew, store, missing.values())


def _missing(plan: Plan, store: Store, limits: Limits) -> tuple[dict[str, Trial], dict[str, int]]:
    """Return the trials to train, by key, and of those among them that are tried again how often they were."""
    known = store.outcomes(trial.key for trial in plan.trials)
    attempts = store.attempts()
    again = {key: attempts[key] for key, outcome in known.items() if _deserves_another(outcome, limits.timeout)}
    return {trial.key: trial for trial in plan.trials if trial.key not in known or trial.key in again}, again


def _deserves_another(outcome: Outcome, timeout: float) -> bool:
    return outcome.status == "crashed" or (outcome.status == "timeout" and outcome.seconds < 0.9 * timeout)


def _claimed(
    queue: Iterable[Trial], store: Store, again: Mapping[str, int], elsewhere: Callable[[Trial], None]
) -> Iterator[Trial | None]:
    """Yield trials as they can be claimed, None while all that are left are somebody else's."""
    waiting = deque(queue)
    while waiting:
        for _ in range(len(waiting)):
            trial = waiting.popleft()
            claim = store.claim(trial.key, tried=again.get(trial.key, 0))
            if claim == "mine":
                yield trial
                break
            if claim == "recorded":
                elsewhere(trial)
            else:
                waiting.append(trial)
        else:
            if waiting:
                yield None


def survey(plan: Plan, crew: Crew, store: Store, trials: Collection[Trial]) -> Forecast:
    """Time steps, and find out how much slower they are when all workers train at once."""
    costs = measure(crew, store, trials)
    crowding = 1.0
    if crew.size > 1 and costs:
        # One whose steps are neither the shortest nor the longest, which may take seconds each.
        who = sorted(costs, key=lambda pair: costs[pair].step)[len(costs) // 2]
        trial = next(trial for trial in trials if (trial.workload, trial.contestant.label) == who)
        jobs = [Measure(trial.workload, trial.file, trial.contestant)] * crew.size
        together = [event.cost.step for event in crew.run(jobs) if isinstance(event, Measured) and event.cost]
        alone = [event.cost.step for event in crew.run(jobs[:1]) if isinstance(event, Measured) and event.cost]
        if together and alone:
            crowding = max(1.0, statistics.median(together) / alone[0])
    return Forecast(plan, costs, crew.size, crowding)


def measure(crew: Crew, store: Store, trials: Iterable[Trial]) -> dict[tuple[str, str], Cost]:
    """Return what steps cost, one at a time so that nothing of ours disturbs them; what is known is not timed again."""
    kept = store.costs()
    jobs = {
        (trial.workload, trial.contestant.label): Measure(trial.workload, trial.file, trial.contestant)
        for trial in trials
    }
    # A recipe in a file keeps its label when the file is edited, so its contents are part of what the cost is filed by.
    identities = {who: fingerprint(job.contestant) for who, job in jobs.items()}
    costs = {
        who: Cost(*kept[who][1]) for who, identity in identities.items() if who in kept and kept[who][0] == identity
    }
    todo = [job for who, job in jobs.items() if who not in costs]
    for event in crew.run(todo, at_once=1):
        if isinstance(event, Measured) and event.cost is not None:
            who = (event.job.workload, event.job.contestant.label)
            costs[who] = event.cost
            store.keep_cost(*who, identities[who], *astuple(event.cost))
    return costs


def fingerprint(contestant: Contestant) -> str:
    """Return a digest of everything that determines how a contestant trains, apart from its settings."""
    return hashlib.sha256(json.dumps(contestant.identity(), sort_keys=True, default=repr).encode()).hexdigest()[:16]
