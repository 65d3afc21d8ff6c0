"""What a race consists of: every contestant, on every workload, at every point of the ruleset, in every study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from slalom.race.contestant import Contestant
from slalom.race.files import Entry
from slalom.race.rules import Ruleset
from slalom.race.trial import Trial, key


@dataclass(frozen=True)
class Plan:
    """A race before it is run."""

    entries: tuple[Entry, ...]
    contestants: tuple[Contestant, ...]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    rules: Ruleset = field(default_factory=Ruleset)

    @property
    def quick(self) -> bool:
        """Whether this is a look and not a verdict."""
        return self.rules.quick


def plan(
    entries: Sequence[Entry],
    contestants: Sequence[Contestant],
    seeds: int | None = None,
    rules: Ruleset | None = None,
) -> Plan:
    """Lay out the trials.

    Args:
        entries: what to race on.
        contestants: who races.
        seeds: how many studies; by default as many as the rules want.
        rules: which points are tried; by default a grid of learning rates. The trials of a quick race are trials of
            the full one too, which finds them in the store when it is run later.
    """
    rules = rules or Ruleset()
    studies = range(rules.studies if seeds is None else seeds)
    trials = []
    for entry in entries:
        workload = entry.workload
        steps, data = round(workload.steps * rules.budget), workload.data_hash()
        for contestant in contestants:
            for seed in studies:
                for index, settings in enumerate(rules.settings(contestant, workload.lr_scale, seed)):
                    digest = key(workload, entry.source, data, contestant, settings, seed, steps)
                    trials.append(Trial(workload.name, entry.file, contestant, settings, index, seed, steps, digest))
    return Plan(tuple(entries), tuple(contestants), tuple(studies), tuple(trials), rules)
