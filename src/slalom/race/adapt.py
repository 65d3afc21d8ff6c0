"""A training script of your own as a workload: the loop stays yours, the race hands in the optimizer.

Three lines in the script, which still runs by itself as before:

    from slalom.race.adapt import session

    race = session()
    optimizer = race.optimizer(model, lambda: torch.optim.AdamW(model.parameters(), lr=3e-4))
    for step, batch in zip(range(1000), loader):
        ...
        optimizer.step()
        if step % 50 == 49:
            with race.evaluating():
                race.report(validate(model))

and a file that says how long it is, for ``slalom race my_race.py adam sgd``:

    from slalom.race.adapt import Script

    mine = Script("train.py", steps=1000, target=0.31)

See docs/race.md.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import random
import runpy
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Generator, Tensor, nn

from slalom.errors import UsageError
from slalom.race.contestant import Contestant, Settings
from slalom.race.training import TIMED, Diverged, Meter
from slalom.race.workload import Workload, reseed, seed_for


class Session:
    """What a script talks to. Outside of a race it builds the script's own optimizer and listens to nothing.

    Attributes:
        racing: whether a race runs the script.
        steps: the budget of optimizer steps; None outside of a race.
        seed: for a script that seeds what torch's global seed does not reach; None outside of a race.
    """

    racing = False
    steps: int | None = None
    seed: int | None = None

    def optimizer(self, model: nn.Module, own: Callable[[], torch.optim.Optimizer]) -> torch.optim.Optimizer:
        """Return the optimizer to train a model with: the contestant's in a race, else what `own` builds."""
        return own()

    def evaluating(self) -> AbstractContextManager[object]:
        """Stop the clocks, and put the model at the point that the method hands back, as averaging methods need."""
        return nullcontext()

    def report(self, loss: float | Tensor, **metrics: float | Tensor) -> None:
        """Say what the validation loss is now, and anything that is to be shown beside it."""


class EndOfBudget(BaseException):
    """All steps were taken; a BaseException, so that a script's own `except Exception` lets it through."""


class RaceSession(Session):
    """A session in a race: it counts steps, keeps time, and ends the script when the budget is spent."""

    racing = True

    def __init__(
        self,
        contestant: Contestant,
        settings: Settings,
        steps: int,
        seed: int,
        meter: Meter,
        progress: Callable[[int], None],
    ) -> None:
        self.steps, self.seed = steps, seed
        self._contestant, self._settings, self._meter, self._progress = contestant, settings, meter, progress
        self._optimizer: torch.optim.Optimizer | None = None
        self._clock = ExitStack()
        self._clock.enter_context(meter.timing("setup"))
        self._called = self._last = 0.0

    def optimizer(self, model: nn.Module, own: Callable[[], torch.optim.Optimizer]) -> torch.optim.Optimizer:
        """Return the contestant's optimizer, from now on counting its steps."""
        if self._optimizer is not None:
            raise RuntimeError("a script asks for one optimizer; this one asked for a second")
        self._optimizer = self._contestant.build(model, self._settings)
        self._optimizer.register_step_pre_hook(self._before)
        self._optimizer.register_step_post_hook(self._after)
        self._run("train")
        return self._optimizer

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Stop the clocks of training and look at the averaged point, if there is one."""
        self._run("evaluate")
        averaged: Callable[[], AbstractContextManager[object]] = getattr(self._optimizer, "averaged", nullcontext)
        with averaged():
            yield
        self._run("train")

    def report(self, loss: float | Tensor, **metrics: float | Tensor) -> None:
        """Add a point to the curve; a second one at the same step is refused."""
        values = {
            name: float(value.detach() if isinstance(value, Tensor) else value)
            for name, value in {"loss": loss, **metrics}.items()
        }
        if not math.isfinite(values["loss"]):
            raise Diverged(f"validation loss {values['loss']}")
        if self._meter.steps and self._meter.steps[-1] == self._meter.done:
            raise RuntimeError(
                f"two reports after step {self._meter.done}; report once an evaluation, all metrics at once"
            )
        if self._meter.metrics and set(values) != set(self._meter.metrics):
            raise RuntimeError(
                f"reported {sorted(values)} after {sorted(self._meter.metrics)}; report the same each time"
            )
        self._meter.evaluation(values)
        self._progress(self._meter.done)

    def close(self) -> None:
        """Stop all clocks."""
        self._clock.close()

    def _run(self, part: str) -> None:
        """Let another clock run."""
        self._clock.close()
        self._clock.enter_context(self._meter.training() if part == "train" else self._meter.timing(part))

    def _before(self, *_: Any) -> None:
        if self._meter.done >= (self.steps or 0):
            raise EndOfBudget
        self._called = time.process_time()

    def _after(self, *_: Any) -> None:
        now = time.process_time()
        # The very first step has none before it from which its time could be counted.
        if self._last and self._meter.done % TIMED == 0:
            self._meter.step_seconds.append(now - self._last)
            self._meter.optimizer_seconds.append(now - self._called)
        self._last = now
        # What the script's training loss is, only the script knows.
        self._meter.step(math.nan)


_current: Session = Session()


def session() -> Session:
    """Return the session of the race that runs this script, or one that does nothing."""
    return _current


class Script(Workload[None]):
    """A training script as a workload.

    For the same seed every contestant gets the same state of torch's, NumPy's and Python's global generators. A script
    that seeds by itself makes all studies equal; let it use ``session().seed`` if it runs in a race.

    Args:
        file: the script; relative to the file in which this is written.
        steps: how many optimizer steps it takes. One that would take more is ended there.
        arguments: command-line arguments for it.
        name: of the workload; by default the script's.
        target: the validation loss that counts as "there".
        lr_scale: what the learning rates that recipes suggest are multiplied by.
    """

    def __init__(
        self,
        file: str | Path,
        steps: int,
        *,
        arguments: Sequence[str] = (),
        name: str = "",
        target: float | None = None,
        lr_scale: float = 1.0,
    ) -> None:
        self.path = Path(inspect.stack()[1].filename).resolve().parent / file
        if not self.path.is_file():
            raise UsageError(f'no script "{self.path}".')
        self.steps, self.arguments, self.target, self.lr_scale = steps, tuple(arguments), target, lr_scale
        self.name = name or self.path.stem
        self.title = f"The script {self.path.name}"

    def train(
        self,
        contestant: Contestant,
        settings: Settings,
        seed: int,
        steps: int,
        meter: Meter,
        progress: Callable[[int], None],
    ) -> None:
        """Run the script once, as `python FILE ARGUMENTS` would, and measure."""
        global _current
        drawn = seed_for(self.name, seed, "script") % 2**32
        inside = RaceSession(contestant, settings, steps, drawn, meter, progress)
        _seed_all(self.name, seed, drawn)
        before, path, _current = sys.argv, list(sys.path), inside
        sys.argv = [str(self.path), *self.arguments]
        sys.path.insert(0, str(self.path.parent))
        try:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                runpy.run_path(str(self.path), run_name="__main__")
        except EndOfBudget:
            pass
        except SystemExit as end:
            if end.code not in (None, 0):
                raise RuntimeError(f"the script left with status {end.code}") from None
        finally:
            inside.close()
            sys.argv, sys.path[:], _current = before, path, Session()
        if meter.done < steps:
            raise RuntimeError(
                f"the script ended after {meter.done} of {steps} steps; Script(steps=...) must agree with it"
            )
        if not meter.steps:
            raise RuntimeError("the script reported no validation loss; call session().report(loss)")

    def data_hash(self) -> str:
        """Return the digest of the script."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def model(self) -> NoReturn:
        """Refuse: the model is the script's."""
        raise NotImplementedError(f"{self.name} is a script; its model is its own.")

    def batches(self, generator: Generator) -> Iterable[None]:
        """Refuse: the batches are the script's."""
        raise NotImplementedError(f"{self.name} is a script; its batches are its own.")

    def loss(self, model: nn.Module, batch: None) -> NoReturn:
        """Refuse: the loss is the script's."""
        raise NotImplementedError(f"{self.name} is a script; its loss is its own.")

    def evaluate(self, model: nn.Module) -> Mapping[str, float | Tensor]:
        """Refuse: the evaluation is the script's."""
        raise NotImplementedError(f"{self.name} is a script; its evaluation is its own.")


def _seed_all(name: str, study: int, drawn: int) -> None:
    import numpy as np

    reseed(name, study, "script")
    np.random.seed(drawn)
    random.seed(drawn)
