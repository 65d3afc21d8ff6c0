"""One trial: one contestant at one point of its search space trains one workload, and everything is measured."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import slalom
from slalom.race.adapt import Script
from slalom.race.contestant import Contestant, Settings
from slalom.race.records import Outcome, Record, Status
from slalom.race.training import Diverged, Meter, TooLong, Training
from slalom.race.workload import Workload


@dataclass(frozen=True)
class Trial:
    """What determines a trial; workers receive it and load the workload by name.

    Attributes:
        workload: the workload's name.
        file: the source file that defines the workload, or None for a built-in one.
        contestant: who trains.
        settings: at which point: the learning rate and whatever else was drawn.
        index: its number among its contestant's trials in the study, from 0.
        seed: in which study: with which initial weights and batches.
        steps: for how long.
        key: digest of everything above and of the code and data behind it; equal keys mean equal results.
    """

    workload: str
    file: str | None
    contestant: Contestant
    settings: Settings
    index: int
    seed: int
    steps: int
    key: str

    @property
    def lr(self) -> float:
        """The learning rate; nan if the contestant has none."""
        return float(self.settings.get("lr", math.nan))

    def record(self, outcome: Outcome) -> Record:
        """File an outcome under this trial."""
        return Record(self.workload, self.contestant.label, self.settings, self.index, self.seed, outcome)


# What is only used to judge a finished run: a target that is calibrated anew costs no training. Nor do data that were
# moved, which are told by their digest.
JUDGED = frozenset({"title", "target", "reference", "base", "tier", "size", "path"})


def key(
    workload: Workload[Any], source: str, data: str, contestant: Contestant, settings: Settings, seed: int, steps: int
) -> str:
    """Return the digest under which a trial's result is kept; source and data are digests of the workload's."""
    facts = {
        "workload": workload.name,
        "attributes": {name: repr(value) for name, value in sorted(vars(workload).items()) if name not in JUDGED},
        "source": source,
        "data": data,
        "contestant": contestant.identity(),
        "trial": dict(settings),
        "seed": seed,
        "steps": steps,
        "evaluations": workload.evaluations,
        "slalom": slalom.__version__,
        "code": code_hash(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()


# Rooms that look at training or tell of it, from which no other takes what trains; and the files of the race that do.
_LOOKING = frozenset({"cli", "describe", "lab", "landscape", "memory", "observe", "pictures.py", "race", "testing"})
_TRAINING = frozenset(f"race/{name}.py" for name in ("adapt", "training", "trial", "workload"))


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Return a digest of the code that trains.

    The version number alone would hand last week's results to somebody who is writing a new optimizer. What only
    looks at results is left out, so that a nicer chart does not cost a night of training.
    """
    package = Path(slalom.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative.parts[0] not in _LOOKING or relative.as_posix() in _TRAINING:
            digest.update(relative.as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def run(trial: Trial, workload: Workload[Any], progress: Callable[[int], None], timeout: float = math.inf) -> Outcome:
    """Train and measure; whatever happens becomes an outcome, so that one failure does not end the race.

    Args:
        trial: what to do.
        workload: the loaded workload that the trial names.
        progress: called with the number of steps done at each evaluation.
        timeout: wall seconds after which the trial is stopped, at the end of a step.
    """
    meter = Meter(timeout)
    status: Status = "finished"
    reason = ""
    # "default" is once a place, and entering the block forgets what was said before: each trial tells of its own.
    with warnings.catch_warnings(record=True, action="default") as caught:
        try:
            _train(trial, workload, meter, progress)
        except Diverged as event:
            status, reason = "diverged", str(event)
        except TooLong:
            status, reason = "timeout", f"stopped after {timeout:g} s"
        except Exception as error:
            file = str(workload.path) if isinstance(workload, Script) else trial.file
            status, reason = "crashed", _line(error, file)
    return _outcome(meter, status, reason, [" ".join(str(one.message).split()) for one in caught])


def _train(trial: Trial, workload: Workload[Any], meter: Meter, progress: Callable[[int], None]) -> None:
    if isinstance(workload, Script):
        workload.train(trial.contestant, trial.settings, trial.seed, trial.steps, meter, progress)
        return
    with meter.timing("setup"):
        training = Training(workload, trial.contestant, trial.settings, trial.seed, trial.steps)

    def evaluate() -> None:
        with meter.timing("evaluate"):
            metrics = training.evaluate()
        meter.evaluation(metrics)

    evaluate()
    for last in cadence(workload, trial.steps):
        with meter.training():
            for step in range(meter.done + 1, last + 1):
                training.step(step, meter)
        evaluate()
        progress(last)


def _outcome(meter: Meter, status: Status, reason: str, warned: list[str]) -> Outcome:
    """Close the books."""
    meter.calibrate()
    return Outcome(
        status=status,
        stopped=meter.done,
        reason=reason,
        curve=meter.curve,
        step_ms=1e3 * statistics.median(meter.step_seconds) if meter.step_seconds else math.nan,
        optimizer_ms=1e3 * statistics.median(meter.optimizer_seconds) if meter.step_seconds else math.nan,
        seconds=time.perf_counter() - meter.started,
        parts=dict(meter.parts),
        calibration=tuple(meter.calibration),
        environment=environment(),
        warnings=tuple(dict.fromkeys(warned)),
    )


def checkpoints(steps: int, evaluations: int) -> list[int]:
    """Return the steps after which the model is evaluated, evenly spaced and with the last among them."""
    return sorted({max(1, round(steps * index / evaluations)) for index in range(1, evaluations + 1)})


def cadence(workload: Workload[Any], steps: int) -> list[int]:
    """Return the steps of evaluation of a trial; a larger budget has more of them, equally far apart."""
    return checkpoints(steps, max(1, round(workload.evaluations * steps / workload.steps)))


def _line(error: Exception, file: str | None) -> str:
    """Say in one line what went wrong and where: in the person's own file, if it was called from there."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0] if message else ''} ({Path(frame.filename).name}, line {frame.lineno})"


def environment() -> dict[str, str | int]:
    """Return what a result depends on apart from the trial itself."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "slalom": slalom.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
        # Tells machines apart without telling their names.
        "machine": hashlib.sha256(platform.node().encode()).hexdigest()[:8],
        "code": code_hash()[:16],
    }
