"""Worker processes: each trains one trial at a time on one thread, and may die without ending the race."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from slalom.race.records import Outcome
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

if TYPE_CHECKING:
    from slalom.race.trial import Trial


class _Done:
    """The end of the jobs; None has another meaning there."""


DONE = _Done()


@dataclass
class Worker:
    """A process, our end of the pipe to it, and what it is doing."""

    process: multiprocessing.process.BaseProcess
    connection: Connection
    job: Trial | Measure | None = None
    alive: bool = False
    since: float = 0.0


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

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self._workers)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()

    def run(
        self,
        jobs: Iterable[Job],
        *,
        at_once: int | None = None,
        timeout: float = math.inf,
    ) -> Iterator[Event]:
        """Do the jobs; see `Crew`."""
        source = iter(jobs)
        more = True
        while True:
            for index, worker in enumerate(self._workers[:at_once]):
                if more and worker.job is None:
                    job = next(source, DONE)
                    more = job is not DONE
                    if isinstance(job, _Done) or job is None:
                        break
                    worker.job, worker.since = job, time.monotonic()
                    # A worker that died just now is noticed below, when its pipe ends.
                    with suppress(BrokenPipeError):
                        worker.connection.send((job, timeout))
                    yield Started(index, job)
            busy = {worker.connection: index for index, worker in enumerate(self._workers) if worker.job}
            if not busy and not more:
                return
            if not busy:
                time.sleep(TICK)
            for connection in wait(list(busy), TICK) if busy else ():
                yield from self._hear(busy[connection])  # type: ignore[index]
            yield from self._overdue(timeout)
            yield Ticked()

    def _overdue(self, timeout: float) -> Iterator[Event]:
        """Kill workers that should have stopped by themselves."""
        for index, worker in enumerate(self._workers):
            if worker.alive and worker.job is not None and overdue(worker.since, timeout):
                worker.process.kill()
                worker.process.join()
                worker.connection.close()
                self._workers[index] = self._hire()
                yield killed(index, worker.job, timeout)

    def _hear(self, index: int) -> Iterator[Event]:
        worker = self._workers[index]
        job = worker.job
        assert job is not None
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            yield from self._bury(index)
            return
        if not worker.alive:
            # Starting Python is not the trial's time.
            worker.alive, worker.since = True, time.monotonic()
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
    ready()
    with suppress(EOFError, BrokenPipeError):
        connection.send(0)
        while True:
            job, timeout = connection.recv()
            connection.send(do(job, connection.send, timeout))
