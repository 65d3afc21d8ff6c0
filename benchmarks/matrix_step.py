"""Step times of matrix methods against torch.optim and pytorch_optimizer, as ratios.

    python benchmarks/matrix_step.py [--quick] [--device cuda]

Contestants alternate within one process; every figure is a minimum over rounds. Medians wander on shared machines.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable

import torch
from timing import Step, measure
from torch.utils.flop_counter import FlopCounterMode
from workloads import filled

import slalom
from slalom.algebra.matrix import MUON_QUINTIC, polar

GPT2 = [(2304, 768), (768, 768), (3072, 768), (768, 3072)]  # the hidden matrices of one block of GPT-2 small
LISTS = {
    "24 layers of 256-wide matrices": [shape for _ in range(24) for shape in [(256, 256)] * 4],
    "GPT-2 small, hidden matrices": GPT2 * 12,
}


def minima(contestants: dict[str, Step], seconds: float, device: str) -> dict[str, float]:
    """Seconds per call of each, at best, taken in turns."""
    return {name: min(times) for name, times in measure(contestants, seconds, device).items()}


Stacks = list[tuple[int, int, int]]  # how many matrices, of how many rows and columns


def stacked(shapes: list[tuple[int, int]]) -> Stacks:
    """Matrices of one shape together, as many as the engine takes at a time."""
    found = []
    for rows, columns in dict.fromkeys(shapes):
        count, most = shapes.count((rows, columns)), max(1, (1 << 23) // (rows * columns))
        found += [(min(most, count - first), rows, columns) for first in range(0, count, most)]
    return found


def iterations(stacks: Stacks, device: str) -> Step:
    """The polar factors of stacks in single precision, in bfloat16, with all that it takes, where a step has them."""
    matrices = [torch.randn(stack, device=device) for stack in stacks]
    return lambda: [polar(x, steps=5, coefficients=MUON_QUINTIC, dtype="bfloat16", spent=True) for x in matrices]


def products(stacks: Stacks, device: str, steps: int = 5) -> Step:
    """The matrix products of these iterations and nothing else, into memory that is there."""
    places = []
    for count, rows, columns in stacks:
        high, wide = min(rows, columns), max(rows, columns)
        x = torch.randn(count, high, wide, device=device).bfloat16() / wide**0.5
        a = torch.bmm(x, x.mT)
        places.append((x, a, torch.empty_like(a), torch.empty_like(x)))

    def run() -> None:
        for x, a, b, out in places:
            for _ in range(steps):
                torch.bmm(x, x.mT, out=b)
                torch.bmm(a, a, out=b)
                torch.bmm(a, x, out=out)

    return run


def muon(shapes: list[tuple[int, int]], seconds: float, device: str) -> None:
    """Muon against torch's, and the share of matrix products in it and in its iteration."""
    ours = slalom.Muon([{"params": filled(shapes, device), "role": "matrix"}], lr=0.02)
    theirs = torch.optim.Muon(filled(shapes, device), lr=0.02, adjust_lr_fn="match_rms_adamw")
    stacks = stacked(shapes)
    contestants = {"slalom": ours.step, "torch": theirs.step}
    parts = {"iterations": iterations(stacks, device), "products": products(stacks, device)}
    best = minima(contestants | parts, seconds, device)
    print(
        f"  Muon    {best['slalom'] * 1e3:8.2f} ms   {best['slalom'] / best['torch']:.2f} x torch.optim.Muon   "
        f"its products alone take {best['products'] / best['slalom']:.0%} of it, "
        f"and {best['products'] / best['iterations']:.0%} of the polar iterations"
    )


def _in_place(_: object, a: tuple[int, int], b: tuple[int, int], **__: object) -> int:
    """What torch's counter does not know of: ``addmm_``."""
    return 2 * a[0] * a[1] * b[1]


def products_per_step(step: Callable[[], object], shapes: list[tuple[int, int]], steps: int) -> float:
    """Floating-point work of torch's matrix products in a step, in products of n^3; QR and eigh are not in it."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place}) as counter:
        for _ in range(steps):
            step()
    work = sum(2 * m * n * min(m, n) for m, n in shapes)
    return float(counter.get_total_flops()) / steps / work


def against_pytorch_optimizer(
    name: str, theirs: str, shapes: list[tuple[int, int]], seconds: float, device: str, **settings: object
) -> None:
    """One of the Kronecker methods against pytorch_optimizer's, over one cycle of its amortised work."""
    import pytorch_optimizer

    a = slalom.create(name, filled(shapes, device), frequency=10)
    b = getattr(pytorch_optimizer, theirs)(filled(shapes, device), **settings)

    def cycle(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
        return lambda: [optimizer.step() for _ in range(10)]

    best = minima({"slalom": cycle(a), "theirs": cycle(b)}, seconds, device)
    ours, others = (products_per_step(optimizer.step, shapes, 10) for optimizer in (a, b))
    print(
        f"  {name:<7} {best['slalom'] * 1e2:8.2f} ms   {best['theirs'] / best['slalom']:.2f} times as fast as "
        f"pytorch_optimizer's {theirs}, mean of 10 steps; {ours:.1f} products per step and matrix, theirs {others:.1f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="for a second each, and on a CPU not GPT-2")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    chosen = parser.parse_args()
    seconds, device = 1.0 if chosen.quick else 10.0, chosen.device
    warnings.simplefilter("ignore")
    where = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}; minima")
    for title, shapes in LISTS.items():
        if not (chosen.quick and device == "cpu" and "GPT-2" in title):
            print(title)
            muon(shapes, seconds, device)
    if importlib.util.find_spec("pytorch_optimizer"):
        for side, count in ((256, 24), (1024, 2)):
            print(f"{count} matrices of {side} x {side}")
            square = [(side, side)] * count
            against_pytorch_optimizer("soap", "SOAP", square, seconds, device, precondition_frequency=10)
            against_pytorch_optimizer("shampoo", "Shampoo", square, seconds, device, preconditioning_compute_steps=10)


if __name__ == "__main__":
    main()
