"""How far methods come that promise to need no tuning, untuned, and whether ours come as far as their authors' code.

    python benchmarks/untuned.py                          # about half an hour on one core
    python benchmarks/untuned.py -w digits_mlp --seeds 1

One table per workload: the validation loss after the whole run, a mean over seeds, of each method at its own defaults;
of its authors' package from the same weights on the same batches; of that package once more, from weights that differ
by a millionth, which tells how much of a difference rounding alone makes; and of AdamW at the best of ten rates.
Without a package, its columns say so; `pip install --no-deps schedulefree prodigyopt dadaptation dog-optimizer
mechanic-pytorch` brings them all.

Nobody gets a schedule that its authors do not ask for: Schedule-Free and DoG run at a constant rate and are evaluated
at their averages, Prodigy follows a cosine, D-Adaptation and Mechanic the schedule that AdamW has (the workload's:
warm-up for a twentieth, then a cosine to 0). Batch norm's statistics are measured again for averages, over 20 batches.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

import slalom
from slalom.race.workload import Workload, reseed, stream
from slalom.race.workloads import built_in
from slalom.schedules import Constant, Cosine

RATES = tuple(2.5e-4 * 2**k for k in range(10))
SCHEDULES: dict[str, Callable[[float], float]] = {"constant": Constant(), "cosine": Cosine(1)}
BATCHES = 20  # that batch norm's statistics are measured on
NUDGE = 1e-6


@dataclass(frozen=True)
class Runner:
    """An optimizer at work on a model, and how to look at the point that it hands back."""

    optimizer: torch.optim.Optimizer
    averaged: Callable[[], AbstractContextManager[nn.Module | None]] | None = None
    after: Callable[[], None] = lambda: None


Build = Callable[[nn.Module], Runner]


@dataclass(frozen=True)
class Entry:
    """A method: ours, its authors', and what its rate follows ("workload" for the workload's own schedule)."""

    schedule: str
    ours: Build
    theirs: Build


# --- ours and theirs -------------------------------------------------------------------------------------------------


def ours(name: str, averages: bool = False, **settings: Any) -> Build:
    """Return how a method of the catalogue is built."""

    def build(model: nn.Module) -> Runner:
        optimizer = slalom.create(name, model, **settings)
        return Runner(optimizer, optimizer.averaged if averages else None)

    return build


def theirs(path: str, **settings: Any) -> Build:
    """Return how a class of another package is built, which may be missing."""

    def build(model: nn.Module) -> Runner:
        return Runner(_found(path)(model.parameters(), **settings))

    return build


def schedule_free(path: str) -> Build:
    """Return how a Schedule-Free optimizer of its authors is built; it has to be told what the model is used for."""

    def build(model: nn.Module) -> Runner:
        optimizer = _found(path)(model.parameters())
        optimizer.train()

        @contextlib.contextmanager
        def averaged() -> Iterator[None]:
            optimizer.eval()
            yield
            optimizer.train()

        return Runner(optimizer, averaged)

    return build


def distance_over_gradients(model: nn.Module) -> Runner:
    """Return the authors' DoG with the authors' averager, which keeps a model of its own."""
    averager = _found("dog.PolynomialDecayAverager")(model)

    @contextlib.contextmanager
    def averaged() -> Iterator[nn.Module]:
        yield averager.averaged_model

    return Runner(_found("dog.DoG")(model.parameters()), averaged, averager.step)


def mechanic(model: nn.Module) -> Runner:
    """Return the authors' Mechanic around torch's AdamW, set as ours is."""
    scaled = _found("mechanic_pytorch.mechanize")(torch.optim.AdamW)
    return Runner(scaled(model.parameters(), lr=1e-2, weight_decay=0.0))


def _found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


ENTRIES = {
    "Schedule-Free SGD": Entry(
        "constant", ours("schedule-free-sgd", averages=True), schedule_free("schedulefree.SGDScheduleFree")
    ),
    "Schedule-Free AdamW": Entry(
        "constant", ours("schedule-free-adamw", averages=True), schedule_free("schedulefree.AdamWScheduleFree")
    ),
    "Prodigy": Entry("cosine", ours("prodigy"), theirs("prodigyopt.Prodigy")),
    "D-Adaptation SGD": Entry("workload", ours("dadapt-sgd"), theirs("dadaptation.DAdaptSGD", momentum=0.9)),
    "D-Adaptation Adam": Entry("workload", ours("dadapt-adam"), theirs("dadaptation.DAdaptAdam")),
    "DoG": Entry("constant", ours("dog", averages=True), distance_over_gradients),
    "Mechanic AdamW": Entry("workload", ours("mechanic"), mechanic),
}


# --- a run -----------------------------------------------------------------------------------------------------------


def trained(workload: Workload[Any], seed: int, schedule: str, build: Build, nudge: float = 0.0) -> float:
    """Return the validation loss after a whole run, from weights that are larger by a factor of ``1 + nudge``."""
    factor = SCHEDULES.get(schedule, workload.schedule)
    reseed(workload.name, seed, "model")
    model = workload.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + nudge)
    runner = build(model)
    reseed(workload.name, seed, "train")
    optimizer, batches = runner.optimizer, _endless(workload, seed, "batches")
    rates = [group["lr"] for group in optimizer.param_groups]
    for step, batch in zip(range(workload.steps), batches, strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(step / workload.steps)
        optimizer.zero_grad()
        workload.loss(model, batch).backward()
        optimizer.step()
        runner.after()
    if runner.averaged is None:
        return _loss(workload, model)
    with runner.averaged() as other:
        averaged = other or model
        inputs = (batch[0] for batch in islice(_endless(workload, seed, "norms"), BATCHES))
        return _loss(workload, slalom.update_bn(averaged, inputs))


def _endless(workload: Workload[Any], seed: int, purpose: str) -> Iterator[Any]:
    generator = stream(workload.name, seed, purpose)
    while True:
        yield from workload.batches(generator)


def _loss(workload: Workload[Any], model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return float(workload.evaluate(model)["loss"])


# --- the table -------------------------------------------------------------------------------------------------------


def loss(workload: Workload[Any], seeds: int, schedule: str, build: Build, nudge: float = 0.0) -> float | None:
    """Return the mean over seeds; None if a package is missing."""
    try:
        return statistics.fmean(trained(workload, seed, schedule, build, nudge) for seed in range(seeds))
    except ModuleNotFoundError:
        return None


def compare(workload: Workload[Any], seeds: int, names: list[str]) -> None:
    """Print the table of one workload."""
    tuned = {rate: loss(workload, seeds, "workload", ours("adamw", lr=rate)) or 0.0 for rate in RATES}
    best = min(tuned, key=tuned.__getitem__)
    edge = ", at the end of what was tried" if best in (RATES[0], RATES[-1]) else ""
    row = "| {:<19} | {:<8} | {:>7} | {:>7} | {:>14} | {:>16} | {:>12} |"
    print(f"\n{workload.name}, {workload.steps} steps, {seeds} seeds: validation loss at the end\n")
    print(row.format("method", "schedule", "ours", "authors", "ours / authors", "nudged / authors", "ours / AdamW"))
    print(row.format(*("---",) * 7))
    for name in names:
        entry = ENTRIES[name]
        own = loss(workload, seeds, entry.schedule, entry.ours) or 0.0
        other = loss(workload, seeds, entry.schedule, entry.theirs)
        told = ("none", "", "")
        if other is not None:
            nudged = loss(workload, seeds, entry.schedule, entry.theirs, NUDGE) or 0.0
            told = (f"{other:.4f}", f"{own / other:.3f}", f"{nudged / other:.3f}")
        print(row.format(name, entry.schedule, f"{own:.4f}", *told, f"{own / tuned[best]:.2f}"), flush=True)
    print(row.format("AdamW, tuned", "workload", f"{tuned[best]:.4f}", "", "", "", "1.00"))
    rates = "  ".join(f"{rate:g}: {value:.4f}" for rate, value in tuned.items())
    print(f"\nAdamW's best rate is {best:g}{edge}; by rate {rates}", flush=True)


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-w", "--workload", nargs="+", default=["digits_mlp", "digits_cnn", "charlm"])
    parser.add_argument("-m", "--method", nargs="+", default=list(ENTRIES), choices=list(ENTRIES))
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.workload:
        compare(built_in()[name], given.seeds, given.method)


if __name__ == "__main__":
    main()
