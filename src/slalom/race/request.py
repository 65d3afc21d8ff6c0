"""What a person asked for, as plain data that is kept with the results, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slalom.race.contestant import DEFAULT, enter, parse_lrs
from slalom.race.files import choose
from slalom.race.plan import Plan, plan
from slalom.race.rules import Ruleset, read_points


@dataclass(frozen=True)
class Request:
    """The arguments of `slalom race` that decide what is trained.

    Attributes:
        entrants: names of recipes, importable classes, recipe files and Python files, as they were typed.
        workloads: names of workloads.
        tier: a set of workloads.
        held_out: whether the variants of the chosen workloads race too.
        seeds: how many studies, or None for as many as the rules want.
        lrs: learning rates for everybody, as they were typed.
        rules: the ruleset's name.
        trials: points per study.
        sampler: how points are drawn.
        points: a file with fixed points.
        quick: one learning rate, one seed.
        data: folders and files with data, for the GPU tier.
    """

    entrants: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    tier: str | None = None
    held_out: bool = False
    seeds: int | None = None
    lrs: str | None = None
    rules: str = "grid"
    trials: int = 5
    sampler: str = "halton"
    points: str | None = None
    quick: bool = False
    data: tuple[str, ...] = ()

    def plan(self) -> Plan:
        """Return the race."""
        files = [word for word in self.entrants if word.endswith(".py")]
        recipes = [word for word in self.entrants if not word.endswith(".py")]
        rules = Ruleset(
            name=self.rules,  # type: ignore[arg-type]  # checked there, with a sentence
            trials=self.trials,
            sampler=self.sampler,  # type: ignore[arg-type]
            points=read_points(Path(self.points)) if self.points else {},
            lrs=parse_lrs(self.lrs) if self.lrs is not None else (),
            quick=self.quick,
        )
        entries = choose(files, self.workloads, self.tier, held_out=self.held_out, data=self.data)
        return plan(entries, enter(recipes or DEFAULT, files), self.seeds, rules)

    def as_json(self) -> dict[str, Any]:
        """Return plain data; files by their full path, so that they are found from anywhere."""
        entrants = [str(Path(word).resolve()) if word.endswith((".py", ".toml")) else word for word in self.entrants]
        points = str(Path(self.points).resolve()) if self.points else None
        data = tuple(str(Path(path).expanduser().resolve()) for path in self.data)
        return asdict(replace(self, entrants=tuple(entrants), points=points, data=data))

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Request:
        """Read what `as_json` wrote."""
        lists = {name: tuple(plain[name]) for name in ("entrants", "workloads", "data") if name in plain}
        return cls(**{**plain, **lists})
