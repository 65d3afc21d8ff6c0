"""An ordinary training script: two spirals are told apart. It runs by itself, and in a race with another optimizer.

python train_spiral.py
"""

import torch
from torch import nn
from torch.nn import functional

from slalom.race.adapt import session

STEPS = 300


def spirals(count: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points on two spirals, with noise, and on which they lie."""
    label = torch.randint(2, (count,), generator=generator)
    angle = 9 * torch.rand(count, generator=generator).sqrt()
    points = torch.stack([angle.cos(), angle.sin()], 1) * (angle / 9 * (1 - 2 * label))[:, None]
    return points + 0.02 * torch.randn(count, 2, generator=generator), label


def main() -> None:
    """Train, and print how it goes."""
    race = session()
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    optimizer = race.optimizer(model, lambda: torch.optim.AdamW(model.parameters(), lr=3e-3))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    held_out = spirals(500, torch.Generator().manual_seed(1))
    for step in range(1, STEPS + 1):
        points, label = spirals(128)
        optimizer.zero_grad()
        functional.cross_entropy(model(points), label).backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            with race.evaluating(), torch.no_grad():
                logits = model(held_out[0])
                loss = functional.cross_entropy(logits, held_out[1])
                accuracy = (logits.argmax(1) == held_out[1]).float().mean()
                race.report(loss, accuracy=accuracy)
            print(f"step {step:4}  loss {loss:.3f}  accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
