"""What watching a training run costs, in CPU time of the whole training; and what it says of runs that are well.

python benchmarks/observe.py
python benchmarks/observe.py --default     # what the default period makes of it, in runs of half a minute
python benchmarks/observe.py --alarms
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import slalom
from slalom.observe.report import Report
from slalom.race.workload import reseed, stream
from slalom.race.workloads import built_in


class Decoder(nn.Module):
    """A GPT of 6.6 million parameters in 99 tensors."""

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


def _next_token(model: nn.Module, batch: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def _least(call: Callable[[], object], times: int) -> float:
    """Return the CPU seconds of a call that was disturbed least."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent)


def _costs(model: nn.Module, batch: Any, loss: Callable[..., Tensor], times: int) -> tuple[float, float, float]:
    """Return CPU seconds of a training step, what watching adds to every one, and what a sample adds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> None:
        optimizer.zero_grad()
        loss(model, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    train()
    whole = _least(train, times)
    loss(model, batch).backward()  # type: ignore[no-untyped-call]
    plain = _least(optimizer.step, 5 * times)

    def watched(every: int) -> float:
        with slalom.observe.watch(model, optimizer, every=every):
            for _ in range(3):  # the first sample is taken at the second step
                optimizer.step()
            return _least(optimizer.step, 5 * times) - plain

    always = watched(10**9)
    return whole, always, watched(1) - always  # at every step one sample ends and another begins


def default(blocks: int = 3, steps: int = 40_000) -> None:
    """Print what watching by default adds to a perceptron's training, in CPU time; runs with and without take turns."""
    course = built_in()["digits_mlp"]
    model = course.model()
    batch = next(iter(course.batches(stream("digits_mlp", 0, "batches"))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> float:
        began = time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            course.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return time.process_time() - began

    added, samples = [], []
    for _ in range(blocks):
        before = train()
        with slalom.observe.watch(model, optimizer) as watch:
            watched = train()
        added.append(watched / ((before + train()) / 2) - 1)
        samples.append(len(watch.run().steps))
    print(*(f"{share:.1%} with {count} samples" for share, count in zip(added, samples, strict=True)), sep=", ")


# Workloads of the race that both methods train at these rates, one line of code each.
_WELL = ("digits_mlp", "digits_cnn", "charlm", "deep_linear", "zipf", "diabetes", "cancer", "wine", "clicks")
_METHODS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "AdamW, 3e-3": lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3),
    "SGD, 0.1, momentum 0.9": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
}


def alarms(scheduled: bool, most: int = 400) -> None:
    """Print which verdicts healthy runs get at their end, and at any of their samples.

    Args:
        scheduled: whether the rate follows the workload's schedule, or is constant.
        most: steps per run.
    """
    for name in _WELL:
        course = built_in()[name]
        for label, make in _METHODS.items():
            reseed(name, 0, "model")
            model = course.model()
            optimizer = make(model)
            (rate,) = (group["lr"] for group in optimizer.param_groups)
            batches = iter(course.batches(stream(name, 0, "batches")))
            steps = min(course.steps, most)
            with slalom.observe.watch(model, optimizer, every=20) as watch:
                for step in range(steps):
                    optimizer.param_groups[0]["lr"] = rate * (course.schedule(step / steps) if scheduled else 1.0)
                    batch = next(batches)
                    optimizer.zero_grad()
                    value = course.loss(model, batch)
                    value.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    watch.loss(value)
            run = watch.run()
            ever = sorted({found for step in run.steps for found in Report(run.until(step)).names})
            final = Report(run).names
            fell = f"{run.losses[0]:.3g} to {run.losses[-1]:.3g}"
            print(f"{name:<12} {label:<24} {fell:<18} at the end: {_words(final):<24} ever: {_words(ever)}")


def _words(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def main() -> None:
    """Print one row per model."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--alarms", action="store_true")
    words.add_argument("--default", action="store_true")
    given = words.parse_args()
    torch.set_num_threads(given.threads)
    if given.default:
        default()
        return
    if given.alarms:
        for scheduled in (True, False):
            print("with a schedule" if scheduled else "at a constant rate")
            alarms(scheduled)
        return
    digits, cnn = built_in()["digits_mlp"], built_in()["digits_cnn"]
    courses: dict[str, tuple[nn.Module, Any, Callable[..., Tensor], int]] = {
        "digits_mlp": (
            digits.model(),
            next(iter(digits.batches(stream("digits_mlp", 0, "batches")))),
            digits.loss,
            200,
        ),
        "digits_cnn": (cnn.model(), next(iter(cnn.batches(stream("digits_cnn", 0, "batches")))), cnn.loss, 50),
        "gpt": (Decoder(), torch.randint(512, (8, 129)), _next_token, 5),
    }
    for name, (model, batch, loss, times) in courses.items():
        tensors = [parameter.numel() for parameter in model.parameters()]
        step, always, sample = _costs(model, batch, loss, times)
        shares = [f"every {every} {(always + sample / every) / step:.1%}" for every in (50, 200)]
        print(
            f"{name:<11}{sum(tensors):>10,} values in {len(tensors):>3} tensors: a step {1e3 * step:.2f} ms, "
            f"each step +{1e3 * always:.3f} ms, a sample +{1e3 * sample:.2f} ms; {', '.join(shares)}"
        )


if __name__ == "__main__":
    main()
