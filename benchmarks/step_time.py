"""Time of a whole optimizer step: slalom and its rivals on four parameter lists, on a CPU or a GPU.

All contestants alternate in one process, since machines are shared and their speed drifts; figures are minimum and
median over many rounds, and every one is also given as a ratio to the floor: the bytes that the method's plan moves
over the best streaming bandwidth measured in the same rounds (in place on a CPU, a copy on a GPU).

    python benchmarks/step_time.py                      AdamW on all lists
    python benchmarks/step_time.py --method lamb lion   other methods, where the rivals have them
    python benchmarks/step_time.py --own                every method of slalom against its own floor
    python benchmarks/step_time.py --device cuda        on a GPU, with a list of a billion parameters

Rivals beside torch take part where they are installed: pip install pytorch-optimizer torch-optimi heavyball.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import warnings
from collections.abc import Callable

import torch
from timing import Step, measure, stream
from workloads import LARGE, LISTS, filled

import slalom
from slalom.describe import sheets, symbolic
from slalom.recipes import method

TORCH = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "nadam": "NAdam", "radam": "RAdam", "adamax": "Adamax",
         "adagrad": "Adagrad", "rmsprop": "RMSprop", "adafactor": "Adafactor"}  # fmt: skip
FUSED = {"adamw", "adam", "sgd", "adagrad"}
OTHERS = {
    "pytorch_optimizer": {
        "adamw": "AdamW", "lion": "Lion", "lamb": "Lamb", "adan": "Adan", "adabelief": "AdaBelief", "laprop": "LaProp",
        "prodigy": "Prodigy", "adafactor": "AdaFactor", "signum": "SignSGD", "soap": "SOAP",
    },
    "optimi": {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "lion": "Lion", "adan": "Adan", "radam": "RAdam"},
    "heavyball": {"adamw": "AdamW", "adopt": "ADOPT", "laprop": "LaProp"},
}  # fmt: skip
SETTINGS = {"sgd": {"momentum": 0.9}}


def own(name: str, parameters: list[torch.nn.Parameter]) -> Step:
    """Return slalom's step, given the loss where the method reads it."""
    optimizer = slalom.create(name, parameters, **SETTINGS.get(name, {}))
    loss = torch.ones((), device=parameters[0].device)
    return (lambda: optimizer.step(lambda: loss)) if optimizer.needs_loss else optimizer.step


def contestants(
    name: str, make: Callable[[], list[torch.nn.Parameter]], others: list[str], *, large: bool
) -> dict[str, Step]:
    """Return the step of everyone who has the method, each on parameters of its own; of torch's the fastest alone
    where parameters are large.
    """
    settings = SETTINGS.get(name, {})
    found: dict[str, Step] = {"slalom": own(name, make())}
    if name in TORCH:
        cls = getattr(torch.optim, TORCH[name])
        ways = {} if large and name in FUSED else {"torch loop": {"foreach": False}, "torch foreach": {"foreach": True}}
        if name in FUSED:
            ways["torch fused"] = {"fused": True}
        for label, flags in ways.items():
            found[label] = cls(make(), lr=1e-3, **settings, **flags).step
    for package in () if large else others:
        if name in OTHERS[package]:
            cls = getattr(importlib.import_module(package), OTHERS[package][name])
            found[package] = _keeping_gradients(cls(make(), lr=1e-3, **settings), package)
    return found


def _keeping_gradients(optimizer: torch.optim.Optimizer, package: str) -> Step:
    """Return a step that every contestant can repeat: heavyball drops gradients, which must be put back."""
    if package != "heavyball":
        return optimizer.step
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters]

    def step() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step


def floor(name: str) -> float:
    """Return the bytes that the method's plan moves per parameter of a matrix."""
    return sheets(symbolic(method(name), SETTINGS.get(name)))[0].moved


def report(list_name: str, name: str, seconds: float, device: str, others: list[str] | None) -> None:
    """Print one table; without others, slalom against its own floor."""
    shapes = {**LISTS, **LARGE}[list_name]
    elements = sum(p.numel() for p in filled(shapes, "meta"))
    if others is None:
        steps = {"slalom": own(name, filled(shapes, device))}
    else:
        steps = contestants(name, lambda: filled(shapes, device), others, large=list_name in LARGE)
    yardstick, moved = stream(elements, device)
    times = measure({**steps, "stream": yardstick}, seconds, device)
    bandwidth = moved / min(times.pop("stream"))
    least = floor(name) * elements / bandwidth
    ours = times["slalom"]
    for label, found in times.items():
        print(
            f"{list_name:14}{name:20}{label:18}{min(found) * 1e3:9.3f}{statistics.median(found) * 1e3:9.3f} ms"
            f"{min(ours) / min(found):8.2f}{statistics.median(ours) / statistics.median(found):7.2f}"
            f"{min(found) / least:9.2f}   {bandwidth / 1e9:5.0f} GB/s",
            flush=True,
        )


def main() -> None:
    """Run what was asked for."""
    installed = [package for package in OTHERS if importlib.util.find_spec(package)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="*", default=["adamw"], choices=slalom.list_optimizers())
    parser.add_argument("--list", nargs="*", choices=[*LISTS, *LARGE])
    parser.add_argument("--own", action="store_true", help="every fused method of slalom against its floor")
    parser.add_argument("--others", nargs="*", default=installed, choices=installed, help="rivals beside torch")
    parser.add_argument("--seconds", type=float, default=6.0, help="per table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    on_cpu = chosen.device == "cpu"
    where = f"{platform.machine()}, {chosen.threads} threads" if on_cpu else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}")
    print(f"{'list':14}{'method':20}{'who':18}{'min':>9}{'median':>9}   {'slalom/who':>13}{'  / floor':>9}")
    fused = [name for name in slalom.list_optimizers() if method(name).family != "matrix"]
    for list_name in chosen.list or [*LISTS, *(() if on_cpu else LARGE)]:
        for name in fused if chosen.own else chosen.method:
            report(list_name, name, chosen.seconds, chosen.device, None if chosen.own else chosen.others)


if __name__ == "__main__":
    main()
