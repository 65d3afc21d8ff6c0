"""Worker processes: each trains one trial at a time on one thread, and may die without ending the race."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from slalom.race.records import Outcome

if TYPE_CHECKING:
    from slalom.race.trial import Trial


@dataclass(frozen=True)
class Measure:
    """A job: find out what a training step and an evaluation of a workload cost."""

    workload: str
    file: str | None


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
    """The seconds that a step and an evaluation take; None if they cannot be run."""

    worker: int
    job: Measure
    cost: tuple[float, float] | None


Event = Started | Advanced | Finished | Measured


@dataclass
class Worker:
    """A process, our end of the pipe to it, and what it is doing."""

    process: multiprocessing.process.BaseProcess
    connection: Connection
    job: Trial | Measure | None = None
    alive: bool = False


class Pool:
    """A fixed number of workers.

        with Pool(2) as pool:
            for event in pool.run(trials):
                ...

    Leaving the block ends the workers, in the middle of their trials if need be.
    """

    def __init__(self, size: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._hire() for _ in range(size)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()

    def run(self, jobs: Iterable[Trial | Measure]) -> Iterator[Event]:
        """Do the jobs, first come first served, and yield what happens as it happens."""
        queue = deque(jobs)
        while queue or any(worker.job for worker in self._workers):
            for index, worker in enumerate(self._workers):
                if queue and worker.job is None:
                    worker.job = queue.popleft()
                    # A worker that died just now is noticed below, when its pipe ends.
                    with suppress(BrokenPipeError):
                        worker.connection.send(worker.job)
                    yield Started(index, worker.job)
            busy = {worker.connection: index for index, worker in enumerate(self._workers) if worker.job}
            for connection in wait(list(busy)):
                yield from self._hear(busy[connection])  # type: ignore[index]

    def _hear(self, index: int) -> Iterator[Event]:
        worker = self._workers[index]
        job = worker.job
        assert job is not None
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            yield from self._bury(index)
            return
        worker.alive = True
        if isinstance(message, int):
            yield Advanced(index, job, message)
            return
        worker.job = None
        if isinstance(job, Measure):
            yield Measured(index, job, message)
        else:
            yield Finished(index, job, message)

    def _bury(self, index: int) -> Iterator[Event]:
        """Give the trial of a dead worker an outcome, and the worker a successor."""
        worker = self._workers[index]
        worker.process.join()
        code = worker.process.exitcode or 0
        if not worker.alive:
            raise RuntimeError(
                f"a worker process ended with exit code {code} before it could start; "
                'a script that starts a race needs `if __name__ == "__main__":` around it'
            )
        job = worker.job
        self._workers[index] = self._hire()
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if isinstance(job, Measure):
            yield Measured(index, job, None)
        elif job is not None:
            yield Finished(index, job, Outcome("crashed", 0, f"the worker process ended by {cause}"))

    def _hire(self) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours)


def _work(connection: Connection) -> None:
    """Be a worker: do what comes through the pipe until it ends."""
    # Ctrl-C reaches the whole process group; only the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from slalom.race.files import load
    from slalom.race.trial import run

    torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError):
        connection.send(0)
        while True:
            job = connection.recv()
            if isinstance(job, Measure):
                connection.send(_measure(job))
            else:
                connection.send(run(job, load(job.workload, job.file), connection.send))


def _measure(job: Measure, seconds: float = 0.4) -> tuple[float, float] | None:
    """Time a few steps of plain gradient descent; a broken workload is left for its trials to report."""
    import torch

    from slalom.race.files import load

    try:
        workload = load(job.workload, job.file)
        model = workload.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
        batches = iter(workload.batches(torch.Generator()))

        def step() -> None:
            optimizer.zero_grad()
            workload.loss(model, next(batches)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        def evaluate() -> None:
            with torch.no_grad():
                workload.evaluate(model)

        return _time(step, seconds), _time(evaluate, seconds / 2)
    except Exception:
        return None


def _time(action: Callable[[], None], seconds: float) -> float:
    """Return the wall seconds of one call, the first one (which warms up) not counted."""
    action()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < 200):
        before = time.perf_counter()
        action()
        times.append(time.perf_counter() - before)
    return sum(times) / len(times)
