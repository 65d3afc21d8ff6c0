"""What looking for bad gradients costs: a step with on_nonfinite="skip" against one with "ignore", on finite gradients.

Nothing may be changed if any gradient anywhere is bad, so every gradient is read once before the first write. That is
its bytes over the step's, where both come from memory: 4 of 28 for AdamW, 14 %. Less where gradients fit the cache,
where the step then finds them; a training step is many times longer than either, and the last column is its share.

    python benchmarks/nonfinite.py
    python benchmarks/nonfinite.py --method sgd lamb --seconds 10
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from timing import measure
from torch import nn
from workloads import LISTS, filled

import slalom


def training(width: int, depth: int, batch: int, seconds: float) -> tuple[float, float, float]:
    """Return the medians of a training step with and without looking, and of the optimizer's step alone."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    net = nn.Sequential(*layers)
    x = torch.randn(batch, width)
    optimizer = slalom.AdamW(net.parameters(), lr=0.0)

    def step(choice: str) -> None:
        optimizer.on_nonfinite = choice  # type: ignore[assignment]
        optimizer.zero_grad()
        net(x).square().mean().backward()
        begin = time.perf_counter()
        optimizer.step()
        if choice == "ignore":
            alone.append(time.perf_counter() - begin)

    alone: list[float] = []
    times = measure({"skip": lambda: step("skip"), "ignore": lambda: step("ignore")}, seconds)
    return statistics.median(times["skip"]), statistics.median(times["ignore"]), statistics.median(alone)


def main() -> None:
    """Print one row per list and method, and two for whole training steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=["adamw", "sgd", "lamb"])
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians, in turns within one process")
    print(f"{'list':14} {'method':8} {'step':>10} {'looking':>10} {'ratio':>7}")
    for name, shapes in LISTS.items():
        for method in asked.method:
            params = filled(shapes)
            steps = {
                choice: slalom.create(method, params, lr=0.0, on_nonfinite=choice).step for choice in ("ignore", "skip")
            }
            times = {label: statistics.median(found) for label, found in measure(steps, asked.seconds).items()}
            ratio = times["skip"] / times["ignore"]
            print(f"{name:14} {method:8} {1e3 * times['ignore']:8.3f}ms {1e3 * times['skip']:8.3f}ms {ratio:7.3f}")
    for width, depth, batch in ((128, 3, 64), (1024, 6, 64)):
        skip, ignore, alone = training(width, depth, batch, asked.seconds)
        print(
            f"training {depth} layers of {width}, batch {batch}: {1e3 * ignore:.3f} ms, looking {1e3 * skip:.3f} ms, "
            f"ratio {skip / ignore:.3f}; the optimizer's share {alone / ignore:.0%}"
        )


if __name__ == "__main__":
    main()
