"""The work of a race, whoever does it: jobs, what happens to them, and how one job is done."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from slalom.race.records import Outcome

if TYPE_CHECKING:
    from slalom.race.contestant import Contestant
    from slalom.race.trial import Trial


@dataclass(frozen=True)
class Cost:
    """What one step and one evaluation take when nothing else of ours runs.

    Attributes:
        step_ms: CPU milliseconds of a step; the median of a few.
        step: wall seconds of a step; the mean of a few.
        evaluation: wall seconds of an evaluation.
    """

    step_ms: float
    step: float
    evaluation: float


@dataclass(frozen=True)
class Measure:
    """A job: find out what a contestant's training step and an evaluation of a workload cost."""

    workload: str
    file: str | None
    contestant: Contestant


@dataclass(frozen=True)
class Started:
    """A worker has taken a job."""

    worker: int
    job: Trial | Measure


@dataclass(frozen=True)
class Advanced:
    """A worker has trained up to a step of its trial."""

    worker: int
    job: Trial | Measure
    step: int


@dataclass(frozen=True)
class Finished:
    """A trial has an outcome."""

    worker: int
    job: Trial
    outcome: Outcome


@dataclass(frozen=True)
class Measured:
    """What a step and an evaluation cost; None if they cannot be run."""

    worker: int
    job: Measure
    cost: Cost | None


@dataclass(frozen=True)
class Ticked:
    """A little time has passed."""


Event = Started | Advanced | Finished | Measured | Ticked
Job: TypeAlias = "Trial | Measure | None"
# How often the main process looks up from waiting, in seconds.
TICK = 0.5


class Crew(Protocol):
    """Workers who do jobs: processes on this machine (`pool.Pool`) or actors on a cluster (`cluster.RayCrew`).

    A job changes nothing but what it returns, so one whose worker is lost can be given to another. Entering the block
    hires, leaving it dismisses, in the middle of a job if need be.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def size(self) -> int:
        """How many jobs can run at the same time."""

    def run(self, jobs: Iterable[Job], *, at_once: int | None = None, timeout: float = math.inf) -> Iterator[Event]:
        """Do the jobs, first come first served, and yield what happens as it happens.

        Args:
            jobs: what to do; None means that there may be more later. They are asked for one by one, when a worker
                is free.
            at_once: how many run at the same time; by default as many as there are workers.
            timeout: wall seconds for a trial. A worker stops by itself after a step; one that is stuck is killed.
        """


def do(job: Trial | Measure, progress: Callable[[int], None], timeout: float) -> Outcome | Cost | None:
    """Do one job here and now: a trial yields an outcome, a measurement a cost, or None if nothing could be timed."""
    from slalom.race.files import load
    from slalom.race.trial import run

    if isinstance(job, Measure):
        return _measure(job)
    return run(job, load(job.workload, job.file), progress, timeout)


def overdue(since: float, timeout: float) -> bool:
    """Whether a worker that began a trial at this time of `time.monotonic` should have stopped it by itself."""
    return time.monotonic() - since > 1.1 * timeout + 2


def stuck(timeout: float) -> Outcome:
    """Return the outcome of a trial whose worker had to be killed."""
    reason = f"killed after {timeout:g} s: a step or an evaluation did not come to its end"
    return Outcome("timeout", 0, reason, seconds=timeout)


def _measure(job: Measure, seconds: float = 0.2) -> Cost | None:
    """Time a few steps; what is broken is left for its trials to report."""
    from slalom.race.files import load
    from slalom.race.training import Meter, Training

    try:
        workload, meter = load(job.workload, job.file), Meter()
        training = Training(workload, job.contestant, job.contestant.plain(), seed=0, steps=workload.steps)
        # The second step, because the first is one of those that are timed by themselves, which costs a little.
        cpu, wall = _time(lambda: training.step(2, meter), seconds)
        return Cost(1e3 * cpu, wall, _time(training.evaluate, seconds / 4)[1])
    except Exception:
        return None


def _time(action: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Return the CPU and the wall seconds of one call; the first ones, which warm up, are not counted.

    Of the CPU time the median, which is the call's own. Of the wall time the mean: on a busy machine most calls are not
    interrupted and a few are for long, and a trial waits for those as well.
    """
    for _ in range(2):
        action()
    cpu: list[float] = []
    began = time.perf_counter()
    while not cpu or (time.perf_counter() < began + seconds and len(cpu) < 200):
        before = time.process_time()
        action()
        cpu.append(time.process_time() - before)
    return statistics.median(cpu), (time.perf_counter() - began) / len(cpu)
