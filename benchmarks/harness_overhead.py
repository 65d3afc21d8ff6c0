"""What racing adds to a training step: the harness's step against a bare loop over the same batches.

The bare loop is what a person would write: zero_grad, loss, backward, step, the schedule. It does not read the loss and
hands no closure to the optimizer, which the race has to do; it asks for the schedule's factor at each step, which the
race does for all steps before the first. Short blocks of both alternate, by the CPU's clock, and of many blocks the
fastest counts, because other work on the machine only ever slows one down.

    python benchmarks/harness_overhead.py [-w quadratic wine digits_mlp] [--optimizer torch.optim.AdamW]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from slalom.race.contestant import Contestant, enter
from slalom.race.files import choose
from slalom.race.training import Meter, Training
from slalom.race.workload import Workload, reseed, stream

BLOCK = 14  # a multiple of how often a race times a step by itself


def bare(workload: Workload[Any], contestant: Contestant) -> Iterator[None]:
    """Train as a person would."""
    reseed(workload.name, 0, "model")
    model = workload.model()
    optimizer = contestant.build(model, contestant.plain())
    rates = [group["lr"] for group in optimizer.param_groups]
    model.train()
    for step, batch in enumerate(workload.batches(stream(workload.name, 0, "batches"))):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * workload.schedule(step % workload.steps / workload.steps)
        optimizer.zero_grad()
        loss = workload.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield


def raced(workload: Workload[Any], contestant: Contestant) -> Iterator[None]:
    """Train as a race does."""
    meter = Meter()
    training = Training(workload, contestant, contestant.plain(), seed=0, steps=workload.steps)
    while True:
        for step in range(1, workload.steps + 1):
            training.step(step, meter)
            yield


def block(training: Iterator[None], clock: Callable[[], float]) -> float:
    """Return the seconds of a block of steps."""
    started = clock()
    for _ in range(BLOCK):
        next(training)
    return clock() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", nargs="+", default=["quadratic", "wine", "digits_mlp"])
    parser.add_argument("--optimizer", default="torch.optim.AdamW")
    parser.add_argument("--blocks", type=int, default=1000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    (contestant,) = enter([chosen.optimizer])
    print(f"microseconds a step with {chosen.optimizer}, one thread, {chosen.blocks} blocks of {BLOCK} steps each")
    print("  workload        bare    raced   overhead")
    for entry in choose([], chosen.workload):
        both = bare(entry.workload, contestant), raced(entry.workload, contestant)
        for training in both:
            block(training, time.process_time)
        times = [[block(training, time.process_time) / BLOCK for training in both] for _ in range(chosen.blocks)]
        plain, full = (1e6 * min(column) for column in zip(*times, strict=True))
        print(f"  {entry.workload.name:<12} {plain:7.1f}  {full:7.1f}   {full / plain - 1:+8.1%}")


if __name__ == "__main__":
    main()
