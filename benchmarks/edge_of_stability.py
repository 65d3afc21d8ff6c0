"""Full-batch training and its edge of stability: the figures of docs/landscape.md. About a minute on one core.

python benchmarks/edge_of_stability.py
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import slalom


def main() -> None:
    """Print sharpness as each method measures it, along its way, and the edge that theory gives."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(5, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))
    x = torch.randn(64, 5)
    y = torch.sin(x.sum(1, keepdim=True))

    def loss(model: nn.Module) -> Tensor:
        return 0.5 * (model(x) - y).square().mean()

    for name, settings, edge, steps, every in [
        ("sgd", {"lr": 0.5}, 2.0, 1000, 250),
        ("adam", {"lr": 3e-3, "betas": (0.9, 0.99)}, 38.0, 1500, 300),
        ("adam", {"lr": 1e-2, "betas": (0.8, 0.99)}, 18.0, 1500, 300),
    ]:
        model = copy.deepcopy(start)
        optimizer = slalom.create(name, model.parameters(), **settings)
        seen = []
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
            if step == 1 or step % every == 0:
                seen.append(slalom.landscape.sharpness(model, loss, measure=optimizer, samples=0).largest)
        print(f"{name} {settings}: edge {edge:g}, measured {', '.join(f'{value:.2f}' for value in seen)}", flush=True)


if __name__ == "__main__":
    main()
