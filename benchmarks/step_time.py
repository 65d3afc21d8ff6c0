"""Time of a whole optimizer step: slalom, torch.optim and pytorch_optimizer on four parameter lists.

All contestants alternate in one process, since machines are shared and their speed drifts; figures are minimum and
median over many rounds, and every one is also given as a ratio to the floor: the bytes that the method's plan moves
over the best in-place streaming bandwidth measured in the same rounds.

    python benchmarks/step_time.py                      AdamW on all lists
    python benchmarks/step_time.py --method lamb lion   other methods, where the rivals have them
    python benchmarks/step_time.py --own                every method of slalom against its own floor
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable

import pytorch_optimizer
import torch
from workloads import LISTS

import slalom
from slalom.describe import sheets, symbolic
from slalom.recipes import method

Step = Callable[[], object]

TORCH = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "nadam": "NAdam", "radam": "RAdam", "adamax": "Adamax",
         "adagrad": "Adagrad", "rmsprop": "RMSprop", "adafactor": "Adafactor"}  # fmt: skip
FUSED = {"adamw", "adam", "sgd", "adagrad"}
PO = {"adamw": "AdamW", "lion": "Lion", "lamb": "Lamb", "adan": "Adan", "adabelief": "AdaBelief", "laprop": "LaProp",
      "prodigy": "Prodigy", "adafactor": "AdaFactor", "signum": "SignSGD", "soap": "SOAP"}  # fmt: skip
SETTINGS = {"sgd": {"momentum": 0.9}}


def contestants(name: str, make: Callable[[], list[torch.nn.Parameter]]) -> dict[str, Step]:
    """Return the step of everyone who has the method, each on parameters of its own."""
    settings = SETTINGS.get(name, {})
    found: dict[str, Step] = {"slalom": slalom.create(name, make(), **settings).step}
    if name in TORCH:
        cls = getattr(torch.optim, TORCH[name])
        ways = {"torch loop": {"foreach": False}, "torch foreach": {"foreach": True}}
        if name in FUSED:
            ways["torch fused"] = {"fused": True}
        for label, flags in ways.items():
            found[label] = cls(make(), lr=1e-3, **settings, **flags).step
    if name in PO:
        found["pytorch_optimizer"] = getattr(pytorch_optimizer, PO[name])(make(), lr=1e-3).step
    return found


def stream(elements: int) -> tuple[Step, int]:
    """Return the fastest in-place pass torch has, as a yardstick, and the bytes it moves."""
    x = torch.ones(max(elements, 1))
    return (lambda: x.mul_(1.0)), 8 * x.numel()


def floor(name: str) -> float:
    """Return the bytes that the method's plan moves per parameter of a matrix."""
    return sheets(symbolic(method(name), SETTINGS.get(name)))[0].moved


def measure(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Time everyone in turn until the time is over."""
    times: dict[str, list[float]] = {label: [] for label in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for label, step in steps.items():
            begin = time.perf_counter()
            step()
            times[label].append(time.perf_counter() - begin)
    return times


def report(list_name: str, name: str, seconds: float, only_own: bool) -> None:
    """Print one table."""
    make = LISTS[list_name]
    elements = sum(p.numel() for p in make())
    steps = contestants(name, make)
    if only_own:
        steps = {"slalom": steps["slalom"]}
    yardstick, moved = stream(elements)
    times = measure({**steps, "stream": yardstick}, seconds)
    bandwidth = moved / min(times.pop("stream"))
    least = floor(name) * elements / bandwidth
    own = times["slalom"]
    for label, found in times.items():
        print(
            f"{list_name:14}{name:20}{label:18}{min(found) * 1e3:9.3f}{statistics.median(found) * 1e3:9.3f} ms"
            f"{min(own) / min(found):8.2f}{statistics.median(own) / statistics.median(found):7.2f}"
            f"{min(found) / least:9.2f}   {bandwidth / 1e9:5.0f} GB/s"
        )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="*", default=["adamw"], choices=slalom.list_optimizers())
    parser.add_argument("--list", nargs="*", default=list(LISTS), choices=list(LISTS))
    parser.add_argument("--own", action="store_true", help="every fused method of slalom against its floor")
    parser.add_argument("--seconds", type=float, default=6.0, help="per table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, {platform.machine()}, {chosen.threads} threads")
    print(f"{'list':14}{'method':20}{'who':18}{'min':>9}{'median':>9}   {'slalom/who':>13}{'  / floor':>9}")
    methods = [n for n in slalom.list_optimizers() if n not in ("soap", "muon")] if chosen.own else chosen.method
    for list_name in chosen.list:
        for name in methods:
            report(list_name, name, chosen.seconds, chosen.own)


if __name__ == "__main__":
    main()
