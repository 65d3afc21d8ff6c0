"""A model in training, and what is measured while it trains. What is in here decides what a trial costs and yields."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from slalom.race.calibration import kernel
from slalom.race.contestant import Contestant, Settings
from slalom.race.records import Curve
from slalom.race.workload import Workload, reseed, stream


class Diverged(Exception):  # noqa: N818  an event of training, not an error of anybody's
    """A loss was not finite."""


class TooLong(Exception):  # noqa: N818
    """The time for the trial is over."""


# One step in so many is timed by itself. Asking for CPU time is a call into the system, several of which would be a
# tenth of the cheapest step; 7, because what methods do now and then they do every 5, 10 or 2^k steps.
TIMED = 7
GRADIENTS_ON = nullcontext()


class Meter:
    """What is measured while a trial runs."""

    def __init__(self, timeout: float = math.inf) -> None:
        self.started = time.perf_counter()
        self.deadline = self.started + timeout
        self.parts = {"setup": 0.0, "train": 0.0, "evaluate": 0.0, "calibrate": 0.0}
        self.calibration: list[float] = []
        self.calibrate()
        self.done = 0
        self.losses: list[float] = []
        self.steps: list[int] = []
        self.train: list[float] = []
        self.metrics: defaultdict[str, list[float]] = defaultdict(list)
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.step_seconds: list[float] = []
        self.optimizer_seconds: list[float] = []
        self._cpu = 0.0

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add what happens inside to a part of the trial's time."""
        entered = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] += time.perf_counter() - entered

    @contextmanager
    def training(self) -> Iterator[None]:
        """Run the clocks of the curve: from one evaluation to the next."""
        entered = time.process_time()
        try:
            with self.timing("train"):
                yield
                if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                    # A GPU is behind with the last step; its time is training's.
                    torch.cuda.synchronize()
        finally:
            self._cpu += time.process_time() - entered

    def calibrate(self) -> None:
        """Time the fixed work, so that it can be seen whether the machine was disturbed."""
        with self.timing("calibrate"):
            self.calibration.append(kernel())

    def step(self, loss: float) -> None:
        """Count one training step and the loss before it."""
        self.done += 1
        self.losses.append(loss)
        if time.perf_counter() > self.deadline:
            raise TooLong

    def evaluation(self, metrics: dict[str, float]) -> None:
        """Add a point to the curve."""
        self.steps.append(self.done)
        self.train.append(statistics.fmean(self.losses) if self.losses else math.nan)
        self.losses.clear()
        for name, value in metrics.items():
            self.metrics[name].append(value)
        self.cpu.append(self._cpu)
        self.wall.append(self.parts["train"])

    @property
    def curve(self) -> Curve:
        """What was measured so far."""
        metrics = {name: tuple(values) for name, values in self.metrics.items()}
        return Curve(tuple(self.steps), tuple(self.train), metrics, tuple(self.cpu), tuple(self.wall))


class Training:
    """A model with its optimizer and its batches: what one trial trains."""

    def __init__(
        self, workload: Workload[Any], contestant: Contestant, settings: Settings, seed: int, steps: int
    ) -> None:
        reseed(workload.name, seed, "model")
        self.workload, self.steps = workload, steps
        self.model = workload.model()
        self.optimizer = contestant.build(self.model, settings)
        # Again, because some optimizers draw numbers when they are built and dropout must not notice.
        reseed(workload.name, seed, "train")
        self._batches = _endless(workload, stream(workload.name, seed, "batches"))
        # A recipe's own schedule of the rate takes the place of the workload's. And somebody's optimizer may have no
        # learning rate; it has nothing that a schedule could move.
        self._scheduler = contestant.scheduler(self.optimizer, steps)
        follows = self._scheduler is None or "lr" not in self._scheduler.schedules
        self._rates = [(group, group["lr"]) for group in self.optimizer.param_groups if follows and "lr" in group]
        # Once, because asking for the factor is a twentieth of the cheapest step.
        self._factors = [workload.schedule(step / steps) for step in range(steps)] if self._rates else []
        self._batch: Any = None
        self._step = 0
        self._loss: float | None = None
        self._outside = 0.0
        self.model.train()

    def step(self, step: int, meter: Meter) -> None:
        """Take one step, the first being number 1, and measure it."""
        if step % TIMED == 1:
            begun = time.process_time()
            self._prepare(step)
            self._outside = 0.0
            called = time.process_time()
            self.optimizer.step(self._timed)
            left = time.process_time()
            meter.step_seconds.append(left - begun)
            meter.optimizer_seconds.append(left - called - self._outside)
        else:
            self._prepare(step)
            self.optimizer.step(self._closure)
        loss = self._loss
        if loss is None:
            raise RuntimeError("the optimizer's step() did not call the closure that it was given")
        if self._scheduler is not None:
            self._scheduler.step()
        meter.step(loss)

    def _prepare(self, step: int) -> None:
        """Set the rates of a step and draw its batch."""
        self._step, self._loss = step, None
        for group, rate in self._rates:
            group["lr"] = rate * self._factors[step - 1]
        self._batch = next(self._batches)

    def _closure(self) -> float:
        """Return the loss and leave its gradient; some methods ask for them more than once in a step."""
        self.optimizer.zero_grad()
        # torch's own optimizers have switched gradients on already; twice would be a percent of the cheapest step.
        with GRADIENTS_ON if torch.is_grad_enabled() else torch.enable_grad():
            loss = self.workload.loss(self.model, self._batch)
            loss.backward()  # type: ignore[no-untyped-call]
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(f"training loss {value} at step {self._step}")
        if self._loss is None:
            self._loss = value
        return value

    def _timed(self) -> float:
        """Do the same and note how long it took."""
        entered = time.process_time()
        value = self._closure()
        self._outside += time.process_time() - entered
        return value

    def evaluate(self) -> dict[str, float]:
        """Evaluate at the point the method hands back, leaving the model and the random state as they were."""
        averaged: Callable[[], AbstractContextManager[object]] = getattr(self.optimizer, "averaged", nullcontext)
        self.model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), averaged():
            metrics = {name: float(value) for name, value in self.workload.evaluate(self.model).items()}
        self.model.train()
        if "loss" not in metrics:
            raise ValueError('evaluate() must return a dictionary that contains "loss"')
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"validation loss {metrics['loss']}")
        return metrics


def _endless(workload: Workload[Any], generator: torch.Generator) -> Iterator[Any]:
    while True:
        empty = True
        for batch in workload.batches(generator):
            empty = False
            yield batch
        if empty:
            raise ValueError("batches() ended without a batch")
