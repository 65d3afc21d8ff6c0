"""A race on a Ray cluster: a worker is an actor on one core, a trial is an idempotent call on it.

Workers return outcomes and write nothing; the process that drives the race keeps them in its store, as always. A worker
that is lost, with its node or alone, is replaced, and its trial is given to another.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from slalom.errors import UsageError
from slalom.race.records import Outcome
from slalom.race.trial import Trial, code_hash
from slalom.race.work import (
    TICK,
    Advanced,
    Event,
    Finished,
    Job,
    Measure,
    Measured,
    Started,
    Ticked,
    do,
    killed,
    overdue,
    ready,
)

# How many workers a trial may take with it before it is called crashed: nodes are lost by chance, but not so often.
LIVES = 3


class Hand:
    """What runs on the cluster: it does jobs and says where it is."""

    def __init__(self) -> None:
        ready()
        self.done = 0

    def introduce(self) -> tuple[str, str, str]:
        """Return what must be equal everywhere for results to belong to one race, and the node."""
        import platform

        import torch

        return code_hash(), torch.__version__, platform.node()

    def do(self, job: Trial | Measure, timeout: float) -> Any:
        """Do one job."""
        self.done = 0
        return do(job, self._advance, timeout)

    def reached(self) -> int:
        """Return the steps that the job has done; answered while it runs."""
        return self.done

    def _advance(self, step: int) -> None:
        self.done = step


@dataclass
class _Worker:
    """An actor, and what we wait for: that it introduces itself, or the end of its job."""

    actor: Any
    waiting: Any
    alive: bool = False
    job: Job = None
    since: float = 0.0
    asked: Any = None
    reached: int = field(default=0)


class RayCrew:
    """Workers on a Ray cluster, as many as it has cores, or GPUs where trials need one.

    A job is only given to a worker that has introduced itself, so that none waits for cores that never come.
    """

    def __init__(self, limit: int, address: str = "ray", *, gpu: bool = False) -> None:
        """Join a cluster.

        Args:
            limit: how many workers at most.
            address: "ray://host:port" for a cluster elsewhere; "ray" for the one that the environment variable
                RAY_ADDRESS names, and if it names none for one that is started here and ends with the race.
            gpu: whether a worker needs a GPU of its own beside its core.
        """
        try:
            import ray
        except ImportError:
            raise UsageError("--on ray needs ray, which is not installed: pip install 'slalom[ray]'.") from None
        self._ray, self._limit, self._kind = ray, limit, "GPU" if gpu else "CPU"
        elsewhere = address if address.startswith("ray://") else os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
        try:
            # What Ray warns of is in the error too, or of no use to whoever races.
            with warnings.catch_warnings(action="ignore"):
                if elsewhere:
                    ray.init(elsewhere, **common)
                else:
                    ray.init("local", num_cpus=min(limit, os.cpu_count() or 1), include_dashboard=False, **common)
        except Exception as error:
            where, hint = elsewhere or "this machine", "; docs/cluster.md says what it needs" if elsewhere else ""
            raise UsageError(f'no Ray cluster answers at "{where}": {_first(error)}{hint}.') from None
        self._hand = ray.remote(num_cpus=1, num_gpus=int(gpu), max_restarts=0, max_concurrency=2)(Hand)
        self._workers: list[_Worker] = []
        self._again: deque[Trial] = deque()
        self._lost: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """How many cores or GPUs the cluster has now, up to the limit."""
        return max(1, min(self._limit, int(self._ray.cluster_resources().get(self._kind, 1))))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the workers go, and the cluster."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._ray.shutdown()

    def run(self, jobs: Iterable[Job], *, at_once: int | None = None, timeout: float = math.inf) -> Iterator[Event]:
        """Do the jobs; see `Crew`."""
        source = iter(jobs)
        more = True
        while True:
            self._hire()
            for index, worker in enumerate(self._workers):
                busy = sum(one.job is not None for one in self._workers)
                if not worker.alive or worker.job is not None or busy >= (at_once or self.size):
                    continue
                try:
                    job = self._again.popleft() if self._again else next(source) if more else None
                except StopIteration:
                    more, job = False, None
                if job is None:
                    break
                worker.job, worker.since, worker.reached = job, time.monotonic(), 0
                worker.waiting = worker.actor.do.remote(job, timeout)
                yield Started(index, job)
            if not more and not self._again and not any(worker.job for worker in self._workers):
                return
            waiting = [worker.waiting for worker in self._workers if worker.waiting is not None]
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=TICK) if waiting else ([], [])
            for index, worker in enumerate(list(self._workers)):
                if worker.waiting in ready:
                    yield from self._hear(index, worker)
            self._workers = [worker for worker in self._workers if worker.actor is not None]
            yield from self._look(timeout)
            yield Ticked()

    def _hire(self) -> None:
        """Ask for a worker for every core that has none."""
        for _ in range(self.size - len(self._workers)):
            actor = self._hand.remote()
            self._workers.append(_Worker(actor, actor.introduce.remote()))

    def _hear(self, index: int, worker: _Worker) -> Iterator[Event]:
        """Take what a worker has to say, or notice that it is lost."""
        job, ref = worker.job, worker.waiting
        worker.waiting = None
        try:
            said = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            worker.actor = None
            if job is None:
                raise UsageError(f"a worker on the cluster could not start: {_first(error)}.") from None
            yield from self._mourn(index, job, _first(error))
            return
        if not worker.alive:
            self._check(said)
            worker.alive = True
            return
        worker.job = None
        if isinstance(job, Measure):
            yield Measured(index, job, said)
        elif job is not None:
            yield Finished(index, job, said)

    def _mourn(self, index: int, job: Trial | Measure, reason: str) -> Iterator[Event]:
        """Give the job of a lost worker to another one, unless it has taken too many with it."""
        if isinstance(job, Measure):
            yield Measured(index, job, None)
            return
        self._lost[job.key] += 1
        if self._lost[job.key] < LIVES:
            self._again.append(job)
        else:
            yield Finished(index, job, Outcome("crashed", 0, f"{LIVES} workers were lost in it: {reason}"))

    def _look(self, timeout: float) -> Iterator[Event]:
        """Ask how far trials are, and kill workers that should have stopped by themselves."""
        for index, worker in enumerate(self._workers):
            job = worker.job
            if job is None:
                continue
            if overdue(worker.since, timeout):
                self._ray.kill(worker.actor)
                worker.actor = worker.waiting = None
                yield killed(index, job, timeout)
                continue
            if isinstance(job, Measure):
                continue
            if worker.asked is None:
                worker.asked = worker.actor.reached.remote()
            elif self._ray.wait([worker.asked], timeout=0)[0]:
                asked, worker.asked = worker.asked, None
                try:
                    step = self._ray.get(asked)
                except self._ray.exceptions.RayError:
                    continue  # It is lost, which the end of its job will say too.
                if step > worker.reached:
                    worker.reached = step
                    yield Advanced(index, job, step)
        self._workers = [worker for worker in self._workers if worker.actor is not None]

    def _check(self, said: tuple[str, str, str]) -> None:
        """Refuse workers whose results would be those of another race."""
        import torch

        code, version, node = said
        if code != code_hash():
            raise UsageError(f'the node "{node}" has other code of slalom than this machine; install the same there.')
        if version != torch.__version__:
            raise UsageError(
                f'the node "{node}" has torch {version}, this machine {torch.__version__}; they must agree.'
            )


def _first(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
