"""What a trial leaves behind: plain data, exact in JSON, with no torch in sight."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import getitem
from typing import Any, Literal

# A trial without an outcome has not been run; nothing else means that.
Status = Literal["finished", "diverged", "crashed", "timeout"]


@dataclass(frozen=True)
class Curve:
    """One trial's measurements, one entry per evaluation; the first is taken before the first step.

    Attributes:
        step: steps done.
        train: mean training loss since the evaluation before; NaN at step 0, where there is none.
        metrics: what ``evaluate`` returned, by name; always contains "loss".
        cpu: CPU seconds of training so far, evaluations excluded.
        wall: seconds of training so far, evaluations excluded.
    """

    step: tuple[int, ...] = ()
    train: tuple[float, ...] = ()
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    cpu: tuple[float, ...] = ()
    wall: tuple[float, ...] = ()

    @property
    def loss(self) -> tuple[float, ...]:
        """The validation loss, which ranks."""
        return self.metrics.get("loss", ())


@dataclass(frozen=True)
class Outcome:
    """How a trial went.

    Attributes:
        status: "diverged" means that a loss was not finite, "crashed" that an exception or a dead process ended the
            trial, "timeout" that it was stopped because it took too long.
        stopped: the step at which it ended.
        reason: why it ended early, in one line; empty for a finished trial.
        curve: what was measured until then.
        step_ms: median CPU time of one training step, in milliseconds.
        optimizer_ms: the part of it that the optimizer took.
        seconds: wall time of the whole trial.
        parts: what it was spent on: "setup", "train", "evaluate" and "calibrate", in wall seconds; their sum is
            `seconds` but for bookkeeping.
        calibration: CPU milliseconds of `slalom.race.calibration.kernel` before and after.
        environment: versions, threads and cores.
        warnings: what the method, the workload or a library warned of, each kind once.
    """

    status: Status
    stopped: int
    reason: str = ""
    curve: Curve = field(default_factory=Curve)
    step_ms: float = math.nan
    optimizer_ms: float = math.nan
    seconds: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    calibration: tuple[float, ...] = ()
    environment: Mapping[str, str | int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """An outcome and the trial that it belongs to, as scoring sees it."""

    workload: str
    contestant: str
    settings: Mapping[str, Any]
    index: int
    seed: int
    outcome: Outcome

    @property
    def lr(self) -> float:
        """The learning rate; nan if the contestant has none."""
        return float(self.settings.get("lr", math.nan))


def to_json(outcome: Outcome) -> str:
    """Write an outcome as strict JSON: a NaN or infinity becomes null and its place is listed under "nonfinite"."""
    nonfinite: list[tuple[list[str | int], str]] = []

    def strict(value: Any, place: list[str | int]) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            nonfinite.append((place, str(value)))
            return None
        if isinstance(value, Mapping):
            return {key: strict(item, [*place, key]) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [strict(item, [*place, index]) for index, item in enumerate(value)]
        return value

    plain = strict(asdict(outcome), [])
    return json.dumps({**plain, "nonfinite": nonfinite}, allow_nan=False)


def from_json(text: str) -> Outcome:
    """Read what `to_json` wrote."""
    plain = json.loads(text)
    for (*parents, last), value in plain.pop("nonfinite"):
        reduce(getitem, parents, plain)[last] = float(value)
    curve = plain.pop("curve")
    metrics = {name: tuple(values) for name, values in curve.pop("metrics").items()}
    series = {name: tuple(values) for name, values in curve.items()}
    for name in ("calibration", "warnings"):
        plain[name] = tuple(plain.get(name, ()))
    return Outcome(curve=Curve(metrics=metrics, **series), **plain)
