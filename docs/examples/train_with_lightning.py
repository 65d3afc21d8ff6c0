"""Lightning with a method that averages: two hooks show validation the averaged weights.

python train_with_lightning.py      needs lightning
"""

import lightning
import torch
from torch import nn
from torch.nn import functional

import slalom

STEPS = 200


class Lines(lightning.LightningModule):
    """Tells on which side of a parabola a point lies."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))

    def _loss(self, points: torch.Tensor) -> torch.Tensor:
        above = (points[:, 1] > points[:, 0] ** 2).float()
        return functional.binary_cross_entropy_with_logits(self.net(points)[:, 0], above)

    def training_step(self, points: torch.Tensor, place: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return self._loss(points)

    def validation_step(self, points: torch.Tensor, place: int) -> None:
        """Log the loss of a batch."""
        self.log("validation", self._loss(points))

    def configure_optimizers(self) -> slalom.Optimizer:
        """Make the optimizer from the module, whose layers tell who is a matrix."""
        return slalom.create("schedule-free-adamw", self, lr=0.02)

    # Lightning knows nothing of averages. Both calls do nothing for a method without one.
    def on_validation_model_eval(self) -> None:
        """Put the averaged weights in place."""
        super().on_validation_model_eval()
        for optimizer in self.trainer.optimizers:
            optimizer.eval()

    def on_validation_model_train(self) -> None:
        """Put those back that training goes on from."""
        super().on_validation_model_train()
        for optimizer in self.trainer.optimizers:
            optimizer.train()


def main() -> float:
    """Train, and return the loss of the averaged weights."""
    torch.manual_seed(0)
    points = torch.rand(2048, 2) * 2 - 1
    loaders = [torch.utils.data.DataLoader(part, batch_size=64) for part in points.split((1536, 512))]
    trainer = lightning.Trainer(
        max_steps=STEPS, accelerator="auto", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Lines(), *loaders)
    return float(trainer.callback_metrics["validation"])


if __name__ == "__main__":
    print(f"validation {main():.3f}")
