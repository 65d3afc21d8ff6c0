"""The work of a race, whoever does it: jobs, what happens to them, and how one job is done."""

from __future__ import annotations

import math
import os
import statistics
import time
import warnings
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
        step_ms: CPU milliseconds of a step, on the average over what a method does now and then.
        step: wall seconds of a step.
        evaluation: wall seconds of an evaluation.
    """

    step_ms: float
    step: float
    evaluation: float


@dataclass(frozen=True)
class Measure:
    """A job: find out what a contestant's training step and an evaluation of a workload cost.

    Attributes:
        workload: its name.
        file: the source file that defines it, or None for a built-in one.
        contestant: whose steps.
        worth: how many steps the answer is worth, at most.
        patience: wall seconds after which no step is begun.
    """

    workload: str
    file: str | None
    contestant: Contestant
    worth: int = 10**6
    patience: float = math.inf


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
            timeout: wall seconds for a job. A worker stops by itself after a step; one that is stuck is killed.
        """


def ready() -> None:
    """Make this process a worker: one thread, and everything imported, because that is not a trial's time."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import slalom.race.files
    import slalom.race.trial  # noqa: F401

    torch.set_num_threads(1)
    # The first optimizer of a process makes torch import a compiler, which takes seconds.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])


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


def out_of_time(reason: str, timeout: float) -> Outcome:
    """Return the outcome of a trial that took no step that counts: its worker was killed, or it was not begun."""
    return Outcome("timeout", 0, reason, seconds=timeout)


def killed(worker: int, job: Trial | Measure, timeout: float) -> Finished | Measured:
    """Return what became of a job whose worker had to be killed."""
    if isinstance(job, Measure):
        # Of a step that was not waited for it is known that it takes longer.
        return Measured(worker, job, Cost(1e3 * timeout, timeout, 0.0))
    reason = f"killed after {timeout:g} s: a step or an evaluation did not come to its end"
    return Finished(worker, job, out_of_time(reason, timeout))


# Steps are timed in rounds of so many, because what methods do now and then they do every 2, 5, 10 or 20 steps.
ROUND = 20
# Rounds are added until they have taken so many seconds, and no step is begun after so many of CPU time. They hold ten
# steps of a method that takes seconds for every tenth; one whose first step takes half of them is judged by that.
ENOUGH, LONG = 0.1, 20.0


def _measure(job: Measure) -> Cost | None:
    """Time a few steps; what is broken is left for its trials to report, and so is what it warns of."""
    from slalom.race.files import load
    from slalom.race.training import Meter, Training

    try:
        with warnings.catch_warnings(action="ignore"):
            workload, meter = load(job.workload, job.file), Meter()
            training = Training(workload, job.contestant, job.contestant.plain(), seed=0, steps=workload.steps)
            # The second step, because the first is one of those that are timed by themselves, which costs a little.
            calls = ROUND if job.worth >= ROUND else ROUND // 2
            cpu, wall = _time(lambda: training.step(2, meter), calls, job.patience)
            return Cost(1e3 * cpu, wall, _time(training.evaluate, 1)[1])
    except Exception:
        return None


def _time(action: Callable[[], object], calls: int, patience: float = math.inf) -> tuple[float, float]:
    """Return the CPU and the wall seconds of one call, from rounds of so many; the first ones only warm up.

    Of the CPU time the median over rounds, which is the calls' own. Of the wall time the mean: on a busy machine most
    calls are not interrupted and a few are for long, and a trial waits for those as well.
    """
    started, entered = time.perf_counter(), time.process_time()
    action()
    if (first := time.process_time() - entered) > LONG / 2 or time.perf_counter() - started > patience / 2:
        return first, time.perf_counter() - started
    action()
    cpu: list[float] = []
    done, began = 0, time.perf_counter()
    while not cpu or (time.perf_counter() < began + ENOUGH and len(cpu) < 200):
        before, so_far = time.process_time(), done
        for _ in range(calls):
            action()
            done += 1
            if time.process_time() - entered > LONG or time.perf_counter() - started > patience:
                break
        cpu.append((time.process_time() - before) / (done - so_far))
    return statistics.median(cpu), (time.perf_counter() - began) / done
