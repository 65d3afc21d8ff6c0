"""What a race consists of: every contestant, on every workload, at every learning rate, from every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slalom.race.contestant import Contestant
from slalom.race.files import Entry
from slalom.race.trial import Trial, key


@dataclass(frozen=True)
class Plan:
    """A race before it is run."""

    entries: tuple[Entry, ...]
    contestants: tuple[Contestant, ...]
    seeds: tuple[int, ...]
    quick: bool
    trials: tuple[Trial, ...]


def plan(
    entries: Sequence[Entry],
    contestants: Sequence[Contestant],
    seeds: int | None = None,
    lrs: Sequence[float] = (),
    quick: bool = False,
) -> Plan:
    """Lay out the trials.

    Args:
        entries: what to race on.
        contestants: who races.
        seeds: how many seeds; by default two, or one when quick.
        lrs: learning rates for everybody instead of each one's own.
        quick: only the middle one of each contestant's learning rates. These are trials of the full race too, which
            finds them in the store when it is run later.
    """
    count = (1 if quick else 2) if seeds is None else seeds
    trials = []
    for entry in entries:
        workload = entry.workload
        for contestant in contestants:
            scale = 1.0 if contestant.pinned else workload.lr_scale
            # Rounded, because 3 x 0.003 is 0.009000000000000001 and would be shown and filed as that.
            grid = tuple(lrs) or tuple(float(f"{lr * scale:.6g}") for lr in contestant.lrs)
            if quick and not lrs:
                grid = (grid[len(grid) // 2],)
            for lr in grid:
                for seed in range(count):
                    digest = key(workload, entry.source, contestant, lr, seed)
                    trials.append(Trial(workload.name, entry.file, contestant, lr, seed, workload.steps, digest))
    return Plan(tuple(entries), tuple(contestants), tuple(range(count)), quick, tuple(trials))
