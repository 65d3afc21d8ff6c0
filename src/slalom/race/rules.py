"""Rulesets: how many trials a contestant gets in a study, at which hyper-parameters, and with which budget of steps.

A study is one seed: initial weights, batches and, where points are drawn, the draw. Within a study all contestants
meet the same three.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from slalom.errors import UsageError, reason, unknown
from slalom.race.contestant import Contestant, Settings

Name = Literal["grid", "external", "self-tuning"]
Sampler = Literal["halton", "sobol", "uniform"]

STUDIES: Mapping[Name, int] = {"grid": 2, "external": 3, "self-tuning": 3}
EXPLAINED: Mapping[Name, str] = {
    "grid": "Every contestant runs at each of a few learning rates, the same in every study.",
    "external": "External tuning: in every study each contestant runs at {trials} points of its search space, "
    "{source}. Its best trial in the study counts.",
    "self-tuning": "Self-tuning: every contestant runs once per study with exactly its default hyper-parameters, and "
    "has {budget:g} times the workload's steps.",
}


@dataclass(frozen=True)
class Ruleset:
    """The rules of a race.

    Attributes:
        name: "grid" tries each recipe's few learning rates, "external" draws points from its search space,
            "self-tuning" takes the defaults as they are.
        trials: how many points in a study; external tuning only.
        sampler: scrambled Halton or Sobol points, which spread evenly, or independent uniform ones.
        points: fixed lists of points by contestant, instead of drawn ones.
        lrs: learning rates for everybody instead of each one's own; grid only.
        quick: only the middle learning rate of a grid.
    """

    name: Name = "grid"
    trials: int = 5
    sampler: Sampler = "halton"
    points: Mapping[str, Sequence[Settings]] = field(default_factory=dict)
    lrs: tuple[float, ...] = ()
    quick: bool = False

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise unknown("ruleset", self.name, get_args(Name))
        if self.sampler not in get_args(Sampler):
            raise unknown("sampler", self.sampler, get_args(Sampler))
        if self.lrs and self.name != "grid":
            raise UsageError(f"--lrs fixes a grid of rates; --rules {self.name} chooses its own, so leave one out.")

    @property
    def budget(self) -> float:
        """What a workload's steps are multiplied by; 1.5 as in AlgoPerf's self-tuning ruleset."""
        return 1.5 if self.name == "self-tuning" else 1.0

    @property
    def studies(self) -> int:
        """How many studies there are if nobody says otherwise."""
        return 1 if self.quick else STUDIES[self.name]

    def settings(self, contestant: Contestant, lr_scale: float, study: int) -> tuple[Settings, ...]:
        """Return the points at which a contestant runs in a study.

        Args:
            contestant: who.
            lr_scale: the workload's unit of learning rate; rates that a person chose are taken as they are.
            study: which study; only drawn points depend on it.
        """
        if self.name == "self-tuning":
            return (contestant.plain(),)
        if contestant.label in self.points:
            return tuple({**contestant.plain(), **point} for point in self.points[contestant.label])
        scale = 1.0 if contestant.pinned else lr_scale
        if self.name == "external":
            return draw(contestant, self.trials, study, self.sampler, scale)
        grid = self.lrs or tuple(_round(lr * scale) for lr in contestant.lrs)
        if self.quick and not self.lrs:
            grid = (grid[len(grid) // 2],)
        return tuple({"lr": lr} for lr in grid)

    def explain(self) -> str:
        """Say in words what the rules are."""
        source = f"drawn as scrambled {self.sampler.capitalize()} points" if self.sampler != "uniform" else "at random"
        if self.points:
            source += ", or from a fixed list where one was given"
        return EXPLAINED[self.name].format(trials=self.trials, source=source, budget=self.budget)


def draw(contestant: Contestant, trials: int, study: int, sampler: Sampler, lr_scale: float) -> tuple[Settings, ...]:
    """Return quasi-random points of a contestant's search space, fewer if the space is a single point.

    Contestants with as many dimensions get the same points of the unit cube, the learning rate on the same axis, and
    the first points of a longer list are those of a shorter one: more trials extend a race.
    """
    names = list(contestant.space)
    if not names:
        return (contestant.plain(),)
    found = []
    for quantiles in unit_points(len(names), trials, study, sampler):
        settings = dict(contestant.plain())
        for name, quantile in zip(names, quantiles, strict=True):
            value = contestant.space[name].at(quantile)
            settings[name] = _round(value * lr_scale if name == "lr" else value)
        found.append(settings)
    return tuple(found)


@lru_cache(maxsize=256)
def unit_points(dimensions: int, count: int, study: int, sampler: Sampler) -> tuple[tuple[float, ...], ...]:
    """Return the first points of a sequence in the unit cube; every study has a scrambling of its own."""
    import numpy as np
    from scipy.stats import qmc

    seed = int.from_bytes(hashlib.sha256(f"points/{study}".encode()).digest()[:4], "big")
    if sampler == "uniform":
        points = np.random.default_rng(seed).random((count, dimensions))
    elif sampler == "halton":
        points = qmc.Halton(dimensions, scramble=True, seed=seed).random(count)
    else:
        # Sobol points are balanced in powers of two only; the first ones of a block are still its first ones.
        points = qmc.Sobol(dimensions, scramble=True, seed=seed).random_base2((count - 1).bit_length())[:count]
    return tuple(tuple(float(value) for value in row) for row in points)


def read_points(file: Path) -> dict[str, list[Settings]]:
    """Read fixed lists of points: ``{"adamw": [{"lr": 1e-3, "betas[0]": 0.95}, ...], ...}`` in JSON."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f'cannot read points "{file}": {reason(error)}.') from None
    good = isinstance(plain, dict) and all(
        isinstance(points, list) and points and all(isinstance(point, dict) for point in points)
        for points in plain.values()
    )
    if not good:
        raise UsageError(f'points "{file}": give an object of lists, as in {{"adamw": [{{"lr": 1e-3}}, ...]}}.')
    found: dict[str, list[Settings]] = plain
    return found


def _round(value: Any) -> Any:
    """Round a number, because 3 x 0.003 is 0.009000000000000001 and would be shown and filed as that."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
