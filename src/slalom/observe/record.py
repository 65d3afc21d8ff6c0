"""What was measured, as plain numbers: samples, the run that they make up, and the log that outlives a crash."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from slalom.errors import UsageError

FORMAT: Final = 1
# Samples that are kept in memory.
MOST: Final = 1000

# What is known of a parameter at a sample; nan where it could not be measured. The docs and the log use these names.
QUANTITIES: Final[dict[str, str]] = {
    "weight": "norm of the weights before the step",
    "gradient": "norm of the gradient, unscaled",
    "update": "norm of what the step added",
    "gradient_before": "norm of the gradient of the step before",
    "update_before": "norm of the update of the step before",
    "descent": "cosine of the update with minus the gradient",
    "turn": "cosine of the update with the one before it",
    "agree": "cosine of the gradient with the one before it",
    "past": "cosine of the gradient with the update before it; above 0 that update went past the lowest point",
    "radial": "cosine of the gradient with the weights; 0 where the loss does not depend on their length",
    "zeros": "share of the gradient that is exactly 0",
    "bad": "1 if the gradient holds nan or infinity, else 0",
    "weight_bad": "the same of the weights",
    "update_bad": "the same of the update",
    "stuck": "share of the weights that did not move though they and their gradients are not 0",
    "dead": "share of the rows (units, channels) whose gradients are exactly 0 in both steps",
    "kurtosis": "excess kurtosis of the gradient's coordinates; 0 for a Gaussian",
    "tail": "Hill index of the gradient's coordinates; below 2 the variance is infinite",
    "stale": "the optimizer's mean square of gradients, over this gradient's",
    "epsilon": "share of the coordinates where the root of that mean is below epsilon",
}


@dataclass(frozen=True)
class Parameter:
    """What is known of a parameter whatever it does.

    Attributes:
        name: in the model.
        shape: its shape.
        dtype: its type, as ``float32``.
        role: what it is for, as `slalom.assign_roles` sees it.
        trained: whether it requires a gradient.
        held: whether the optimizer has it.
        in_model: whether the model has it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str
    trained: bool = True
    held: bool = True
    in_model: bool = True

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """How many rows it has; 0 if it is no matrix."""
        return self.shape[0] if len(self.shape) > 1 else 0

    @property
    def matrix(self) -> bool:
        """Whether it mixes units: a layer's matrix or kernel, the head too, but no table of embeddings."""
        return self.role in ("matrix", "convolution", "head")


@dataclass(frozen=True)
class Sample:
    """What was measured at one step, and over the steps since the sample before.

    Attributes:
        step: the number of the step, counted from 1.
        seconds: since the first step.
        overhead: share of those that watching took.
        loss: mean of the losses since the last sample; nan if none was given.
        bad_losses: how many of them were nan or infinite.
        norms: of the whole gradient, for every step since the last sample.
        rates: the learning rate of each parameter group.
        probe: the loss on the step's own batch before and after the step, where that was asked for.
        slope: inner product of gradient and update over all parameters.
        parameters: what was known of those that were seen.
        numbers: one row per parameter, one column per entry of `QUANTITIES`.
    """

    step: int
    seconds: float
    overhead: float
    loss: float
    bad_losses: int
    norms: tuple[float, ...]
    rates: tuple[float, ...]
    probe: tuple[float, float] | None
    slope: float
    parameters: tuple[Parameter, ...]
    numbers: Tensor

    @property
    def reach(self) -> float:
        """Where along the step its batch's loss was lowest, by the parabola through both losses with the slope between.

        1 is the end of the step, 0.5 where the loss is what it was before; infinite if the loss does not curve upward,
        nan if it was not evaluated.
        """
        if self.probe is None:
            return math.nan
        rise = self.probe[1] - self.probe[0] - self.slope
        return -self.slope / (2 * rise) if rise > 0 else math.inf


@dataclass(frozen=True)
class Run:
    """A training run as far as it was watched.

    Attributes:
        optimizer: its class's name.
        parameters: all that were seen, in the model's order.
        samples: what was measured, in order of steps.
        settings: the numbers of the first parameter group at the start.
    """

    optimizer: str
    parameters: tuple[Parameter, ...]
    samples: tuple[Sample, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def until(self, step: int) -> Run:
        """Return the run as it was after a step."""
        samples = tuple(one for one in self.samples if one.step <= step)
        known = {parameter.name: parameter for sample in samples for parameter in sample.parameters}
        parameters = tuple(known.get(parameter.name, parameter) for parameter in self.parameters)
        return replace(self, samples=samples, parameters=parameters)

    @cached_property
    def numbers(self) -> Tensor:
        """Samples x parameters x quantities."""
        shape = (0, len(self.parameters), len(QUANTITIES))
        return torch.stack([one.numbers for one in self.samples]) if self.samples else torch.zeros(shape)

    @property
    def steps(self) -> list[int]:
        """The steps that were sampled."""
        return [one.step for one in self.samples]

    @property
    def losses(self) -> list[float]:
        """The mean loss of each sample."""
        return [one.loss for one in self.samples]

    def __getitem__(self, quantity: str) -> Tensor:
        """Return one quantity, samples x parameters."""
        return self.numbers[..., _PLACES[quantity]]

    def norm(self, quantity: str) -> Tensor:
        """Return a norm over all parameters, one value per sample."""
        return self[quantity].square().nansum(1).sqrt()

    def cosine(self, quantity: str) -> Tensor:
        """Return a cosine over all parameters together, one value per sample; nan where it was not measured."""
        one, other = (self[name] for name in _SIDES[quantity])
        known = (self[quantity] * one * other).isfinite()
        dots = torch.where(known, self[quantity] * one * other, 0.0).sum(1)
        lengths = [torch.where(known, side, 0.0).square().sum(1).sqrt() for side in (one, other)]
        return dots / (lengths[0] * lengths[1])


_PLACES: Final = {name: place for place, name in enumerate(QUANTITIES)}
# Whose lengths a cosine was divided by.
_SIDES: Final = {
    "descent": ("update", "gradient"),
    "turn": ("update", "update_before"),
    "agree": ("gradient", "gradient_before"),
    "past": ("gradient", "update_before"),
    "radial": ("gradient", "weight"),
}


class Growing:
    """A run that grows; parameters may come and go while it does."""

    def __init__(self, optimizer: str, settings: Mapping[str, Any]) -> None:
        self.optimizer, self.settings = optimizer, settings
        self._parameters: dict[str, Parameter] = {}
        self._samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Take a sample, one row of numbers for each of its parameters."""
        self._parameters.update((parameter.name, parameter) for parameter in sample.parameters)
        self._samples.append(sample)
        if len(self._samples) > MOST:
            # A long run must not eat the memory: what is long ago is kept at every other place. The log has it all.
            del self._samples[1 : MOST // 2 : 2]

    def forget_after(self, step: int) -> None:
        """Leave out what was sampled after a step, to which the run went back."""
        self._samples = [sample for sample in self._samples if sample.step <= step]

    def run(self) -> Run:
        """Return the run so far."""
        places = {name: place for place, name in enumerate(self._parameters)}
        samples = []
        for sample in self._samples:
            numbers = torch.full((len(places), len(QUANTITIES)), math.nan, dtype=torch.float64)
            if sample.parameters:
                numbers[[places[parameter.name] for parameter in sample.parameters]] = sample.numbers
            samples.append(replace(sample, numbers=numbers))
        return Run(self.optimizer, tuple(self._parameters.values()), tuple(samples), self.settings)


# --- the log --------------------------------------------------------------------------------------------------------


def _plain(value: float) -> float | str | None:
    """Return a number as JSON can hold it: infinity as a word, nan as nothing."""
    if math.isnan(value):
        return None
    return float(f"{value:.7g}") if math.isfinite(value) else str(value)


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def header(run: Growing, parameters: Iterable[Parameter], done: int) -> dict[str, Any]:
    """Return the line that says what the samples after it are about.

    Args:
        run: whose samples.
        parameters: one for each row of numbers.
        done: steps before it; 0 where a run begins.
    """
    return {
        "slalom_observe": FORMAT,
        "done": done,
        "optimizer": run.optimizer,
        "settings": dict(run.settings),
        "quantities": list(QUANTITIES),
        "parameters": [asdict(parameter) for parameter in parameters],
    }


def line(sample: Sample) -> dict[str, Any]:
    """Return a sample as its line of the log."""
    return {
        "step": sample.step,
        "seconds": _plain(sample.seconds),
        "overhead": _plain(sample.overhead),
        "loss": _plain(sample.loss),
        "bad_losses": sample.bad_losses,
        "norms": [_plain(norm) for norm in sample.norms],
        "rates": [_plain(rate) for rate in sample.rates],
        "probe": None if sample.probe is None else [_plain(loss) for loss in sample.probe],
        "slope": _plain(sample.slope),
        "numbers": [[_plain(value) for value in row] for row in sample.numbers.tolist()],
    }


class Log:
    """A file that grows by whole lines: whatever kills the process, at most the last line is broken."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            if _unfinished(self.path):
                os.write(self._file, b"\n")
        except OSError as error:
            raise UsageError(f'cannot write the log "{self.path}": {error.strerror}.') from None

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line."""
        os.write(self._file, (json.dumps(entry, allow_nan=False) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _unfinished(path: Path) -> bool:
    """Whether a process was killed while it wrote the last line."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_log(path: str | os.PathLike[str]) -> Run:
    """Return the last run of a log. What was resumed at a later step belongs to the run that it goes on with.

    Lines that a dying process left unfinished are passed over.

    Raises:
        UsageError: if the file cannot be read or is no such log.
    """
    grown: Growing | None = None
    parameters: tuple[Parameter, ...] = ()
    quantities: list[str] = []
    for place, entry in _entries(Path(path)):
        try:
            if "slalom_observe" in entry:
                if grown is None or entry["done"] == 0:
                    grown = Growing(entry["optimizer"], entry["settings"])
                grown.forget_after(entry["done"])
                parameters = tuple(_parameter(one) for one in entry["parameters"])
                quantities = entry["quantities"]
            elif grown is not None:
                grown.add(_sample(entry, parameters, quantities))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f'line {place} of "{path}" is no line of slalom.observe.watch: {error!r}.') from None
    if grown is None:
        raise UsageError(f'"{path}" is no log of slalom.observe.watch: it has no line with "slalom_observe".')
    return grown.run()


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f'cannot read the log "{path}": {error.strerror}.') from None
    for place, row in enumerate(text.split("\n"), 1):
        try:
            entry = json.loads(row)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield place, entry


def _parameter(entry: Mapping[str, Any]) -> Parameter:
    return Parameter(**{**entry, "shape": tuple(entry["shape"])})


def _sample(entry: Mapping[str, Any], parameters: tuple[Parameter, ...], quantities: Sequence[str]) -> Sample:
    numbers = torch.full((len(entry["numbers"]), len(QUANTITIES)), math.nan, dtype=torch.float64)
    for row, values in zip(numbers, entry["numbers"], strict=True):
        for name, value in zip(quantities, values, strict=True):
            if name in _PLACES:  # a later version may have measured more
                row[_PLACES[name]] = _number(value)
    probe = entry["probe"]
    return Sample(
        step=int(entry["step"]),
        seconds=_number(entry["seconds"]),
        overhead=_number(entry["overhead"]),
        loss=_number(entry["loss"]),
        bad_losses=int(entry["bad_losses"]),
        norms=tuple(map(_number, entry["norms"])),
        rates=tuple(map(_number, entry["rates"])),
        probe=None if probe is None else (_number(probe[0]), _number(probe[1])),
        slope=_number(entry["slope"]),
        parameters=parameters,
        numbers=numbers,
    )


__all__ = ["QUANTITIES", "Growing", "Log", "Parameter", "Run", "Sample", "header", "line", "read_log"]
