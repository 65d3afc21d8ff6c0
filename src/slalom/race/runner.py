"""Running a plan: trials that the store does not know are trained, and each outcome is recorded as it comes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from slalom.race.forecast import Estimate, Forecast
from slalom.race.plan import Plan
from slalom.race.pool import Pool
from slalom.race.records import Outcome
from slalom.race.store import LEASE, Store
from slalom.race.survey import Onlooker, survey
from slalom.race.trial import Trial
from slalom.race.work import Crew, Event, Finished, Ticked, out_of_time

# A trial that takes longer is stopped, unless somebody says otherwise: a hung one would stop the race.
TIMEOUT = 1800.0


class Watcher(Onlooker, Protocol):
    """Somebody who wants to see the race while it runs, and the timing of steps before it."""

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
    stopped after less time than it is given now. Trials that another process is at work on are left to it. One that by
    the timing of steps would be stopped near its beginning is not begun.

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
    try:
        with hire(workers) as crew:
            forecast = survey(plan, crew, store, missing.values(), watcher, limits.timeout)
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

            for trial in queue:
                reason = forecast.hopeless(trial)
                if reason and store.claim(trial.key, tried=again.get(trial.key, 0)) == "mine":
                    outcome = out_of_time(reason, limits.timeout)
                    store.record(trial, outcome)
                    del missing[trial.key]
                    watcher.saw(Finished(0, trial, outcome), forecast.rest(missing.values()))
            queue = [trial for trial in queue if trial.key in missing]
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
    plan: Plan,
    store: Store,
    workers: int,
    watcher: Onlooker,
    limits: Limits | None = None,
    hire: Callable[[int], Crew] = Pool,
) -> tuple[list[Trial], Forecast | None]:
    """Return the trials that a race would train and how long they take, after timing steps and training nothing.

    Without any the forecast is None.
    """
    limits = limits or Limits()
    missing, _ = _missing(plan, store, limits)
    if not missing:
        return [], None
    with hire(min(workers, len(missing))) as crew:
        return list(missing.values()), survey(plan, crew, store, missing.values(), watcher, limits.timeout)


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
