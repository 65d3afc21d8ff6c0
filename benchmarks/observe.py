"""What watching a training run costs, in CPU time of the whole training.

python benchmarks/observe.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import slalom
from slalom.race.workload import stream
from slalom.race.workloads import built_in


class Decoder(nn.Module):
    """A GPT of 6.4 million parameters in 76 tensors, as the published costs of single quantities are about."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(512, 256)
        layer = nn.TransformerEncoderLayer(256, 8, 1024, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)
        self.head = nn.Linear(256, 512)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits of the next tokens."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        logits: Tensor = self.head(self.layers(self.embed(tokens), mask, is_causal=True))
        return logits


def _tokens() -> Iterator[Tensor]:
    while True:
        yield torch.randint(512, (8, 129))


def _next_token(model: nn.Module, batch: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def _seconds(
    model: nn.Module, batches: Iterator[Any], loss: Callable[..., Tensor], steps: int, every: int | None
) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    watch = None if every is None else slalom.observe.watch(model, optimizer, every=every)
    picked = [next(batches) for _ in range(8)]
    began = time.process_time()
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(model, picked[step % 8])
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if watch is not None:
            watch.loss(value)
    spent = time.process_time() - began
    if watch is not None:
        watch.close()
    return spent


def main() -> None:
    """Print one row per model and interval."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--threads", type=int, default=1)
    given = words.parse_args()
    torch.set_num_threads(given.threads)
    digits, cnn = built_in()["digits_mlp"], built_in()["digits_cnn"]
    courses: dict[str, tuple[Callable[[], nn.Module], Callable[[], Iterator[Any]], Callable[..., Tensor], int]] = {
        "digits_mlp, 26 thousand in 6 tensors": (
            digits.model, lambda: iter(digits.batches(stream("digits_mlp", 0, "batches"))), digits.loss, 1000,
        ),
        "digits_cnn, 39 thousand in 11 tensors": (
            cnn.model, lambda: iter(cnn.batches(stream("digits_cnn", 0, "batches"))), cnn.loss, 200,
        ),
        "GPT, 6.6 million in 100 tensors": (Decoder, _tokens, _next_token, 20),
    }  # fmt: skip
    for name, (model, batches, loss, steps) in courses.items():
        for every in (50, 200):
            shares = []
            many = max(steps, every)  # a whole interval at least
            for _ in range(given.rounds):
                alone = _seconds(model(), batches(), loss, many, None)
                shares.append(_seconds(model(), batches(), loss, many, every) / alone - 1)
                if every > steps:
                    break
            print(
                f"{name:<38} every {every:>3}: {statistics.median(shares):+7.1%} of {1e3 * alone / many:.2f} ms a step"
            )


if __name__ == "__main__":
    main()
