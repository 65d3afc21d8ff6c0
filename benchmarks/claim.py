"""A published claim at our scale: Muon and SOAP need fewer steps than AdamW, if all three are tuned alike.

Jordan et al. 2024 (Muon) and Vyas et al. 2024 (SOAP, arXiv:2409.11321) say that they do; Wen et al. 2025
(arXiv:2509.02046) find 1.1 to 1.4 times fewer once AdamW is tuned as well. Here every method gets a grid of learning
rates a factor of 2 apart, times two values of the one other number that matters most to it. A grid whose best rate
lies at its end grows by one rate there, until the best one lies inside or the grid has five. The best point over two
studies is then judged on other studies, which took no part in the tuning: same weights and batches for all, ratios
paired by study.

Two readings: steps to the workload's frozen target, as in a race; and steps to the loss that AdamW ends with in the
same study. The second is hard on the rivals, which are still at a high learning rate when they get there.

    python benchmarks/claim.py [-w charlm digits_vit] [--studies 10] [--out claim-results]

A run that is interrupted goes on where it stopped; everything is in the store, for `slalom race merge` and others.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from slalom.race.contestant import Contestant, enter
from slalom.race.files import Entry, choose
from slalom.race.plan import plan
from slalom.race.records import Outcome
from slalom.race.rules import Ruleset
from slalom.race.runner import run
from slalom.race.scoring.clocks import crossing
from slalom.race.scoring.doubt import student
from slalom.race.screen import watch
from slalom.race.store import Store, prepare

BASELINE = "adamw"
TUNING = (0, 1)
MOST_RATES = 5


@dataclass(frozen=True)
class Search:
    """A grid: rates, smallest first, and two values of another hyper-parameter."""

    lrs: tuple[float, ...]
    other: str
    values: tuple[float, float]

    def points(self) -> list[dict[str, float]]:
        """Return all of it."""
        return [{"lr": lr, self.other: value} for lr in self.lrs for value in self.values]


GRIDS = {
    "adamw": Search((4e-3, 8e-3, 1.6e-2), "betas[1]", (0.98, 0.999)),
    "muon": Search((1e-2, 2e-2, 4e-2), "adam_lr", (4e-3, 1.2e-2)),
    "soap": Search((8e-3, 1.6e-2, 3.2e-2), "betas[1]", (0.95, 0.98)),
}


class Bench:
    """Trains what the store does not know yet."""

    def __init__(self, entry: Entry, store: Store, console: Console, workers: int) -> None:
        self.entry, self.store, self.console, self.workers = entry, store, console, workers

    def train(
        self, points: Mapping[str, Sequence[Mapping[str, Any]]], studies: Sequence[int]
    ) -> dict[tuple[str, int, int], Outcome]:
        """Return outcomes by contestant, place of the point in its list, and study."""
        contestants: tuple[Contestant, ...] = enter(points)
        laid = plan([self.entry], contestants, max(studies) + 1, Ruleset("external", points=dict(points)))
        trials = tuple(trial for trial in laid.trials if trial.seed in studies)
        with watch(self.console) as watcher:
            run(replace(laid, trials=trials, seeds=tuple(studies)), self.store, self.workers, watcher)
        found = self.store.outcomes(trial.key for trial in trials)
        return {(trial.contestant.label, trial.index, trial.seed): found[trial.key] for trial in trials}

    def to(self, outcome: Outcome, target: float) -> float:
        """Return the steps to a loss, the budget if it is not reached."""
        return min(crossing(outcome.curve.step, outcome.curve.loss, target), self.entry.workload.steps)


def tune(bench: Bench, name: str) -> tuple[dict[str, float], Search]:
    """Return the best point of a grid that has grown until its best rate lies inside, and the grid."""
    grid, target = GRIDS[name], bench.entry.workload.target
    assert target is not None
    while True:
        points = grid.points()
        outcomes = bench.train({name: points}, TUNING)

        def cost(place: int, outcomes: dict[tuple[str, int, int], Outcome] = outcomes) -> tuple[float, float]:
            both = [outcomes[name, place, study] for study in TUNING]
            # Among points that miss the target, the lower final loss.
            finals = [one.curve.loss[-1] if one.status == "finished" else math.inf for one in both]
            return sum(math.log(bench.to(one, target)) for one in both), sum(finals)

        best = points[min(range(len(points)), key=cost)]
        inside = grid.lrs[0] < best["lr"] < grid.lrs[-1]
        if inside or len(grid.lrs) == MOST_RATES:
            return best, grid
        lower, upper = float(f"{grid.lrs[0] / 2:.3g}"), float(f"{grid.lrs[-1] * 2:.3g}")
        grid = replace(grid, lrs=(*grid.lrs, upper) if best["lr"] == grid.lrs[-1] else (lower, *grid.lrs))


def main() -> None:
    """Tune, judge, and print the ratios with their intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", nargs="+", default=["charlm", "digits_vit"])
    parser.add_argument("--studies", type=int, default=10, help="studies to judge on")
    parser.add_argument("--out", type=Path, default=Path("claim-results"))
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    console = Console()
    prepare(chosen.out)
    judging = range(len(TUNING), len(TUNING) + chosen.studies)
    logs: dict[str, dict[str, list[float]]] = {}
    for entry in choose([], chosen.workload):
        with closing(Store(chosen.out)) as store:
            bench = Bench(entry, store, console, chosen.workers)
            tuned = {name: tune(bench, name) for name in GRIDS}
            outcomes = bench.train({name: [point] for name, (point, _) in tuned.items()}, judging)
        for name, (point, grid) in tuned.items():
            edge = "" if grid.lrs[0] < point["lr"] < grid.lrs[-1] else "  (the best rate is the grid's last)"
            print(f"{entry.workload.name}  {name}  {point} of {len(grid.points())} points{edge}")
        logs[entry.workload.name] = _judge(bench, outcomes, judging)
    if len(logs) > 1:
        print("\nboth workloads, their means as units (Student's interval of two means says little)")
        for name in GRIDS:
            if name != BASELINE:
                print(_line(name, [sum(log[name]) / len(log[name]) for log in logs.values()]))


def _judge(
    bench: Bench, outcomes: Mapping[tuple[str, int, int], Outcome], studies: Sequence[int]
) -> dict[str, list[float]]:
    """Print both readings; return the logarithms of the ratios of steps to target, by rival."""
    workload, found = bench.entry.workload, {}
    print(f"\n{workload.name}: steps over those of tuned {BASELINE}, {len(studies)} studies, paired 95 % intervals")
    for reading in ("target", "AdamW's last loss"):
        print(f"  steps to {f'the target {workload.target:g}' if reading == 'target' else reading}")
        for name in GRIDS:
            logs, missed, steps = [], 0, []
            for study in studies:
                theirs, own = outcomes[BASELINE, 0, study], outcomes[name, 0, study]
                aim = workload.target if reading == "target" else theirs.curve.loss[-1]
                assert aim is not None
                missed += own.status != "finished" or min(own.curve.loss) > aim
                steps.append(bench.to(own, aim))
                logs.append(math.log(steps[-1] / bench.to(theirs, aim)))
            note = f"   {missed} of {len(studies)} missed it" if missed else ""
            mean = sum(steps) / len(steps)
            print(f"{_line(name, logs)}   mean {mean:.0f} of {workload.steps} steps{note}")
            if reading == "target":
                found[name] = logs
    finals = {name: [outcomes[name, 0, study].curve.loss[-1] for study in studies] for name in GRIDS}
    print("  mean final loss  " + "  ".join(f"{name} {sum(v) / len(v):.4f}" for name, v in finals.items()))
    return found


def _line(name: str, logs: Sequence[float]) -> str:
    if name == BASELINE:
        return f"    {name:<6} 1.000                 "
    mean, half = student(logs)
    return f"    {name:<6} {math.exp(mean):.3f} [{math.exp(mean - half):.3f} {math.exp(mean + half):.3f}]"


if __name__ == "__main__":
    main()
