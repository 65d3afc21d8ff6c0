"""When the tricks help, by counting: steps on quadratics, losses on handwritten digits. Nothing is timed.

Quadratics have 50 coordinates and curvatures from 1/kappa to 1, along the axes or rotated at random; a method is done
when the distance to the minimum is 1e-8 of what it was. Rates are those of theory (1, the inverse of the largest
curvature) for all but the rate that adapts itself, which begins there.

The network has 64-64-32-10 units with leaky rectifiers. Every method gets every rate of the same grid, and reports its
best mean over the seeds: the loss on all training images after so many steps, from gradients of the whole set or of
batches of 32. A method that diverges at a rate is out at that rate.

    python benchmarks/tricks.py            both, a few minutes
    python benchmarks/tricks.py --quick    fewer rates, seeds and steps
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import slalom
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.finite_sums import FISTA

RECIPES: dict[str, Callable[[float], Recipe]] = {
    "sgd": lambda lr: Recipe(step=lr),
    "nesterov 0.9": lambda lr: Recipe(momentum=P.HeavyBall(0.9, nesterov=True), step=lr),
    "nesterov 1, free": lambda lr: Recipe(momentum=P.HeavyBall(1.0, nesterov=True), step=lr),
    "arrested": lambda lr: Recipe(momentum=P.Arrested(), step=lr),
    "arrested 0.9": lambda lr: Recipe(momentum=P.Arrested(0.9), step=lr),
    "sign rate": lambda lr: Recipe(step=P.SignRate(lr)),
    "arrested, sign rate": lambda lr: Recipe(momentum=P.Arrested(), step=P.SignRate(lr)),
    "tunnel 1e-2": lambda lr: Recipe(form=P.Tunnel(floor=1e-2), step=lr),
    "tunnel 1e-4": lambda lr: Recipe(form=P.Tunnel(floor=1e-4), step=lr),
    "arrested, tunnel 1e-4": lambda lr: Recipe(momentum=P.Arrested(), form=P.Tunnel(floor=1e-4), step=lr),
    "turns, boost 10": lambda lr: Recipe(momentum=P.Alternating(P.Arrested(), 50, 50, 10.0), step=lr),
    "adam": lambda lr: Recipe(momentum=P.Ema(0.9), scale=P.SecondMoment(0.999), step=lr),
}
ON_QUADRATICS = ("sgd", "nesterov 0.9", "nesterov 1, free", "arrested", "sign rate", "arrested, sign rate")
MOST = 30_000


def matrix(kappa: float, *, rotated: bool) -> Tensor:
    """Return a quadratic form."""
    generator = torch.Generator().manual_seed(0)
    values = torch.logspace(-math.log10(kappa), 0, 50, dtype=torch.float64)
    if not rotated:
        return values.diag()
    basis = torch.linalg.qr(torch.randn(50, 50, generator=generator, dtype=torch.float64)).Q
    return basis * values @ basis.T


def steps_needed(form: Tensor, advance: Callable[[Tensor], None], w: Tensor) -> str:
    """Count the steps until w is 1e-8 of what it was."""
    goal = 1e-8 * float(w.detach().norm())
    for step in range(1, MOST + 1):
        advance(form @ w.detach())
        distance = float(w.detach().norm())
        if distance < goal:
            return f"{step:,}"
        if not distance < 1e9:
            return "diverges"
    return f"over {MOST:,}"


def on_quadratic(recipe: Recipe, form: Tensor) -> str:
    """Count the steps of a recipe."""
    w = nn.Parameter(torch.ones(50, dtype=torch.float64))
    optimizer = recipe.build([w])

    def advance(gradient: Tensor) -> None:
        w.grad = gradient
        optimizer.step()

    return steps_needed(form, advance, w)


def fista(form: Tensor, *, restart: str) -> str:
    """Count the steps of FISTA."""
    w = torch.ones(50, dtype=torch.float64, requires_grad=True)
    method = FISTA([w], lambda: 0.5 * w @ form @ w, smoothness=1.0, restart=restart)  # type: ignore[arg-type]

    def advance(_: Tensor) -> None:
        method.step()

    return steps_needed(form, advance, w)


def quadratics(quick: bool) -> None:
    """Print the table of steps."""
    cases = [(kappa, rotated) for kappa in ((100.0,) if quick else (100.0, 1e4)) for rotated in (False, True)]
    print("| steps to 1e-8 | " + " | ".join(f"kappa {k:g}, {'rotated' if r else 'axes'}" for k, r in cases) + " |")
    print("| --- |" + " --- |" * len(cases))
    forms = [matrix(kappa, rotated=rotated) for kappa, rotated in cases]
    for name in ON_QUADRATICS:
        print(f"| {name} | " + " | ".join(on_quadratic(RECIPES[name](1.0), form) for form in forms) + " |", flush=True)
    for restart in ("none", "gradient"):
        label = "FISTA" + (", gradient restart" if restart == "gradient" else "")
        print(f"| {label} | " + " | ".join(fista(form, restart=restart) for form in forms) + " |", flush=True)


def network(seed: int) -> nn.Sequential:
    """Return the network of the original demonstration."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(64, 64), nn.LeakyReLU(0.1), nn.Linear(64, 32), nn.LeakyReLU(0.1), nn.Linear(32, 10)
        )


def final_loss(
    build: Callable[[nn.Module], torch.optim.Optimizer], data: tuple[Tensor, Tensor], seed: int, steps: int, batch: int
) -> float:
    """Train, and return the loss on the whole set; batch 0 is the whole set."""
    x, y = data
    model = network(seed)
    optimizer = build(model)
    chance = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        picked = torch.randint(len(x), (batch,), generator=chance) if batch else slice(None)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[picked]), y[picked])
        if not math.isfinite(float(loss)):
            return math.inf
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        final = float(functional.cross_entropy(model(x), y))
    return final if math.isfinite(final) else math.inf


def digits(quick: bool) -> None:
    """Print the table of losses."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    data = torch.from_numpy(pixels).float() / 8 - 1, torch.from_numpy(classes).long()
    rates = [10.0**power for power in ((-2, -1) if quick else (-2.5, -2, -1.5, -1, -0.5, 0))]
    seeds = range(1 if quick else 2)
    settings = [(100, 0), (100, 32)] if quick else [(200, 0), (200, 32)]
    builders: dict[str, Callable[[float], Callable[[nn.Module], torch.optim.Optimizer]]] = {
        name: lambda lr, make=make: lambda model: make(lr).build(model)  # type: ignore[misc]
        for name, make in RECIPES.items()
    }
    builders["fan-out, rates x 32"] = lambda lr: (
        lambda model: Recipe(step=lr).build(slalom.param_groups(model, lr=32 * lr, fan_out=True))
    )
    labels = [f"{steps} steps, {f'batches of {batch}' if batch else 'whole set'}" for steps, batch in settings]
    print("\n| training loss (best rate) | " + " | ".join(labels) + " |")
    print("| --- |" + " --- |" * len(settings))
    for name, builder in builders.items():
        shown = []
        for steps, batch in settings:
            means: dict[float, float] = dict.fromkeys(rates, 0.0)
            for rate, seed in itertools.product(rates, seeds):
                if math.isfinite(means[rate]):
                    means[rate] += final_loss(builder(rate), data, seed, steps, batch) / len(seeds)
            loss, rate = min((loss, rate) for rate, loss in means.items())
            shown.append(f"{loss:.4f} ({rate:.2g})")
        print(f"| {name} | " + " | ".join(shown) + " |", flush=True)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    quadratics(chosen.quick)
    digits(chosen.quick)


if __name__ == "__main__":
    main()
