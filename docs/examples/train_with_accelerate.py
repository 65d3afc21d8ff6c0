"""Accelerate: prepared as any optimizer is, with accumulation, clipping and a schedule.

python train_with_accelerate.py     needs accelerate
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

import slalom
from slalom.schedules import parse

STEPS = 100


def main() -> float:
    """Train, and return the last loss."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = slalom.create("muon", model, lr=0.02)  # before `prepare`, while the model is what it is
    schedule = parse("warmup 5%, cosine", steps=STEPS).attach(optimizer)
    loader = torch.utils.data.DataLoader(torch.randn(2 * 32 * STEPS, 8), batch_size=32)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    for x in loader:
        with accelerator.accumulate(model):
            loss = functional.mse_loss(model(x)[:, 0], x.prod(1).tanh() + x[:, 0])
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return loss.item()


if __name__ == "__main__":
    print(f"last loss {main():.3f}")
