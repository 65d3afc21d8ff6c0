"""How long a race will take: from measured steps at first, then from the trials that have been seen."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slalom.race.plan import Plan
from slalom.race.records import Outcome
from slalom.race.trial import Trial
from slalom.race.work import Cost

# How far a trial is off before any was seen, as a standard deviation of logarithms, and how many trials that weighs.
DOUBT, WEIGHT = 0.15, 4
# A trial whose steps take so many times its time limit would end at a few of them.
HOPELESS = 5.0
# How fast the machine was is remembered of the last so many trials.
RECENT = 12


@dataclass(frozen=True)
class Estimate:
    """A time in seconds and the range that it should lie in."""

    seconds: float
    low: float
    high: float


class Forecast:
    """What is known of the time that trials take."""

    def __init__(
        self,
        plan: Plan,
        costs: Mapping[tuple[str, str], Cost],
        workers: int,
        crowding: float = 1.0,
        timeout: float = math.inf,
    ) -> None:
        """Begin with what was measured.

        Args:
            plan: the race.
            costs: of steps and evaluations with nothing beside them, by workload and contestant.
            workers: how many trials run at once.
            crowding: how many times as long a step takes when all workers train.
            timeout: the seconds after which a trial is stopped.
        """
        self.workers, self.timeout = workers, timeout
        self._costs = costs
        self._evaluations = {
            entry.workload.name: (entry.workload.evaluations, entry.workload.steps) for entry in plan.entries
        }
        # Seconds per step of trials that were seen, and how many times their cost was taken.
        self._seen: defaultdict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._pace = deque([crowding], maxlen=RECENT)
        self._missed: list[float] = []

    def learn(self, trial: Trial, outcome: Outcome) -> None:
        """Take a finished trial into account; one that ended early says nothing."""
        if outcome.status != "finished":
            return
        expected, bare = self.trial(trial), self._bare(trial)
        if expected > 0 and outcome.seconds > 0:
            self._missed.append(math.log(outcome.seconds / expected))
        if bare > 0:
            if not any(self._seen.values()):
                # What was measured before the first trial gives way to what was seen.
                self._pace.clear()
            self._pace.append(outcome.seconds / bare)
        self._seen[trial.workload, trial.contestant.label].append(outcome.seconds / trial.steps)

    def hopeless(self, trial: Trial) -> str:
        """Return why a trial would be stopped long before its end, by the timing of steps; empty if it would not."""
        cost = self._costs.get((trial.workload, trial.contestant.label))
        if cost is None or cost.step * trial.steps < HOPELESS * self.timeout:
            return ""
        return (
            f"not begun: a step takes {cost.step:.3g} s or more, so that the {self.timeout:g} s of a trial "
            f"would end it after {self.timeout / cost.step:.0f} of {trial.steps} steps"
        )

    def known(self, trial: Trial) -> bool:
        """Whether anything is known of the time that a trial takes."""
        who = (trial.workload, trial.contestant.label)
        return who in self._costs or bool(self._seen[who])

    def trial(self, trial: Trial) -> float:
        """Return the seconds that one trial should take; of a kind that was not seen, by the pace of the others.

        One that is hopeless takes none.
        """
        seen = self._seen[trial.workload, trial.contestant.label]
        if seen:
            return trial.steps * statistics.fmean(seen)
        if self.hopeless(trial):
            return 0.0
        return min(self.timeout, self._bare(trial) * statistics.median(self._pace))

    def rest(self, trials: Iterable[Trial]) -> Estimate:
        """Return how long these take until they are done, all workers working."""
        times = [self.trial(trial) for trial in trials]
        seconds = max([sum(times) / self.workers, *times])
        count = len(self._missed)
        spread = math.sqrt((WEIGHT * DOUBT**2 + sum(one**2 for one in self._missed)) / (WEIGHT + count))
        # What all trials have in common, the machine, is known the better the more of them were seen.
        factor = math.exp(2 * spread / math.sqrt(1 + count))
        return Estimate(seconds, seconds / factor, seconds * factor)

    def _bare(self, trial: Trial) -> float:
        """Return what a trial takes by its steps and evaluations; 0 if they could not be timed."""
        cost = self._costs.get((trial.workload, trial.contestant.label))
        if cost is None:
            return 0.0
        evaluations, steps = self._evaluations[trial.workload]
        return cost.step * trial.steps + cost.evaluation * (evaluations * trial.steps / steps + 1)
