"""Timing that several benchmarks share: contestants in turns within one process, on a CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Step = Callable[[], object]

# Seconds of work between two readings of a GPU's clock: a step may take less than its launch.
_SPAN = 0.02


def seconds_of(step: Step, device: str) -> float:
    """Seconds that a step takes, everything that it started included."""
    if device == "cpu":
        begin = time.perf_counter()
        step()
        return time.perf_counter() - begin
    count = 1
    while True:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        passed = time.perf_counter() - begin
        if passed > _SPAN or count >= 256:
            return passed / count
        count *= 4


def measure(steps: dict[str, Step], seconds: float, device: str = "cpu") -> dict[str, list[float]]:
    """Time everyone in turn until the time is over, after three steps each that do not count."""
    times: dict[str, list[float]] = {label: [] for label in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for label, step in steps.items():
            times[label].append(seconds_of(step, device))
    return times


def stream(elements: int, device: str = "cpu") -> tuple[Step, int]:
    """Return the fastest pass over memory that torch has, as a yardstick, and the bytes it moves.

    On a CPU that is multiplying in place; a GPU is as fast either way, and copying is what its makers quote.
    """
    x = torch.ones(max(elements, 1 if device == "cpu" else 1 << 26), device=device)
    if device == "cpu":
        return (lambda: x.mul_(1.0)), 8 * x.numel()
    y = torch.empty_like(x)
    return (lambda: y.copy_(x)), 8 * x.numel()
