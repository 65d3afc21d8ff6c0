"""Whether a rate that follows its own slope is worth having: from rates that are right, ten times off, or worse.

    python benchmarks/hypergradient.py        # some minutes on one core

Each line: the validation loss after a whole run of digits_mlp, warm-up and cosine, without and with `Hypergradient` at
several speeds, a mean over seeds, and in parentheses the factor that the rate had at the end with the first seed.
"""

from __future__ import annotations

import statistics

import torch

from slalom import Recipe
from slalom.parts import Ema, HeavyBall, Hypergradient, SecondMoment
from slalom.race.workload import reseed, stream
from slalom.race.workloads import built_in

SPEEDS = (0.0, 0.01, 0.03, 0.1)
SEEDS = 2
WORKLOAD = built_in()["digits_mlp"]


def trained(recipe: Recipe, seed: int) -> tuple[float, float]:
    """Return the validation loss after a whole run, and what the rate was multiplied by at its end."""
    reseed(WORKLOAD.name, seed, "model")
    model = WORKLOAD.model()
    optimizer = recipe.build(model)
    batches = WORKLOAD.batches(stream(WORKLOAD.name, seed, "batches"))
    (group,) = optimizer.param_groups
    rate = group["lr"]
    for step, batch in zip(range(WORKLOAD.steps), batches, strict=False):
        group["lr"] = rate * WORKLOAD.schedule(step / WORKLOAD.steps)
        optimizer.zero_grad()
        WORKLOAD.loss(model, batch).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return float(WORKLOAD.evaluate(model)["loss"]), next(iter(optimizer.state.values()))["hypergradient.a"].item()


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    adam = {"momentum": Ema(0.9), "scale": SecondMoment(0.999)}
    ball = {"momentum": HeavyBall(0.9)}
    for name, slots, rates in (("adam", adam, (8e-4, 8e-3, 8e-2)), ("sgd", ball, (1e-2, 1e-1, 1.0))):
        for rate in rates:
            row = []
            for speed in SPEEDS:
                recipe = Recipe(**slots, step=Hypergradient(rate, speed))
                runs = [trained(recipe, seed) for seed in range(SEEDS)]
                row.append(f"{speed}: {statistics.fmean(loss for loss, _ in runs):.3f} ({runs[0][1]:.2g})")
            print(f"{name:<5} lr {rate:<7g} {'   '.join(row)}", flush=True)


if __name__ == "__main__":
    main()
